import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassJaccardIndex,
    MulticlassPrecision,
    MulticlassRecall,
)

from segpets.labels import IGNORE_INDEX
from segpets.metric import SegmentationMetrics, confusion_matrices, scores, soft_iou, summarise

CLASSES = ("pet", "background", "border")


def ids(*rows: list[int]) -> Tensor:
    """One mask, (1, H, W)."""
    return torch.tensor(rows, dtype=torch.uint8).unsqueeze(0)


def stage(images: int = 7, height: int = 40, width: int = 33) -> tuple[Tensor, Tensor]:
    """Random logits and masks with ignored pixels."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(images, 3, height, width, generator=generator)
    mask = torch.randint(0, 3, (images, height, width), generator=generator, dtype=torch.uint8)
    mask[torch.rand(mask.shape, generator=generator) < 0.1] = IGNORE_INDEX
    return logits, mask


def measured(logits: Tensor, mask: Tensor, *, batch_size: int) -> SegmentationMetrics:
    metrics = SegmentationMetrics(classes=CLASSES)
    for x, y in zip(logits.split(batch_size), mask.split(batch_size), strict=True):
        metrics.update(confusion_matrices(x.argmax(1), y, 3), soft_iou(x, y))
    return metrics


# by hand


def test_the_confusion_matrix_of_each_image_has_the_truth_in_rows() -> None:
    truth = torch.cat([ids([0, 0, 1], [1, 2, 255]), ids([2, 2, 2], [255, 255, 0])])
    preds = torch.cat([ids([0, 1, 1], [1, 0, 2]), ids([2, 2, 1], [0, 1, 0])])
    expected = [[[1, 1, 0], [0, 2, 0], [1, 0, 0]], [[1, 0, 0], [0, 0, 0], [0, 1, 2]]]
    counted = confusion_matrices(preds, truth, 3)
    assert counted.dtype == torch.int64
    assert counted.tolist() == expected


def test_every_score_of_a_hand_worked_matrix() -> None:
    # truth: 10 pet, 20 background, 10 border; predicted: 12, 18, 10
    confusion = torch.tensor([[8, 1, 1], [2, 16, 2], [2, 1, 7]])
    named = summarise(confusion, CLASSES)
    iou = {"pet": 8 / 14, "background": 16 / 22, "border": 7 / 13}
    dice = {"pet": 16 / 22, "background": 32 / 38, "border": 14 / 20}
    precision = {"pet": 8 / 12, "background": 16 / 18, "border": 7 / 10}
    recall = {"pet": 8 / 10, "background": 16 / 20, "border": 7 / 10}
    expected = {
        "pixel_accuracy": 31 / 40,
        "mean_accuracy": 2.3 / 3,
        "frequency_weighted_iou": (10 * 8 / 14 + 20 * 16 / 22 + 10 * 7 / 13) / 40,
    }
    for name, values in [
        ("iou", iou),
        ("dice", dice),
        ("precision", precision),
        ("recall", recall),
    ]:
        expected[f"mean_{name}"] = sum(values.values()) / 3
        expected |= {f"{name}/{class_}": value for class_, value in values.items()}
    assert named == pytest.approx(expected, abs=1e-12)


def test_a_class_that_is_nowhere_is_left_out_of_the_means_and_named() -> None:
    confusion = torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    named = summarise(confusion, CLASSES)
    assert named["mean_iou"] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert named["mean_recall"] == named["mean_accuracy"] == pytest.approx((3 / 4 + 1) / 2)
    assert not [name for name in named if name.endswith("/border")]
    assert not {name for name in named if name.endswith("/border")}


def test_a_class_that_is_only_predicted_counts_as_missed() -> None:
    named = summarise(torch.tensor([[3, 0, 1], [0, 4, 0], [0, 0, 0]]), CLASSES)
    assert [named[f"{s}/border"] for s in ("iou", "dice", "precision", "recall")] == [0, 0, 0, 0]
    assert named["mean_iou"] == pytest.approx((3 / 4 + 1 + 0) / 3)
    assert named["mean_recall"] == pytest.approx((3 / 4 + 1 + 0) / 3)
    assert named["mean_accuracy"] == pytest.approx((3 / 4 + 1) / 2)  # of the truth's classes


def test_a_class_that_is_only_in_the_truth_counts_as_missed() -> None:
    named = summarise(torch.tensor([[3, 0, 0], [0, 4, 0], [2, 0, 0]]), CLASSES)
    assert [named[f"{s}/border"] for s in ("iou", "dice", "precision", "recall")] == [0, 0, 0, 0]
    assert named["mean_iou"] == pytest.approx((3 / 5 + 1 + 0) / 3)
    assert named["mean_accuracy"] == pytest.approx(2 / 3)


def test_nothing_counted_gives_no_metrics() -> None:
    assert summarise(torch.zeros(3, 3, dtype=torch.int64), CLASSES) == {}
    metrics = SegmentationMetrics(classes=CLASSES)
    void = torch.full((2, 4, 4), IGNORE_INDEX, dtype=torch.uint8)
    metrics.update(confusion_matrices(void, void, 3), soft_iou(torch.zeros(2, 3, 4, 4), void))
    assert metrics.compute() == {}


def test_the_mean_iou_of_images_by_hand() -> None:
    truth = torch.cat([ids([0, 0, 0, 1]), ids([2, 2, 1, 1]), ids([255, 255, 255, 255])])
    preds = torch.cat([ids([0, 0, 1, 1]), ids([2, 2, 2, 2]), ids([0, 0, 0, 0])])
    metrics = SegmentationMetrics(classes=CLASSES)
    metrics.update(confusion_matrices(preds, truth, 3))
    named = metrics.compute()
    # first: pet 2/3, background 1/2, no border; second: background 0, border 2/4; third: void
    assert named["image_mean_iou"] == pytest.approx(((2 / 3 + 1 / 2) / 2 + (0 + 1 / 2) / 2) / 2)
    assert named["mean_iou"] == pytest.approx((2 / 3 + 1 / 4 + 2 / 4) / 3)
    assert "soft_iou" not in named


# against others


def test_soft_iou_against_loops_over_classes_and_pixels() -> None:
    logits, mask = stage(images=3, height=5, width=6)
    values = soft_iou(logits, mask)
    for image, truth, value in zip(logits.double().numpy(), mask.numpy(), values, strict=True):
        probs = np.exp(image) / np.exp(image).sum(axis=0)
        overlap = union = 0.0
        for y in range(5):
            for x in range(6):
                for class_ in range(3):
                    if truth[y, x] == IGNORE_INDEX:
                        continue
                    p, t = probs[class_, y, x], float(truth[y, x] == class_)
                    overlap += p * t
                    union += p + t - p * t
        assert value.item() == pytest.approx((overlap + 0.001) / (union + 0.001), rel=1e-5)


def test_soft_iou_at_its_ends() -> None:
    mask = ids([0, 1, 2, 255])
    logits = torch.nn.functional.one_hot(mask.long() % 255, 3).movedim(-1, 1) * 50.0
    assert soft_iou(logits, mask).item() == pytest.approx(1)
    assert soft_iou(-logits, mask).item() == pytest.approx(0.001 / 6.001, rel=1e-3)
    assert soft_iou(logits * math.nan, mask).item() == pytest.approx(0.001 / 6.001)


@pytest.mark.parametrize("missing", [None, 1])
def test_every_score_agrees_with_torchmetrics(missing: int | None) -> None:
    logits, mask = stage()
    if missing is not None:
        mask[mask == missing] = 0
        logits[:, missing] = -100
    named = measured(logits, mask, batch_size=3).compute()
    classes = [name for index, name in enumerate(CLASSES) if index != missing]
    kept = [index for index in range(3) if index != missing]
    options: dict[str, Any] = {"num_classes": 3, "ignore_index": IGNORE_INDEX}

    def oracle(kind: type, average: str) -> Any:
        metric = kind(average=average, **options)
        return metric(logits.argmax(1), mask.long())

    for name, kind in {
        "iou": MulticlassJaccardIndex,
        "dice": MulticlassF1Score,
        "precision": MulticlassPrecision,
        "recall": MulticlassRecall,
    }.items():
        by_class = oracle(kind, "none")[kept].tolist()
        assert [named[f"{name}/{class_}"] for class_ in classes] == pytest.approx(by_class)
        assert named[f"mean_{name}"] == pytest.approx(oracle(kind, "macro").item())
        assert named[f"mean_{name}"] == pytest.approx(sum(by_class) / len(by_class))
    assert named["pixel_accuracy"] == pytest.approx(oracle(MulticlassAccuracy, "micro").item())
    assert named["mean_accuracy"] == pytest.approx(oracle(MulticlassAccuracy, "macro").item())
    weighted = oracle(MulticlassJaccardIndex, "weighted").item()
    assert named["frequency_weighted_iou"] == pytest.approx(weighted)


# invariance


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_batch_size_and_order_change_no_bit(
    threads: int, memory_format: torch.memory_format
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        logits, mask = stage(images=5, height=300, width=257)  # enough to be shared by threads
        logits = logits.contiguous(memory_format=memory_format)
        expected = measured(logits, mask, batch_size=5).compute()
        for batch_size in (1, 2, 3):
            assert measured(logits, mask, batch_size=batch_size).compute() == expected
        order = torch.tensor([3, 0, 4, 2, 1])
        assert measured(logits[order], mask[order], batch_size=2).compute() == expected
    finally:
        torch.set_num_threads(before)


def test_ignored_pixels_change_nothing() -> None:
    logits, mask = stage()
    expected = measured(logits, mask, batch_size=7).compute()
    changed = torch.where((mask == IGNORE_INDEX).unsqueeze(1), -7 * logits, logits)
    assert measured(changed, mask, batch_size=7).compute() == expected


def test_the_states_of_two_processes_add_up_to_those_of_one() -> None:
    logits, mask = stage()
    whole = measured(logits, mask, batch_size=7)
    one = measured(logits[:3], mask[:3], batch_size=2)
    other = measured(logits[3:], mask[3:], batch_size=2)
    for name in whole.metric_state:
        assert torch.equal(getattr(one, name) + getattr(other, name), getattr(whole, name))
        setattr(one, name, getattr(one, name) + getattr(other, name))
    assert one.compute() == whole.compute()


def test_reset_forgets_the_epoch_but_not_its_matrix_for_callbacks() -> None:
    logits, mask = stage()
    metrics = measured(logits, mask, batch_size=7)
    metrics.compute()
    metrics.reset()
    assert torch.equal(metrics.total, confusion_matrices(logits.argmax(1), mask, 3).sum(0))
    metrics.update(confusion_matrices(mask[:1], mask[:1], 3))
    assert metrics.compute()["mean_iou"] == 1


def test_scores_of_many_matrices_are_those_of_each() -> None:
    logits, mask = stage()
    matrices = confusion_matrices(logits.argmax(1), mask, 3)
    for name, values in scores(matrices).items():
        for matrix, value in zip(matrices, values, strict=True):
            assert torch.equal(scores(matrix)[name], value)


def _measure_a_share(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    logits, mask = stage()
    # As the sampler divides them: 4 images here, 3 there.
    metrics = measured(logits[rank::2], mask[rank::2], batch_size=2)
    torch.save((metrics.compute(), metrics.total), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_measure_what_one_does(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_measure_a_share, args=(str(tmp_path),), nprocs=2)
    whole = measured(*stage(), batch_size=3)
    expected = whole.compute()
    for rank in range(2):
        named, total = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert named == expected
        assert torch.equal(total, whole.total)


def test_images_without_an_ignored_pixel_are_counted_of_any_number_of_classes() -> None:
    for count in (2, 3, 4, 5):
        mask = torch.arange(count, dtype=torch.uint8).repeat(2, 1).unsqueeze(1)  # (2, 1, C)
        found = confusion_matrices(mask, mask, count)
        assert torch.equal(found, torch.eye(count, dtype=torch.int64).repeat(2, 1, 1))
