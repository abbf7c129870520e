"""The recipes for scenes, on small copies in the true layout: trained on crops, judged whole."""

import json
from collections.abc import Callable
from pathlib import Path

import made_data
import pytest

from segpets.config import compose
from segpets.train import train


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("cityscapes", made_data.cityscapes),
        pytest.param("voc", made_data.voc, marks=pytest.mark.slow),
    ],
)
def test_a_recipe_trains_on_crops_and_judges_whole_pictures(
    name: str, make: Callable[[Path], Path], tmp_path: Path
) -> None:
    root = make(tmp_path / "data")
    words = [
        *(f"experiment={name}", f"data.root={root}", "data.crop=[32,48]", "data.batch_size=2"),
        *("model.widths=[4,8]", "trainer.max_epochs=1", "trainer=cpu", "trainer.precision=32-true"),
        *("data.cache=none", "trainer.log_every_n_steps=1", f"hydra.run.dir={tmp_path}/run"),
    ]
    result = train(compose(words))
    batch = next(iter(result.datamodule.train_dataloader()))
    assert batch["image"].shape == (2, 3, 32, 48)
    for sample, batch in zip(
        result.datamodule.splits.test, result.datamodule.test_dataloader(), strict=False
    ):
        height, width = result.datamodule.source.mask(sample).shape
        assert batch["mask"].shape[-2:] == (max(height, 32), max(width, 32))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["protocol"]["resolution"] == "each image's own size"
    assert summary["protocol"]["fit"] == "none"
    assert summary["protocol"]["tested_weights"] == {"checkpoint": "last"}  # val is test
