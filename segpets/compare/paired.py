"""Tests of differences, image by image and, where there are several, seed by seed."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from segpets.records.group import Configuration, Group, folds_of
from segpets.significance import MOST_SEEDS, POWER, Variance, difference
from segpets.stats import Floats, Ints, bootstrap_interval, holm, sign_flip_p

ALPHA: Final = 0.05
_FEWEST = 2  # images, below which nothing is tested
_PER_TEST = 200  # resamples for each test of a family: Holm's smallest p is then 0.01


@dataclass(frozen=True)
class Comparison:
    """A test of two configurations on the images that both have.

    Attributes:
        first: The one that ranks higher.
        second: The other.
        images: The number of images that both have.
        difference: The mean over seeds and images of first less second, in mean IoU of an image.
        low: Lower end of its 95 % interval.
        high: Upper end.
        p: Two-sided.
        p_holm: Corrected for the number of tests in the group.
        seeds: The seeds of both, if the test is over seeds and images; None if it is over images
            alone, for want of a second seed.
        variance: What decides how small a difference can be told, if it is over seeds, too.
        folds: How many the data were dealt into, if what `seeds` counts are folds.
    """

    first: Configuration
    second: Configuration
    images: int
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    seeds: tuple[int, int] | None = None
    variance: Variance | None = None
    folds: int | None = None

    @property
    def significant(self) -> bool:
        """True if the difference is larger than chance explains."""
        return self.p_holm < ALPHA

    @property
    def over(self) -> str:
        """Names what was drawn by chance: `seeds and images`, `folds and images`, or `images`."""
        if self.seeds is None:
            return "images"
        return "seeds and images" if self.folds is None else "folds and images"


def compared(
    group: Group, *, against_each_other: int, resamples: int, seed: int
) -> tuple[list[Comparison], list[str]]:
    """Tests the best configuration against all others, and the best few against each other.

    Where both have several seeds, the test is `segpets.significance.difference` over seeds and
    images: it asks whether the one is better for a new training and new images. Where one has a
    single seed it asks, by flips of signs, whether these nets differ on images like these.

    Args:
        group: The configurations.
        against_each_other: The number of best configurations tested in all pairs.
        resamples: Of the bootstrap, and of the permutation test at least: so many tests that
            their correction would leave no p small enough get more flips.
        seed: Of their generators.

    Returns:
        The comparisons, in the order of ranks, and notes that the reader needs.
    """
    tested = [c for c in group.configurations if any(run.counts for run in c.runs)]
    notes = _gaps(group, tested)
    if len(tested) < 2:
        return [], notes
    iou, truth = _table(tested)
    iou = [_trainings(c, scores) for c, scores in zip(tested, iou, strict=True)]
    every = itertools.combinations(range(len(tested)), 2)
    pairs = [(i, j) for i, j in every if i == 0 or j < against_each_other]
    flips = max(resamples, _PER_TEST * len(pairs) - 1)
    # Pairs that have the same images share the draws.
    alike: dict[bytes, list[tuple[int, int]]] = {}
    valid = np.stack([~np.isnan(seeds).any(0) for seeds in iou])
    for i, j in pairs:
        both = valid[i] & valid[j] & (truth[i] == truth[j])
        alike.setdefault(both.tobytes(), []).append((i, j))
    notes += _fewer(alike, usable=int(valid.any(0).sum()), pairs=len(pairs))
    results: dict[tuple[int, int], _Test] = {}
    for key, members in alike.items():
        images = _images(key)
        if images.sum() < _FEWEST:
            continue
        several = [(i, j) for i, j in members if min(len(iou[i]), len(iou[j])) > 1]
        for i, j in several:
            folds = folds_of(tested[i].runs) if tested[i].folds or tested[j].folds else None
            results[i, j] = _over_both(iou[i][:, images], iou[j][:, images], folds=folds)
        if single := [pair for pair in members if pair not in several]:
            means = [(iou[i][:, images].mean(0), iou[j][:, images].mean(0)) for i, j in single]
            differences = np.stack([one - other for one, other in means], axis=1)
            tests = _over_images(differences, flips=flips, resamples=resamples, seed=seed)
            results |= dict(zip(single, tests, strict=True))
    done = [pair for pair in pairs if pair in results]
    corrected = holm([results[pair].p for pair in done])
    comparisons = []
    for (i, j), p_holm in zip(done, corrected, strict=True):
        found = results[i, j]
        numbers = (found.images, found.difference, found.low, found.high, found.p, p_holm)
        seeds = None if found.variance is None else (len(iou[i]), len(iou[j]))
        told = (seeds, found.variance, found.folds)
        comparisons.append(Comparison(tested[i], tested[j], *numbers, *told))
    return comparisons, notes + _other_folds(comparisons) + _power(comparisons)


@dataclass(frozen=True)
class _Test:
    images: int
    difference: float
    low: float
    high: float
    p: float
    variance: Variance | None = None
    folds: int | None = None


def _trainings(configuration: Configuration, iou: Floats) -> Floats:
    """Averages the seeds of each fold, (runs, N) to (folds, N); without folds nothing changes."""
    folds = [run.fold for run in configuration.runs if run.counts]
    if not configuration.folds:
        return iou
    return np.stack([iou[[f == fold for f in folds]].mean(0) for fold in dict.fromkeys(folds)])


def _over_both(first: Floats, second: Floats, *, folds: int | None = None) -> _Test:
    """Tests two configurations by the scores of each seed and image, (S, N) and (T, N)."""
    found = difference(first, second, folds=folds)
    images = first.shape[1]
    spread = (first.mean(1).var(ddof=1) + second.mean(1).var(ddof=1)) / 2
    variance = Variance(float(spread), found.of_images, images, folds)
    return _Test(images, found.value, found.low, found.high, found.p, variance, folds)


def _over_images(differences: Floats, *, flips: int, resamples: int, seed: int) -> Iterator[_Test]:
    """Tests each column of (N, M) differences of N images."""
    p = sign_flip_p(differences, resamples=flips, seed=seed)
    low, high = bootstrap_interval(differences, resamples=resamples, seed=seed)
    for column, mean in enumerate(differences.mean(axis=0)):
        ends = float(low[column]), float(high[column])
        yield _Test(len(differences), float(mean), *ends, float(p[column]))


def _fewer(alike: dict[bytes, list[tuple[int, int]]], *, usable: int, pairs: int) -> list[str]:
    """Notes pairs that have fewer images in common than there are."""
    notes = []
    least = min(int(_images(key).sum()) for key in alike)
    if least < usable:
        notes.append(
            "The tested images, or their truths, are not the same in all runs: a pair is compared "
            f"on those that both have, at least {least} of {usable}"
        )
    if untested := sum(len(m) for key, m in alike.items() if _images(key).sum() < _FEWEST):
        notes.append(
            f"{untested} of {pairs} pairs are not tested: they have fewer than {_FEWEST} "
            "images with the same truth in common"
        )
    return notes


def _other_folds(comparisons: Sequence[Comparison]) -> list[str]:
    """Notes pairs whose trainings are on other folds, so that val and training images differ."""
    notes = []
    for one in comparisons:
        if one.folds is not None and one.first.folds != one.second.folds:
            parts = [
                f"#{c.rank} has the folds {', '.join(map(str, sorted(c.folds)))}"
                for c in (one.first, one.second)
            ]
            notes.append(f"{' and '.join(parts)}: they were trained on other images, too")
    return notes


def _power(comparisons: Sequence[Comparison]) -> list[str]:
    """Says how small a difference these trainings can tell, and how many the best would need."""
    notes = []
    for kind in ("seeds", "folds"):
        alike = [one for one in comparisons if one.over == f"{kind} and images"]
        known = [(one.seeds, one.variance) for one in alike if one.seeds and one.variance]
        if known:
            count = min(min(seeds) for seeds, _ in known)
            gap = float(np.median([variance.detectable(count) for _, variance in known]))
            notes.append(
                f"{count} {kind} each can tell {gap:.3f} mean IoU of an image apart: so large a "
                f"difference is found, without a correction, in {POWER:.0%} of studies"
            )
    for one in comparisons:  # of folds there are no more than there are
        if one.first.rank == 1 and not one.significant and one.variance and one.folds is None:
            notes.append(_needed(one, one.variance, tests=len(comparisons)))
            break
    return notes


def _needed(one: Comparison, variance: Variance, *, tests: int) -> str:
    """Says how many seeds would tell two configurations apart that aren't told apart."""
    pair = f"#{one.first.rank} from #{one.second.rank}"
    if one.difference == 0:
        return f"Nothing tells {pair}: on average they score the same"
    what = f"To tell {pair}, if they differ by {abs(one.difference):.4f}"
    seeds = variance.seeds_for(one.difference, tests=tests)
    if seeds is None:
        return f"{what}, no {MOST_SEEDS:,} seeds are enough: more images are needed"
    corrected = f", corrected for {tests} tests" if tests > 1 else ""
    return f"{what}, {seeds:,} seeds each would be needed{corrected}"


