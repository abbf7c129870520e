"""Differences between methods, for a new training and new images.

A method is known by a few trainings, one a seed, and a training by its scores of the same images.
Both are samples: of the trainings that the method could give, and of the images that it could meet.
So a difference is judged against the variance of both, by a random-effects model: methods are
fixed, trainings are random and nested in them, images are random and shared. Radiology judges
methods by readers and cases in this way: N. A. Obuchowski, H. E. Rockette, "Hypothesis testing of
diagnostic accuracy for multiple readers and multiple tests", Communications in Statistics 24
(1995). The value to exceed is the mean of those of Student's distributions, weighted by the
variances: W. G. Cochran, G. M. Cox, "Experimental Designs", 1950. One distribution for all
(F. E. Satterthwaite, Biometrics 2, 1946) calls up to 13 % of equal methods different where a few
trainings happen to agree. On seeds in machine learning: X. Bouthillier et al., "Accounting for
Variance in Machine Learning Benchmarks", MLSys 2021, arXiv 2103.03098.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtrit

from segpets.stats import CONFIDENCE, Estimate, Floats

POWER: Final = 0.8
"""The part of studies that should find a difference which is there."""

MOST_SEEDS: Final = 1000
_STUDIES = 20_000
_NONE = 1e-18  # a variance below this is rounding
_LEAST_P = 1e-100  # far below it, scipy's quantiles overflow

Part = tuple[Floats | float, Floats | float]
"""A variance and the degrees of freedom by which it is known."""


@dataclass(frozen=True)
class Difference:
    """A difference of two methods' mean scores, over trainings and images.

    Attributes:
        value: Mean of the first less mean of the second.
        low: The lower end of its 95 % interval.
        high: The upper end.
        p: Two-sided, of the hypothesis that there is none.
        of_trainings: The variance that trainings add to the value.
        of_images: The variance that images add to it.
    """

    value: float
    low: float
    high: float
    p: float
    of_trainings: float
    of_images: float


def difference(first: Floats, second: Floats, *, folds: int | None = None) -> Difference:
    """Tests the difference of two methods by their scores.

    The variance is that of the trainings' means, over as many as there are, of both methods, and
    that of the images' differences over as many images: a little more than it should be, as the
    part that depends on training and image together is in both. Trainings of two methods aren't
    paired by their seeds, which mean different weights in different nets.

    Args:
        first: The scores of S >= 2 trainings of the one, (S, N).
        second: Those of the other, of the same N >= 2 images, (T, N).
        folds: K, if the trainings are on folds of one set; see `over_folds`.
    """
    sides = (first, second)
    factors = [1.0 if folds is None else folds_factor(len(side), folds) for side in sides]
    each = [side.mean(1).var(ddof=1) / len(side) for side in sides]
    spread = np.multiply(each, factors)
    images = (first.mean(0) - second.mean(0)).var(ddof=1) / first.shape[1]
    value = float(first.mean() - second.mean())
    parts = [*_of_trainings(spread, [len(side) - 1 for side in sides])]
    low, high, p = _judged(value, [*parts, (images, first.shape[1] - 1)])
    return Difference(value, low, high, p, float(sum(spread)), float(images))


def _of_trainings(spread: Floats, freedom: Sequence[int]) -> list[Part]:
    """Puts the variances of both methods' trainings together, (2,) or (2, N), if they are as many.

    Then the sum has Welch's degrees of freedom (B. L. Welch, Biometrika 34, 1947). Of unequal
    numbers, these call up to 10 % of equal methods different, so each keeps its own.
    """
    if len(set(freedom)) > 1:
        return [*zip(spread, freedom, strict=True)]
    total = spread.sum(axis=0)
    squares = np.maximum((spread**2).sum(axis=0), _NONE**2)
    return [(total, freedom[0] * np.maximum(total**2 / squares, 1))]


def over_folds(by_fold: Mapping[int, Sequence[float]], *, folds: int) -> Estimate:
    """The mean of a score over folds of one set, with its 95 % interval; none for one fold.

    Trainings on folds share most of their images, so they vary less than trainings on new images
    would: the variance of n of K folds is taken 1 / n + 1 / (K - 1) times instead of 1 / n times.
    C. Nadeau, Y. Bengio, "Inference for the Generalization Error", Machine Learning 52 (2003).
    Several seeds of a fold are one measurement, their mean.

    Args:
        by_fold: The scores of each fold that was val, of one seed or several.
        folds: K.
    """
    values = [float(np.mean(scores)) for scores in by_fold.values()]
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return Estimate(mean, None, None, count)
    variance = float(np.var(values, ddof=1)) / count * folds_factor(count, folds)
    low, high, _ = _judged(mean, [(variance, count - 1)])
    return Estimate(mean, low, high, count)


def folds_factor(count: int, folds: int) -> float:
    """Returns by what the variance of n of K folds is too small: n (1 / n + 1 / (K - 1))."""
    return 1 + count / max(folds - 1, 1)


def _judged(value: float, parts: Sequence[Part]) -> tuple[float, float, float]:
    """Returns the ends of a value's interval, and the p-value of its being 0."""
    error = math.sqrt(float(sum(variance for variance, _ in parts)))
    if error**2 < _NONE:
        return value, value, 1.0 if abs(value) < math.sqrt(_NONE) else 0.0

    def beyond(log_p: float) -> float:
        return float(_to_exceed(parts, math.exp(log_p))) - abs(value) / error

    half = float(_to_exceed(parts, 1 - CONFIDENCE)) * error
    least = math.log(_LEAST_P)
    p = math.exp(brentq(beyond, least, 0.0)) if beyond(least) > 0 else 0.0
    return value - half, value + half, p


