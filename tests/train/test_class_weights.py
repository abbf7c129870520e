"""loss.class_weights=auto: the pixels of the training decide."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fixture_types import Command, Tiny, Train
from PIL import Image

from segpets.loss.base import SegmentationLoss, balanced


def test_a_training_weighs_by_its_masks_and_says_so(train_tiny: Train) -> None:
    given = "loss.losses.pixel.class_weights=auto"
    result = train_tiny(given, "trainer.max_epochs=1")
    counts = np.zeros(3, dtype=np.int64)
    for sample in result.datamodule.splits["train"]:
        mask = Image.open(sample.mask).resize((64, 64), Image.Resampling.NEAREST)
        counts += np.bincount(np.asarray(mask).ravel() - 1, minlength=3)
    expected = balanced(counts.tolist())
    summary = json.loads((result.path / "summary.json").read_text())
    assert summary["class_weights"] == pytest.approx(expected, rel=1e-6)
    parts = [p for p in result.module.loss.modules() if isinstance(p, SegmentationLoss)]
    pixel, overlap = parts
    assert pixel.class_weights.tolist() == pytest.approx(expected, rel=1e-6)
    assert overlap.class_weights.tolist() == [1, 1, 1], "it didn't ask for them"


@pytest.mark.slow
def test_the_weights_given_by_hand_train_the_same_net(train_tiny: Train) -> None:
    auto = train_tiny("loss=cross_entropy", "loss.class_weights=auto", folder="auto")
    weights = json.loads((auto.path / "summary.json").read_text())["class_weights"]
    word = f"loss.class_weights={weights}".replace(" ", "")
    given = train_tiny("loss=cross_entropy", word, folder="given")
    pairs = zip(auto.module.net.parameters(), given.module.net.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_evaluate_computes_the_loss_that_was_trained(
    train_tiny: Train, tmp_path: Path, command: Command
) -> None:
    run = train_tiny("loss=cross_entropy", "loss.class_weights=auto")
    words = [f"run={run.path}", "errors=0", "resamples=99", "hydra.run.dir=out"]
    done = command(*words, module="segpets.evaluate")
    assert done.returncode == 0, done.stdout
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())["metrics"]
    assert found["test/loss"] == pytest.approx(run.metrics["test/loss"], rel=1e-5)


def test_a_class_that_no_training_image_shows(tiny: Tiny, command: Command) -> None:
    classes = ["data.labels=species", "data.classes=[background,cat,dog]"]
    done = command(*tiny("loss=cross_entropy", "loss.class_weights=car"))
    assert done.returncode == 1
    assert "loss.class_weights is car; give auto, null, or a list of a number" in done.stdout
    done = command(*tiny("loss=cross_entropy", "loss.class_weights=auto", *classes))
    assert done.returncode == 0, done.stdout


def test_the_default_loss_gives_its_terms_the_weights(train_tiny: Train) -> None:
    words = ["loss.class_weights=auto", "loss.losses.overlap.class_weights=[1,2,3]"]
    result = train_tiny(*words, "trainer.max_epochs=1")
    pixel, overlap = (p for p in result.module.loss.modules() if isinstance(p, SegmentationLoss))
    summary = json.loads((result.path / "summary.json").read_text())
    assert pixel.class_weights.tolist() == pytest.approx(summary["class_weights"], rel=1e-6)
    assert overlap.class_weights.tolist() == [1, 2, 3], "its own"


@pytest.mark.parametrize("weights", ["{pet:2,border:1}", "[auto,1,1]", "[true,1,1]"])
@pytest.mark.parametrize("loss", ["combined", "dice"])
def test_weights_that_are_no_numbers_are_answered(
    loss: str, weights: str, tiny: Tiny, command: Command
) -> None:
    done = command(*tiny(f"loss={loss}", f"loss.class_weights={weights}"))
    assert done.returncode == 1
    assert "give auto, null, or a list of a number for each class" in done.stdout


@pytest.fixture
def three_of_four(tmp_path: Path) -> list[str]:
    """Masks that show three of four classes."""
    draw = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for index in range(12):
        image, mask = draw.integers(0, 255, (32, 32, 3)), draw.integers(0, 3, (32, 32))
        for name, pixels in (("images", image), ("masks", mask)):
            file = tmp_path / "data" / name / f"{index}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    root = f"data.root={tmp_path / 'data'}"
    return ["data=folder", root, "data.classes=[a,b,c,d]", "data.size=32", "loss=dice"]


def test_a_weight_of_a_class_that_isnt_there(three_of_four: list[str], command: Command) -> None:
    words = [*three_of_four, "model.widths=[4,8]", "trainer.max_epochs=1", "data.batch_size=4"]
    for weights in ("auto", "[1,1,1,5]"):
        done = command(*words, f"loss.class_weights={weights}")
        assert done.returncode == 0, done.stdout
        assert "No training image shows d: its weight counts nothing" in done.stdout
    done = command(*words, "loss.class_weights=[0,0,0,5]")
    assert done.returncode == 1
    assert "0 for every class that the training images show: nothing would be learnt" in (
        " ".join(done.stdout.split())
    )
