"""Statistics of differences: intervals over seeds, and paired tests over images.

All is exact or seeded, so the same numbers give the same answer. The tests and intervals are those
of `scipy.stats.permutation_test(permutation_type="samples")` and `scipy.stats.bootstrap(method=
"percentile")`. scipy would test one pair at a time; here all pairs over the same images share the
draws, and 50 tests cost little more than one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Number = TypeVar("Number", np.int64, np.float64)

CONFIDENCE: Final = 0.95
_ENDS: Final = ((1 - CONFIDENCE) / 2, 1 - (1 - CONFIDENCE) / 2)
_CELLS = 2**22  # of the matrix of one batch of resamples


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval.

    Attributes:
        mean: The mean.
        low: The interval's lower end; None where there is no interval.
        high: Its upper end.
        count: Over how many values.
    """

    mean: float
    low: float | None
    high: float | None
    count: int


def over_seeds(values: Sequence[float]) -> Estimate:
    """The mean and its t interval, as `scipy.stats.t.interval` gives it; none for a single value.

    Values that don't differ at all have an interval without length.
    """
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return Estimate(mean, None, None, count)
    error = float(np.std(values, ddof=1) / np.sqrt(count))
    if error == 0:
        return Estimate(mean, mean, mean, count)
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * error
    return Estimate(mean, mean - half, mean + half, count)


def parts_of(confusion: NDArray[Number]) -> NDArray[Number]:
    """Sums a confusion matrix to what each class's scores are computed from.

    Args:
        confusion: Pixels by truth (rows) and prediction, (..., C, C).

    Returns:
        Pixels rightly predicted, of the truth, and predicted, (..., 3, C).
    """
    hit = np.diagonal(confusion, axis1=-2, axis2=-1)
    return np.stack([hit, confusion.sum(-1), confusion.sum(-2)], axis=-2)


def iou(parts: Ints | Floats) -> Floats:
    """Computes the IoU of each class, (..., C), from parts, (..., 3, C); NaN of one without any."""
    hit, true, predicted = (parts[..., index, :].astype(np.float64) for index in range(3))
    union = true + predicted - hit
    value: Floats = np.where(union > 0, hit / np.maximum(union, 1), np.nan)
    return value


def mean_over_classes(scores: Floats, *, of: NDArray[np.bool_] | None = None) -> Floats:
    """Means over the last axis of what isn't NaN; NaN where all is.

    Args:
        scores: (..., C).
        of: The classes that are meant, as many as the last axis has; a mean is NaN where one of
            them is, so that none is over fewer.
    """
    if of is not None:
        scores = np.where(np.isnan(scores[..., of]).any(-1, keepdims=True), np.nan, scores[..., of])
    known = ~np.isnan(scores)
    count = known.sum(-1)
    total = np.where(known, scores, 0.0).sum(-1)
    mean: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean


def image_iou(confusion: Ints) -> Floats:
    """The mean IoU of each image by itself, over the classes that its truth or prediction has.

    The convention of the metric `image_mean_iou`: a class that the image neither shows nor is
    predicted to show says nothing of the prediction and is left out. Per-image scores as the
    ground of tests between methods: G. Csurka, D. Larlus, F. Perronnin, "What is a good evaluation
    measure for semantic segmentation?", BMVC 2013; against those of the whole data set: Z. Wang et
    al., "Revisiting Evaluation Metrics for Semantic Segmentation", NeurIPS 2023, arXiv 2310.19252.

    Args:
        confusion: Pixels by truth (rows) and prediction of each image, (N, C, C).

    Returns:
        (N,); NaN for an image of which no pixel counts.
    """
    return mean_over_classes(iou(parts_of(confusion)))


WORST_PART: Final = 0.05
"""The part of the images that counts as the worst."""


def worst_cases(parts: Ints, classes: Sequence[str]) -> dict[str, float]:
    """Computes metrics of what goes worst, which a mean over the data set hides.

    Z. Wang et al., "Revisiting Evaluation Metrics for Semantic Segmentation", NeurIPS 2023, arXiv
    2310.19252; there a class counts in the images whose truth has it, here, as everywhere in
    segpets, also where it is only predicted.

    Args:
        parts: Pixels rightly predicted, of the truth, and predicted, of each image, (N, 3, K).
        classes: The K names.

    Returns:
        `image_iou/<class>`, the mean over the images that have the class; `class_mean_iou`, their
        mean; `worst_class_iou`, the mean over images of the lowest IoU of its classes;
        `worst_images_iou`, the mean IoU of the worst 5 % of the images, each by itself. Empty
        without a pixel that counts.
    """
    each = iou(parts)
    each = each[~np.isnan(each).all(1)]  # (N, K)
    if not len(each):
        return {}
    known = ~np.isnan(each).all(0)
    of_class = np.nanmean(each[:, known], axis=0)
    named = {
        f"image_iou/{name}": float(value)
        for name, value in zip(np.array(classes)[known].tolist(), of_class, strict=True)
    }
    of_image = np.sort(np.nanmean(each, axis=1))
    worst = of_image[: max(1, round(WORST_PART * len(of_image)))]
    named["class_mean_iou"] = float(of_class.mean())
    named["worst_class_iou"] = float(np.nanmin(each, axis=1).mean())
    named["worst_images_iou"] = float(worst.mean())
    return named


