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
    """Where the border counts as pet there is none; a third class is never seen."""
    classes = ["data.labels=species", "data.classes=[background,cat,dog]"]
    done = command(*tiny("loss=cross_entropy", "loss.class_weights=car"))
    assert done.returncode == 1
    assert "loss.class_weights is 'car'; give auto, null, or a number a class" in done.stdout
    done = command(*tiny("loss=cross_entropy", "loss.class_weights=auto", *classes))
    assert done.returncode == 0, done.stdout
