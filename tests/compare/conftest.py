from pathlib import Path

import pytest
from made_runs import drawn, make_run


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Three models of two seeds, one failed try of another, a cut summary, and what is no run."""
    folder = tmp_path / "logs" / "train" / "multiruns" / "first"
    for model, right in (("unet", 0.9), ("vit", 0.7), ("fcn", 0.696)):
        for seed in (1, 2):
            counts = drawn(right, images=40, seed=seed)
            name = f"model-{model}__seed-{seed}"
            make_run(folder / name, f"model={model}", "loss=dice", seed=seed, counts=counts)
    make_run(folder / "model-segnet", "model=segnet", status="failed", error="RuntimeError: no")
    make_run(folder / "model-unet__seed-3", "model=unet", seed=3)
    text = (folder / "model-unet__seed-3" / "summary.json").read_text()
    (folder / "model-unet__seed-3" / "summary.json").write_text(text[:100])
    make_run(folder / "model-segnet.failed-1", "model=segnet", status="failed")
    (folder / "notes").mkdir()
    return folder