def _to_exceed(parts: Sequence[Part], p: float) -> Floats:
    """Returns how many standard errors a difference has to exceed to have this p-value."""
    total = sum(variance for variance, _ in parts)
    weighted: Floats = sum(variance * -stdtrit(freedom, p / 2) for variance, freedom in parts)
    return weighted / total


@dataclass(frozen=True)
class Variance:
    """The variances that decide how small a difference a number of trainings can show.

    Attributes:
        training: Of the mean score of a training, among trainings of one method.
        images: Of a difference's mean over the images that there are.
        count: How many images there are.
        folds: K, if the trainings are on folds of one set.
    """

    training: float
    images: float
    count: int
    folds: int | None = None

    def detectable(self, seeds: int, *, tests: int = 1) -> float:
        """Returns the difference that the test finds in 80 % of studies with so many seeds each.

        Studies are drawn, always the same ones, since with a few seeds no formula is near enough.

        Args:
            seeds: How many.
            tests: Among how many tests it must be found, each at its part of the level.
        """
        generator = np.random.default_rng(0)
        factor = 1.0 if self.folds is None else folds_factor(seeds, self.folds)
        each = factor * self.training / seeds
        spread = each * generator.chisquare(seeds - 1, (2, _STUDIES)) / (seeds - 1)
        images = np.full(_STUDIES, self.images)
        error = np.sqrt(spread.sum(0) + images)
        if error.max() ** 2 < _NONE:
            return 0.0
        parts = [*_of_trainings(spread, [seeds - 1] * 2), (images, self.count - 1)]
        chance = generator.normal(0, math.sqrt(2 * each + self.images), _STUDIES)
        least = _to_exceed(parts, (1 - CONFIDENCE) / tests) * error - chance
        return float(np.quantile(least, POWER))

    def seeds_for(self, value: float, *, tests: int = 1) -> int | None:
        """Returns how many seeds each would find such a difference; None if images are too few."""
        least = self.detectable(MOST_SEEDS, tests=tests)
        if abs(value) < least:
            return None
        low, high = 1, MOST_SEEDS  # one seed is too few, so many are enough
        while high - low > 1:
            middle = (low + high) // 2
            enough = self.detectable(middle, tests=tests) <= abs(value)
            low, high = (low, middle) if enough else (middle, high)
        return high
