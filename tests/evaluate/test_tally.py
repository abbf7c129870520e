"""What is counted in one pass, with torchmetrics and the whole at once as oracles."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_f1_score,
    multiclass_jaccard_index,
    multiclass_precision,
    multiclass_recall,
)

from segpets.data.geometry import Geometry
from segpets.evaluate.classes import merge
from segpets.evaluate.rows import metrics_of
from segpets.evaluate.tally import Tally, uncertainty
from segpets.inference import logits as enlarge
from segpets.inference.logits import class_ids

CLASSES = ("pet", "background", "border")


EVERY = 5 * [Geometry(12, 15, 0, 0, (12, 15))]


def made(size: tuple[int, int] = (12, 15)) -> tuple[Tensor, list[Tensor]]:
    """Logits of 5 images, and truths that they often meet."""
    generator = torch.Generator().manual_seed(2)
    logits = 2 * torch.randn(5, 3, 12, 15, generator=generator)
    larger = interpolate(logits, size=size, mode="bilinear")
    truth = (larger + torch.randn(larger.shape, generator=generator)).argmax(1).to(torch.uint8)
    truth[torch.rand(truth.shape, generator=generator) < 0.1] = 255
    return logits, list(truth)


def tally(*, resized: bool = False, classes: tuple[str, ...] = CLASSES) -> Tally:
    labels = "trimap" if classes == CLASSES else "border_as_pet"
    return Tally(merge(CLASSES, classes, labels), widths=[0.02, 0.1], resized=resized)


def test_scores_of_each_class_are_those_of_torchmetrics() -> None:
    logits, truths = made()
    sums = tally()
    for part in (slice(0, 2), slice(2, 5)):
        sums.add(logits[part], truths[part], [None] * (part.stop - part.start), EVERY)
    named = metrics_of(sums, CLASSES, width=0)
    preds, target = logits.argmax(1), torch.stack(truths).long()
    oracles = {
        "iou": multiclass_jaccard_index,
        "dice": multiclass_f1_score,
        "precision": multiclass_precision,
        "recall": multiclass_recall,
    }
    for score, oracle in oracles.items():
        values = oracle(preds, target, num_classes=3, average="none", ignore_index=255)
        for name, value in zip(CLASSES, values.tolist(), strict=True):
            assert named[f"{score}/{name}"] == pytest.approx(value, abs=1e-6)
    accuracy = multiclass_accuracy(preds, target, num_classes=3, average="micro", ignore_index=255)
    assert named["pixel_accuracy"] == pytest.approx(accuracy.item(), abs=1e-6)


def test_each_image_has_its_own_scores() -> None:
    logits, truths = made()
    judged = tally().add(logits, truths, [None] * 5, EVERY)
    for image, truth, one in zip(logits, truths, judged, strict=True):
        alone = multiclass_jaccard_index(
            image.argmax(0), truth.long(), num_classes=3, average="none", ignore_index=255
        )
        assert one.iou() == pytest.approx(alone.tolist(), abs=1e-6)
        assert torch.equal(one.preds, image.argmax(0).to(torch.uint8))


def test_at_its_own_size_an_image_is_judged_by_resized_logits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits, truths = made((31, 40))
    whole = tally(resized=True)
    judged = whole.add(logits, truths, [2.0] * 5, EVERY)
    for image, one in zip(logits, judged, strict=True):
        assert torch.equal(one.preds, class_ids(image, (31, 40)))
    large = interpolate(logits, size=(31, 40), mode="bilinear")
    oracle = multiclass_jaccard_index(
        large.argmax(1), torch.stack(truths).long(), num_classes=3, ignore_index=255
    )
    named = metrics_of(whole, CLASSES, width=0)
    assert named["mean_iou"] == pytest.approx(oracle.item(), abs=1e-3)
    assert "soft_iou" not in named
    monkeypatch.setattr(enlarge, "_STRIP", 7 * 40)  # strips of 7 rows
    strips = tally(resized=True)
    strips.add(logits, truths, [2.0] * 5, EVERY)
    assert strips.metrics.compute() == whole.metrics.compute()
    assert strips.calibration.nll == pytest.approx(whole.calibration.nll)
    assert strips.scaled.errors() == pytest.approx(whole.scaled.errors())


def test_images_of_different_sizes_are_counted_together() -> None:
    logits, truths = made()
    others = [truths[0], truths[1].repeat(2, 3)]
    sums = tally(resized=True)
    sums.add(logits[:2], others, [None, None], EVERY[:2])
    sums.metrics.compute()
    assert sums.metrics.total.sum() == sum(int((truth != 255).sum()) for truth in others)


def test_a_temperature_changes_how_sure_but_not_what() -> None:
    logits, truths = made()
    sums = tally()
    sums.add(logits, truths, [4.0, None, 4.0, None, None], EVERY)
    by_hand = tally()
    by_hand.add(logits[[0, 2]] / 4, [truths[0], truths[2]], [None, None], EVERY)
    assert sums.scaled.errors() == pytest.approx(by_hand.calibration.errors())


def test_merged_classes_are_judged_by_merged_predictions() -> None:
    logits, truths = made()
    merged = [torch.where(truth == 2, 0, truth) for truth in truths]
    sums = tally(classes=CLASSES[:2])
    sums.add(logits, merged, [None] * 5, EVERY)
    preds = logits.argmax(1)
    oracle = multiclass_jaccard_index(
        torch.where(preds == 2, 0, preds),
        torch.stack(merged).long(),
        num_classes=2,
        average="none",
        ignore_index=255,
    )
    named = metrics_of(sums, CLASSES[:2], width=0)
    assert [named["iou/pet"], named["iou/background"]] == pytest.approx(oracle.tolist(), abs=1e-6)


def test_an_image_without_a_pixel_that_counts_says_nothing() -> None:
    logits, truths = made()
    sums = tally()
    empty = torch.full_like(truths[0], 255)
    (judged,) = sums.add(logits[:1], [empty], [1.0], EVERY)
    assert judged.mean_iou() is None
    assert judged.pixel_accuracy() is None
    assert metrics_of(sums, CLASSES, width=0) == {}


def test_uncertainty_is_the_part_of_the_largest_entropy() -> None:
    half = torch.tensor([0.0, 0.0, -200.0]).view(3, 1, 1)
    sure = torch.tensor([200.0, 0.0, 0.0]).view(3, 1, 1)
    assert uncertainty(torch.zeros(3, 1, 1)).item() == pytest.approx(1)
    assert uncertainty(half).item() == pytest.approx(0.6309, abs=1e-4)  # log 2 / log 3
    assert uncertainty(sure).item() == 0
