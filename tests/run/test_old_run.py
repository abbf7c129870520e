"""A run directory that earlier code wrote is still read, by every command.

`old_run` was trained by the commit 520252e, of two epochs of 4, 2 and 2 batches of pets_mini at 32
pixels, in a folder /elsewhere/run of a machine with segpets in /elsewhere.
"""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from made_pictures import seen as read_image
from PIL import Image

import segpets
from segpets.compare import compare
from segpets.config import compose
from segpets.evaluate import evaluate
from segpets.export import export
from segpets.predict import predict
from segpets.train import train

OLD = Path(__file__).parent / "old_run"
PETS_MINI = Path(segpets.__file__).parent / "data" / "pets_mini" / "images"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "run"))


def summary(path: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((path / "summary.json").read_text())
    return content


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_it_predicts_the_masks_that_it_predicted(old: Path) -> None:
    net = segpets.load(old, device="cpu")
    masks = sorted((old / "predictions/test/masks").glob("*.png"))
    assert len(masks) == 16
    for mask in masks:
        image, _ = read_image(PETS_MINI / f"{mask.stem}.jpg", 32)
        (ids,) = net.logits(torch.from_numpy(image)[None]).argmax(1).numpy()
        with Image.open(mask) as stored:
            assert (ids == np.asarray(stored)).mean() > 0.999, mask.stem


def test_it_evaluates(old: Path, tmp_path: Path) -> None:
    words = [f"run={old}", "errors=0", "resamples=99", f"hydra.run.dir={tmp_path / 'out'}"]
    result = evaluate(compose(words, task="evaluate"))
    protocol = result.record["protocol"]
    assert (protocol["checkpoint"], protocol["evaluated"]) == ("best.ckpt", 296)


def test_it_predicts_and_exports(old: Path, tmp_path: Path) -> None:
    photo = sorted(PETS_MINI.glob("*.jpg"))[0]
    words = [f"run={old}", f"source={photo}", f"output={tmp_path / 'out'}", "outputs=[masks]"]
    assert predict(compose(words, task="predict")).failed == 0
    words = [f"run={old}", "format=torch_export", "images=4", "repeats=1"]
    exported = export(compose(words, task="export"))
    assert exported.path.is_file()


def test_it_compares_with_its_protocol_alone(old: Path, tmp_path: Path) -> None:
    cfg = compose([f"hydra.run.dir={tmp_path / 'out'}", f"runs={old}", "images=1"], task="compare")
    (group,) = compare(cfg).groups
    (configuration,) = group.configurations
    assert configuration.mean("test/mean_iou") == summary(OLD)["test/mean_iou"]


def test_it_resumes(old: Path) -> None:
    result = train(
        compose([f"resume={old}", "trainer.max_epochs=3", "trainer.log_every_n_steps=1"])
    )
    assert result.path == old
    after = summary(old)
    assert (after["status"], after["epochs"]) == ("completed", 3)
    epochs = table(old / "metrics.csv")
    for before, now in zip(table(OLD / "metrics.csv"), epochs, strict=False):
        assert {key: now[key] for key in before} == before, "what was measured is kept"
    assert {row["epoch"] for row in epochs if row["val/mean_iou"]} == {"0", "1", "2"}
