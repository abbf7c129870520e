"""Intervals over images, slices, and constant predictions."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import bootstrap

from segpets.evaluate.baselines import against, constants
from segpets.evaluate.rows import interval
from segpets.evaluate.slices import SIZE, intervals, sizes, slices

CLASSES = ("pet", "background")
Ints = NDArray[np.int64]


def made(count: int = 12) -> tuple[Ints, Ints]:
    """Confusion matrices of images, (N, 2, 2), and their parts, (N, 3, 2)."""
    confusion = np.random.default_rng(0).integers(1, 50, (count, 2, 2))
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    return confusion, np.stack([hits, confusion.sum(2), confusion.sum(1)], axis=1)


def mean_iou(confusion: Ints) -> float:
    hits = np.diag(confusion)
    return float(np.mean(hits / (confusion.sum(0) + confusion.sum(1) - hits)))


def test_an_interval_is_scipys_of_the_data_sets_iou() -> None:
    confusion, parts = made()
    found = intervals(parts, CLASSES, resamples=300, seed=4)["mean_iou"]
    oracle = bootstrap(
        (np.arange(len(parts)),),
        lambda rows: mean_iou(confusion[rows].sum(0)),
        n_resamples=300,
        method="percentile",
        vectorized=False,
        rng=np.random.default_rng(4),
    ).confidence_interval
    assert found.value == pytest.approx(mean_iou(confusion.sum(0)))
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high))


def test_accuracy_and_iou_come_from_sums() -> None:
    confusion, parts = made()
    total = confusion.sum(0)
    found = intervals(parts, CLASSES, resamples=99, seed=0)
    assert found["pixel_accuracy"].value == pytest.approx(np.trace(total) / total.sum())
    pet = total[0, 0] / (total[0].sum() + total[:, 0].sum() - total[0, 0])
    assert found["iou/pet"].value == pytest.approx(pet)
    assert found["iou/pet"].low < pet < found["iou/pet"].high


def test_a_class_that_nothing_has_is_in_no_mean_and_has_no_interval() -> None:
    _, parts = made()
    wider = np.concatenate([parts, np.zeros((len(parts), 3, 1), dtype=np.int64)], axis=2)
    found = intervals(wider, (*CLASSES, "border"), resamples=99, seed=0)
    assert "iou/border" not in found
    assert found["mean_iou"] == intervals(parts, CLASSES, resamples=99, seed=0)["mean_iou"]


def test_an_interval_is_of_the_classes_that_its_value_is_of() -> None:
    _, parts = made(40)
    rare = np.zeros((40, 3, 2), dtype=np.int64)
    rare[3, :, 0] = 2, 9, 4  # an IoU of 2/11 in one image
    wider = np.concatenate([parts, rare], axis=2)
    names = (*CLASSES, "rare", "rarer")
    found = intervals(wider, names, resamples=999, seed=0)["mean_iou"]
    others = intervals(parts, CLASSES, resamples=999, seed=0)["mean_iou"]
    assert found.value == pytest.approx((2 * others.value + 2 / 11) / 3)
    # A third of the draws lack that image; their mean of the other two is no mean of the three.
    drawn = np.random.default_rng(0).integers(0, 40, (999, 40))
    scores = [wider[rows, :, :3].sum(0) for rows in drawn if 3 in rows]
    means = [np.mean(hit / (true + said - hit)) for hit, true, said in scores]
    low, high = np.quantile(means, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high))
    wider[7, :, 3] = 2, 9, 4  # most draws lack one of both
    found = intervals(wider, names, resamples=999, seed=0)["mean_iou"]
    assert np.isnan([found.low, found.high]).all() and not np.isnan(found.value)
    assert interval(found) == {"value": found.value, "low": None, "high": None}


def test_slices_have_the_metrics_of_their_images_alone() -> None:
    confusion, parts = made(5)
    parts[4] = 0  # all of its mask is ignored
    found = slices(
        parts, CLASSES, {"species": ["cat", "dog", "cat", "dog", "dog"]}, resamples=99, seed=0
    )
    assert [(part.value, part.images) for part in found] == [("cat", 2), ("dog", 2)]
    expected = mean_iou(confusion[[0, 2]].sum(0))
    assert found[0].metrics["mean_iou"].value == pytest.approx(expected)


def test_sizes_are_thirds_by_what_is_not_background() -> None:
    share = np.array([10, 60, 20, 50, 30, 40, 0])
    parts = np.zeros((7, 3, 2), dtype=np.int64)
    parts[:, 1, 0], parts[:, 1, 1] = share, 100 - share
    parts[6] = 0
    found = sizes(parts, CLASSES)
    assert found is not None
    words, bounds = found
    assert words == ["small", "large", "small", "large", "medium", "medium", ""]
    assert bounds == pytest.approx(np.quantile(share[:6] / 100, [1 / 3, 2 / 3]))
    by_size = slices(parts, CLASSES, {SIZE: words}, resamples=99, seed=0)
    assert [part.value for part in by_size] == ["small", "medium", "large"]
    assert sizes(parts, ("road", "car")) is None


def test_a_constant_prediction_is_often_right_and_overlaps_little() -> None:
    # 90 pixels of background and 10 of pet, of which the model finds 5, and 5 too many.
    confusion = torch.tensor([[5, 5], [5, 85]])
    rare, found = constants(confusion, CLASSES)
    assert rare == "pet"
    model, pet, background = found
    assert (model.pixel_accuracy, model.rare_iou) == pytest.approx((0.9, 5 / 15))
    assert (background.pixel_accuracy, background.rare_iou) == pytest.approx((0.9, 0))
    assert background.mean_iou == pytest.approx(0.45)
    assert (pet.pixel_accuracy, pet.mean_iou, pet.rare_iou) == pytest.approx((0.1, 0.05, 0.1))
    one = against(confusion, CLASSES)[0]
    assert (one.share, one.never_accuracy, one.accuracy) == pytest.approx((0.1, 0.9, 0.9))


def test_a_class_without_pixels_is_not_the_rarest() -> None:
    confusion = torch.tensor([[5, 0, 0], [0, 9, 0], [0, 0, 0]])
    assert constants(confusion, ("a", "b", "c"))[0] == "a"
    assert [one.name for one in against(confusion, ("a", "b", "c"))] == ["a", "b"]