def sign_flip_p(differences: Floats, *, resamples: int, seed: int) -> Floats:
    """Two-sided p-values of the hypothesis that a paired difference is as often negative.

    The signs of the observations are flipped: in all 2^N ways if those are not more than
    `resamples`, and then p is exact; else in random ways, and p is (count + 1) / (resamples + 1),
    twice the smaller of both sides. A. C. Davison, D. V. Hinkley, "Bootstrap Methods and their
    Application", 1997, section 4.3; B. Phipson, G. K. Smyth, 2010, for the 1.

    Args:
        differences: Of the N observations, for each of the M comparisons, (N, M).
        resamples: How many random ways.
        seed: Of their generator.

    Returns:
        (M,).
    """
    count = len(differences)
    observed = differences.mean(0)
    tolerance = np.abs(observed) * 100 * np.finfo(np.float64).eps
    exact = 2**count <= resamples
    ways = _all_signs(count) if exact else _random_signs(count, resamples, seed)
    total = 0
    less = np.zeros(differences.shape[1], dtype=np.int64)
    greater = np.zeros_like(less)
    for signs in ways:
        null = signs @ differences / count  # (batch, M)
        less += (null <= observed + tolerance).sum(0)
        greater += (null >= observed - tolerance).sum(0)
        total += len(signs)
    one = 0 if exact else 1
    p: Floats = np.minimum(2 * (np.minimum(less, greater) + one) / (total + one), 1.0)
    return p


def _batches(resamples: int, count: int) -> Iterator[int]:
    size = max(_CELLS // max(count, 1), 1)
    for start in range(0, resamples, size):
        yield min(size, resamples - start)


def _all_signs(count: int) -> Iterator[Floats]:
    ways = np.arange(2**count)[:, None] >> np.arange(count) & 1
    yield np.where(ways == 1, -1.0, 1.0)


def _random_signs(count: int, resamples: int, seed: int) -> Iterator[Floats]:
    generator = np.random.default_rng(seed)
    for size in _batches(resamples, count):
        yield generator.choice((-1.0, 1.0), (size, count))


def bootstrap_interval(differences: Floats, *, resamples: int, seed: int) -> Floats:
    """95 % percentile bootstrap intervals of mean paired differences.

    Args:
        differences: Of the N observations, for each of the M comparisons, (N, M).
        resamples: How often N observations are drawn with replacement.
        seed: Of the draws' generator.

    Returns:
        Lower and upper ends, (2, M).
    """
    count = len(differences)
    sums = _resampled_sums(differences, resamples=resamples, seed=seed)
    ends: Floats = np.quantile(np.concatenate([s / count for s in sums]), _ENDS, axis=0)
    return ends


def bootstrap_of_sums(
    parts: Floats,
    statistic: Callable[[Floats], Floats],
    *,
    resamples: int,
    seed: int,
    least: float = 0.0,
) -> Floats:
    """95 % percentile bootstrap intervals of what is computed from sums over images.

    So for the IoU of a data set, which is a quotient of sums and no mean over images. A resample
    in which a value can't be computed (of a class that none of its images has) says nothing of it.

    Args:
        parts: What each of the N images adds to each of the M sums, (N, M).
        statistic: Maps sums, (R, M), to S values of each, (R, S); NaN where there is none.
        resamples: How often N images are drawn with replacement.
        seed: Of the draws' generator.
        least: The part of the resamples that must have a value, for its interval to say anything.

    Returns:
        Lower and upper ends, (2, S); NaN for a value that no resample has, or fewer than `least`.
    """
    sums = _resampled_sums(parts, resamples=resamples, seed=seed)
    values = np.concatenate([statistic(s) for s in sums])
    ends: Floats = np.full((2, values.shape[1]), np.nan)
    share = (~np.isnan(values)).mean(0)
    known = (share > 0) & (share >= least)
    ends[:, known] = np.nanquantile(values[:, known], _ENDS, axis=0)
    return ends


def _resampled_sums(values: Floats, *, resamples: int, seed: int) -> Iterator[Floats]:
    """Yields batches of sums over resampled rows, (batch, M)."""
    count = len(values)
    generator = np.random.default_rng(seed)
    for size in _batches(resamples, count):
        drawn = generator.integers(0, count, (size, count))
        cells = (drawn + count * np.arange(size)[:, None]).ravel()
        often = np.bincount(cells, minlength=size * count).reshape(size, count)
        yield often.astype(np.float64) @ values


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts the p-values of a family of tests, so that it errs at all in at most alpha of cases.

    S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6 (1979): the k-th smallest of m is multiplied by m - k + 1, and none may be smaller
    than the one before it.
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, index in enumerate(order):
        largest = max(largest, min(p_values[index] * (len(p_values) - rank), 1.0))
        adjusted[index] = largest
    return adjusted


def pareto_front(points: Mapping[str, tuple[float, float]]) -> set[str]:
    """The names of those that no other beats: none is as cheap and as good, and better in one.

    Args:
        points: Cost, lower is better, and value, higher is better, by name.
    """
    front: set[str] = set()
    best, cost_of_best = -np.inf, np.nan
    for name, (cost, value) in sorted(points.items(), key=lambda item: (item[1][0], -item[1][1])):
        if value > best or (value == best and cost == cost_of_best):
            front.add(name)
            best, cost_of_best = value, cost
    return front
