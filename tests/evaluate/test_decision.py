"""Decision weights: what they gain, by counts made by hand, and by the command."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from fixture_types import Command

import segpets
from segpets.evaluate.calibration import PixelSample
from segpets.evaluate.classes import merge
from segpets.evaluate.decision import absent, fit_weights, gain
from segpets.evaluate.slices import intervals
from segpets.metric import confusion_matrices, summarise
from segpets.train import Result

CLASSES = ("pet", "background", "border")
SAME = merge(CLASSES, CLASSES, None)


def pixels(
    groups: list[tuple[int, tuple[float, float, float], tuple[int, int, int]]],
) -> PixelSample:
    """Groups of pixels that look alike: how many, their probabilities, and their true classes."""
    logits, truth = [], []
    for count, probabilities, true in groups:
        assert sum(true) == count
        logits += [torch.tensor(probabilities).log()] * count
        truth += [c for c, often in enumerate(true) for _ in range(often)]
    return PixelSample(torch.stack(logits), torch.tensor(truth), torch.zeros(len(truth)).long())


def test_a_rare_class_is_decided_for_where_iou_gains_by_it() -> None:
    """Of 100 pixels that look the same, 40 are border: for pixel accuracy, none is called so."""
    sample = pixels(
        [
            (900, (0.90, 0.05, 0.05), (900, 0, 0)),
            (900, (0.05, 0.90, 0.05), (0, 900, 0)),
            (100, (0.05, 0.54, 0.41), (0, 59, 41)),
        ]
    )
    weights = fit_weights(sample, SAME)
    assert min(weights) == 1
    # As border: IoU of background 900 / 959, of border 41 / 100; else 959 / 1000 and 0.
    assert weights[2] * 0.41 > weights[1] * 0.54
    assert weights[2] * 0.05 < weights[1] * 0.90, "and the rest stays what it was"


def test_where_decisions_are_right_no_weight_is_needed() -> None:
    sample = pixels([(10, (0.8, 0.1, 0.1), (10, 0, 0)), (10, (0.1, 0.1, 0.8), (0, 0, 10))])
    assert fit_weights(sample, SAME) == [1, 1, 1]
    none = PixelSample(torch.zeros(0, 3), torch.zeros(0).long(), torch.zeros(0).long())
    assert fit_weights(none, SAME) == [1, 1, 1]


def test_a_class_that_val_lacks_keeps_its_weight() -> None:
    """Only that it is never right could be learnt: it would never be predicted again."""
    right = [(100, (0.8, 0.1, 0.1), (100, 0, 0)), (100, (0.1, 0.8, 0.1), (0, 100, 0))]
    sample = pixels([*right, (20, (0.3, 0.2, 0.5), (20, 0, 0))])
    assert fit_weights(sample, SAME) == [1, 1, 1]
    assert absent(sample, SAME) == ["border"]
    # 30 of 50 pixels that are called background are pet: IoU gains where all become pet.
    weights = fit_weights(pixels([*right, (50, (0.40, 0.42, 0.18), (30, 20, 0))]), SAME)
    assert weights[0] * 0.40 > weights[1] * 0.42
    assert weights[2] == pytest.approx((weights[0] * weights[1]) ** 0.5, abs=2e-3)


def test_weights_serve_the_classes_under_which_a_model_is_judged() -> None:
    """Where border counts as pet, calling a pixel border is calling it pet."""
    merged = merge(CLASSES, CLASSES[:2], "border_as_pet")
    sample = pixels([(100, (0.30, 0.40, 0.30), (60, 40, 0)), (99, (0.1, 0.8, 0.1), (0, 99, 0))])
    weights = fit_weights(sample, merged)
    assert max(weights[0], weights[2]) * 0.30 > weights[1] * 0.40


def test_the_gain_is_the_difference_of_mean_ious_with_a_paired_interval() -> None:
    generator = np.random.default_rng(0)
    hit = generator.integers(20, 60, (80, 3))
    before = np.stack([hit, np.full_like(hit, 80), np.full_like(hit, 80)], axis=1)
    after = before.copy()
    after[:, 0] += 3
    found = gain(before, after, resamples=999, seed=0)
    alone = [intervals(p, CLASSES, resamples=99, seed=0)["mean_iou"].value for p in (before, after)]
    assert found.value == pytest.approx(alone[1] - alone[0])
    assert 0 < found.low < found.value < found.high
    apart = intervals(before, CLASSES, resamples=999, seed=0)["mean_iou"]
    assert found.high - found.low < 0.2 * (apart.high - apart.low), "the images are the same"
    both = gain(np.stack([before, after]), after, resamples=999, seed=0)
    assert both.value == pytest.approx(found.value / 2), "over two, of which one is as good"
    assert both.low == pytest.approx(found.low / 2) and both.high == pytest.approx(found.high / 2)


def test_a_class_that_is_only_predicted_makes_no_gain() -> None:
    """Half of both classes is right, before and after; before, a pixel has a third class."""
    after = np.array([[[5, 5, 0], [10, 10, 0], [10, 10, 0]]] * 4)
    before = after + np.array([[0, 0, 0], [0, 0, 0], [-1, 0, 1]])
    found = gain(before, after, resamples=99, seed=0)
    assert found.value == pytest.approx((5 / 15 - 5 / 14) / 2)


@pytest.mark.slow
def test_the_command_fits_them_and_others_take_them(
    finished: Result, tmp_path: Path, command: Command
) -> None:
    words = [f"run={finished.path}", "errors=0", "resamples=99", "tta=[flip]"]
    done = command(*words, "decide=iou", "hydra.run.dir=out", module="segpets.evaluate")
    assert done.returncode == 0, done.stdout
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    weights = list(record["decision"]["weights"].values())
    assert list(record["decision"]["weights"]) == list(CLASSES)
    assert record["decision"]["protocol"]["weights"].startswith("fitted on 3 val images")
    given = re.search(r"'(decide=\[[\d.,]+\])'", "".join(done.stdout.split()))
    assert given is not None

    trained = segpets.load(finished.path)
    counts = torch.zeros(3, 3, dtype=torch.int64)
    for batch in finished.datamodule.plain_dataloader("test"):
        biased = trained.logits(batch["image"]).cpu() + torch.tensor(weights).log().view(-1, 1, 1)
        counts += confusion_matrices(biased.argmax(1), batch["mask"], 3).sum(0)
    expected = summarise(counts, CLASSES)["mean_iou"]
    assert record["decision"]["metrics"]["test/mean_iou"] == pytest.approx(expected, abs=1e-6)
    gained = expected - record["metrics"]["test/mean_iou"]
    assert record["gains"]["decision"]["value"] == pytest.approx(gained, abs=1e-6)
    assert record["decision"]["tta"] is not None and "decision and tta" in record["gains"]
    table = done.stdout.partition("Other predictions")[2]
    row = next(line for line in table.splitlines() if "decision weights" in line).split()
    names = ["pixel_accuracy", "mean_iou", *(f"iou/{name}" for name in CLASSES)]
    shown = [f"{record['decision']['metrics'][f'test/{name}']:.4f}" for name in names]
    assert [cell for cell in row if cell[0].isdigit()] == shown

    again = command(*words, given[1], "hydra.run.dir=again", module="segpets.evaluate")
    assert again.returncode == 0, again.stdout
    repeated = json.loads((tmp_path / "again" / "evaluation.json").read_text())
    assert repeated["decision"]["metrics"] == record["decision"]["metrics"]


@pytest.mark.slow
def test_a_stage_that_shares_images_with_val_is_decided_by_its_other_half(
    finished: Result, tmp_path: Path, command: Command
) -> None:
    words = [f"run={finished.path}", "errors=0", "resamples=99", "stage=val", "decide=iou"]
    done = command(*words, "hydra.run.dir=out", module="segpets.evaluate")
    assert done.returncode == 0, done.stdout
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    said = record["decision"]["protocol"]["weights"]
    halves = "for each half of the val images the weights were fitted on the other half"
    assert said.startswith(f"val is what is judged, so {halves}")


@pytest.mark.slow
def test_exported_and_predicted_with_weights(
    finished: Result, tmp_path: Path, command: Command
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    weights = [1.0, 2.5, 30.0]
    word = f"decide={weights}".replace(" ", "")
    done = command(f"run={finished.path}", word, "output=out", module="segpets.export")
    assert done.returncode == 0, done.stdout
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    images = next(iter(finished.datamodule.plain_dataloader("test")))["image"][:2]
    (found,) = session.run(None, {"image": images.numpy()})
    plain = segpets.load(finished.path, precision="32-true").logits(images)
    expected = plain + torch.tensor(weights).log().view(-1, 1, 1)
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-3, rtol=1e-3)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["decision_weights"]) == weights

    photo = finished.datamodule.splits["test"][0].image
    words = [f"run={finished.path}", f"source={photo}", "outputs=[masks]"]
    for folder, more in (("plain", []), ("weighted", [word])):
        predicted = command(*words, f"output={folder}", *more, module="segpets.predict")
        assert predicted.returncode == 0, predicted.stdout
    assert json.loads((tmp_path / "weighted" / "prediction.json").read_text())["decide"] == weights
    mixed = command(*words, "output=plain", word, module="segpets.predict")
    assert mixed.returncode == 1 and "holds predictions with decide=null" in mixed.stdout


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("decide=[1,2]", "decide has 2 weights, but the model has 3 classes: give one for each of"),
        (
            "decide=[1,0,1]",
            "decide=[1, 0, 1] must be iou or a list of numbers above 0, such as decide=[1.3,1,1.6]",
        ),
        ("decide=dice", "decide=dice"),
    ],
)
def test_weights_that_make_no_sense_are_answered(
    finished: Result, command: Command, word: str, said: str
) -> None:
    done = command(f"run={finished.path}", word, module="segpets.evaluate")
    assert done.returncode == 1
    assert said in " ".join(done.stdout.split()), done.stdout