def _images(key: bytes) -> NDArray[np.bool_]:
    return np.frombuffer(key, dtype=np.bool_)


def _gaps(group: Group, tested: Sequence[Configuration]) -> list[str]:
    notes = []
    ranks = {c.rank for c in tested}
    if missing := [f"#{c.rank}" for c in group.configurations if c.rank not in ranks]:
        notes.append(f"Without paired tests, for want of predictions: {', '.join(missing)}")
    for c in tested:
        count = sum(run.counts is not None for run in c.runs)
        if count < len(c.runs):
            notes.append(f"#{c.rank}: {count} of {len(c.runs)} seeds have predictions")
    return notes


def _table(tested: Sequence[Configuration]) -> tuple[list[Floats], Ints]:
    """Collects each image's IoU by configuration and seed, and its truth.

    NaN where a seed lacks the image, where no pixel of it counts, or where seeds have two truths.

    Returns:
        For each configuration (seeds, images), and all truths, (configurations, images).
    """
    counts = [[run.counts for run in c.runs if run.counts] for c in tested]
    names = np.unique(np.concatenate([one.names for seeds in counts for one in seeds]))
    truth = np.zeros((len(tested), len(names)), dtype=np.int64)
    iou = []
    for row, seeds in enumerate(counts):
        values = np.full((len(seeds), len(names)), np.nan)
        truths = np.zeros((len(seeds), len(names)), dtype=np.int64)
        for place, one in enumerate(seeds):
            at = np.searchsorted(names, one.names)
            values[place, at] = one.iou
            truths[place, at] = one.truth
        values[:, (truths != truths[0]).any(0)] = np.nan
        iou.append(values)
        truth[row] = truths[0]
    return iou, truth
