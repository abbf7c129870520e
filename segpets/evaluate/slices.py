"""The same metrics of parts of a stage, with intervals over images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from segpets.stats import bootstrap_of_sums, iou, mean_over_classes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEAST: Final = 0.5
"""The part of the draws that must have every class, for an interval of their mean to be shown."""
SIZE: Final = "object_size"
BACKGROUND: Final = "background"
SIZES: Final = ("small", "medium", "large")


@dataclass(frozen=True)
class Interval:
    """A value of a data set, and its 95 % bootstrap interval over images.

    Attributes:
        value: The value.
        low: The lower end; NaN where too few draws of images have every class that counts.
        high: The upper end, likewise.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Slice:
    """The metrics of some of the images.

    Attributes:
        key: The attribute by which they are chosen, such as `breed`.
        value: What they have in common.
        images: The number of images.
        metrics: `mean_iou`, `pixel_accuracy` and `iou/<class>` of those that truth or prediction
            has.
    """

    key: str
    value: str
    images: int
    metrics: Mapping[str, Interval]


def intervals(
    parts: Ints, classes: Sequence[str], *, resamples: int, seed: int
) -> dict[str, Interval]:
    """Computes metrics of the sums over images, with intervals.

    Images are drawn with replacement, their pixels counted together, and the metric computed from
    that, as from the data set: it isn't a mean of the images' own metrics. A draw that lacks a
    class of the whole says nothing of the mean over classes; where most do, it has no interval.

    Args:
        parts: Pixels rightly predicted, of the truth, and predicted, of each image, (N, 3, K).
        classes: The K names.
        resamples: How often images are drawn.
        seed: Of the draws.
    """
    flat = parts.reshape(len(parts), -1).astype(np.float64)
    count = len(classes)
    there = ~np.isnan(iou(parts.sum(0)))

    def statistic(sums: Floats) -> Floats:
        return _metrics(sums.reshape(-1, 3, count), there)

    values = statistic(flat.sum(0, keepdims=True))[0]
    low, high = bootstrap_of_sums(flat, statistic, resamples=resamples, seed=seed, least=LEAST)
    names = ["mean_iou", "pixel_accuracy", *(f"iou/{name}" for name in classes)]
    return {
        name: Interval(*map(float, ends))
        for name, *ends in zip(names, values, low, high, strict=True)
        if not math.isnan(ends[0])
    }


def _metrics(sums: Floats, there: NDArray[np.bool_]) -> Floats:
    """Computes mean IoU, pixel accuracy and each class's IoU, (R, 2 + K), from sums, (R, 3, K).

    The mean is over the classes that are `there`, (K,).
    """
    scores, pixels = iou(sums), sums[:, 1].sum(1)
    some = pixels > 0
    mean = np.where(some, mean_over_classes(scores, of=there), np.nan)
    accuracy = np.where(some, sums[:, 0].sum(1) / np.where(some, pixels, 1), np.nan)
    return np.column_stack([mean, accuracy, scores])


def sizes(parts: Ints, classes: Sequence[str]) -> tuple[list[str], list[float]] | None:
    """Sorts images by the size of their object: small, medium or large, a third each.

    Its size is the part of the truth's pixels that aren't background.

    Returns:
        The words, empty for an image without a pixel that counts, and the two bounds; None where
        no class is named background.
    """
    if BACKGROUND not in classes:
        return None
    true = parts[:, 1].astype(np.float64)
    pixels = true.sum(1)
    share = 1 - true[:, list(classes).index(BACKGROUND)] / np.maximum(pixels, 1)
    known = pixels > 0
    if not known.any():
        return None
    bounds = np.quantile(share[known], [1 / 3, 2 / 3])
    third = np.searchsorted(bounds, share)
    words = [SIZES[i] if k else "" for i, k in zip(third.tolist(), known.tolist(), strict=True)]
    return words, bounds.tolist()


def slices(
    parts: Ints,
    classes: Sequence[str],
    attributes: Mapping[str, Sequence[str]],
    *,
    resamples: int,
    seed: int,
) -> list[Slice]:
    """Computes metrics by attribute; images without a pixel that counts are left out.

    Args:
        parts: As in `intervals`.
        classes: The K names.
        attributes: By key, the value of each of the N images; empty where there is none.
        resamples: How often images are drawn.
        seed: Of the draws.
    """
    counted = parts[:, 1].sum(1) > 0
    found = []
    for key, column in attributes.items():
        values = np.array(column, dtype=object)
        for value in _ordered(key, set(values[counted].tolist()) - {""}):
            rows = np.flatnonzero(counted & (values == value))
            metrics = intervals(parts[rows], classes, resamples=resamples, seed=seed)
            found.append(Slice(key, value, len(rows), metrics))
    return found


def _ordered(key: str, values: set[str]) -> list[str]:
    return [size for size in SIZES if size in values] if key == SIZE else sorted(values)
