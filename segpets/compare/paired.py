"""Tests of differences, image by image."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from segpets.records.group import Configuration, Group
from segpets.stats import Floats, Ints, bootstrap_interval, holm, sign_flip_p

ALPHA: Final = 0.05
_FEWEST = 2  # images, below which nothing is tested
_PER_TEST = 200  # resamples for each test of a family: Holm's smallest p is then 0.01


@dataclass(frozen=True)
class Comparison:
    """A paired test of two configurations.

    Attributes:
        first: The one that ranks higher.
        second: The other.
        images: The number of images that both have.
        difference: The mean over images of first less second, in mean IoU of an image.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        p: Two-sided, of the sign-flip permutation test.
        p_holm: Corrected for the number of tests in the group.
    """

    first: Configuration
    second: Configuration
    images: int
    difference: float
    low: float
    high: float
    p: float
    p_holm: float

    @property
    def real(self) -> bool:
        """True if the difference is larger than chance among images explains."""
        return self.p_holm < ALPHA


def compared(
    group: Group, *, against_each_other: int, resamples: int, seed: int
) -> tuple[list[Comparison], list[str]]:
    """Tests the best configuration against all others, and the best few against each other.

    Each image has one number a configuration: its mean IoU, averaged over the configuration's
    seeds. So the test asks whether these nets differ on images like these; how much another
    training of the same configuration would differ, the interval over seeds says.

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
    every = itertools.combinations(range(len(tested)), 2)
    pairs = [(i, j) for i, j in every if i == 0 or j < against_each_other]
    flips = max(resamples, _PER_TEST * len(pairs) - 1)
    # Pairs that have the same images share the draws.
    alike: dict[bytes, list[tuple[int, int]]] = {}
    valid = ~np.isnan(iou)
    for i, j in pairs:
        both = valid[i] & valid[j] & (truth[i] == truth[j])
        alike.setdefault(both.tobytes(), []).append((i, j))
    least = min(int(_images(key).sum()) for key in alike)
    if least < (usable := int(valid.any(0).sum())):
        notes.append(
            "The tested images, or their truths, are not the same in all runs: a pair is compared "
            f"on those that both have, at least {least} of {usable}"
        )
    if untested := sum(len(m) for key, m in alike.items() if _images(key).sum() < _FEWEST):
        notes.append(
            f"{untested} of {len(pairs)} pairs are not tested: they have fewer than {_FEWEST} "
            "images with the same truth in common"
        )
    results: dict[tuple[int, int], tuple[int, float, float, float, float]] = {}
    for key, members in alike.items():
        images = _images(key)
        if images.sum() >= _FEWEST:
            differences = np.stack([iou[i, images] - iou[j, images] for i, j in members], axis=1)
            tests = _tests(differences, flips=flips, resamples=resamples, seed=seed)
            results |= dict(zip(members, tests, strict=True))
    done = [pair for pair in pairs if pair in results]
    corrected = holm([results[pair][4] for pair in done])
    return [
        Comparison(tested[i], tested[j], *results[i, j], p_holm)
        for (i, j), p_holm in zip(done, corrected, strict=True)
    ], notes


def _tests(
    differences: Floats, *, flips: int, resamples: int, seed: int
) -> Iterator[tuple[int, float, float, float, float]]:
    """Yields for each column of (N, M): images, mean, ends of its interval, p."""
    p = sign_flip_p(differences, resamples=flips, seed=seed)
    low, high = bootstrap_interval(differences, resamples=resamples, seed=seed)
    for column, mean in enumerate(differences.mean(axis=0)):
        yield (
            len(differences),
            float(mean),
            float(low[column]),
            float(high[column]),
            float(p[column]),
        )


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


def _table(tested: Sequence[Configuration]) -> tuple[Floats, Ints]:
    """Collects each image's IoU, over the seeds, and its truth, (configurations, images).

    NaN where a seed lacks the image, where no pixel of it counts, or where seeds have two truths.
    """
    counts = [[run.counts for run in c.runs if run.counts] for c in tested]
    names = np.unique(np.concatenate([one.names for seeds in counts for one in seeds]))
    iou = np.full((len(tested), len(names)), np.nan)
    truth = np.zeros(iou.shape, dtype=np.int64)
    for row, seeds in enumerate(counts):
        values = np.full((len(seeds), len(names)), np.nan)
        truths = np.zeros((len(seeds), len(names)), dtype=np.int64)
        for place, one in enumerate(seeds):
            at = np.searchsorted(names, one.names)
            values[place, at] = one.iou
            truths[place, at] = one.truth
        agreed = (truths == truths[0]).all(0)
        iou[row] = np.where(agreed, values.mean(0), np.nan)
        truth[row] = truths[0]
    return iou, truth
