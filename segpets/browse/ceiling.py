"""The agreement of two annotations of the same photograph: what a second annotator would score.

It is called the ceiling, as scores beyond it say less and less of a model. It is no bound: a model
that has learnt what annotators have in common errs less than each of them, and may exceed it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from segpets.browse.duplicates import Pair
from segpets.data.decoded import read_sample
from segpets.data.reader import Reader
from segpets.data.source import Sample, Source
from segpets.errors import FileError
from segpets.stats import Estimate, bootstrap_of_sums, iou, mean_over_classes, parts_of

LEAST_PAIRS = 5
"""Fewer say nothing of a data set."""

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Ceiling:
    """The agreement of two annotations, pooled over the pixels of pairs.

    Attributes:
        pairs: How many pairs of annotations there are.
        photographs: Of how many photographs; one with three annotations makes three pairs.
        mean_iou: Mean IoU of one annotation judged by the other, with its interval.
        iou: IoU of each class, by its name.
        pixel_accuracy: The part of the pixels to which both give the same class.
    """

    pairs: int
    photographs: int
    mean_iou: Estimate
    iou: dict[str, Estimate]
    pixel_accuracy: Estimate


def label_ceiling(
    pairs: Sequence[Pair],
    samples: Sequence[Sample],
    source: Source,
    reader: Reader,
    classes: Sequence[str],
) -> Ceiling | None:
    """Compares the masks of photographs that are in a data set twice, at the size of a net's input.

    Copies that are mirrored, cropped or changed in brightness are left out, and so are those whose
    masks are equal: those were copied, too.

    Returns:
        The ceiling, whose intervals are over photographs; None if fewer than `LEAST_PAIRS` of them
        were annotated twice, or each draw of them lacks a class.
    """
    counted = [*_counts(pairs, samples, source, reader, len(classes))]
    counts = _by_photograph(counted, len(samples))
    if len(counts) < LEAST_PAIRS:
        return None
    size = len(classes)
    there = ~np.isnan(iou(parts_of(counts.sum(0).reshape(size, size))))

    def statistic(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        parts = parts_of(sums.reshape(-1, size, size))
        scores = iou(parts)
        pixels = parts[:, 0].sum(1) / parts[:, 1].sum(1)
        return np.column_stack([mean_over_classes(scores, of=there), pixels, scores])

    found = statistic(counts.sum(0, keepdims=True))[0]
    low, high = bootstrap_of_sums(counts, statistic, resamples=_RESAMPLES, seed=0)
    if np.isnan(low[0]):  # no draw of photographs has every class
        return None
    mean, pixel, *by_class = (
        Estimate(float(value), float(below), float(above), len(counts))
        for value, below, above in zip(found, low, high, strict=True)
    )
    named = {
        name: one for name, one in zip(classes, by_class, strict=True) if not np.isnan(one.mean)
    }
    return Ceiling(len(counted), len(counts), mean, named, pixel)


def _counts(
    pairs: Sequence[Pair],
    samples: Sequence[Sample],
    source: Source,
    reader: Reader,
    classes: int,
) -> Iterator[tuple[Pair, NDArray[np.int64]]]:
    """Counts pixels by both classes, (C * C,), of each pair that can be compared."""
    for pair in pairs:
        if not pair.same_view:
            continue
        try:
            one, other = (
                read_sample(samples[row], source, reader).mask for row in (pair.first, pair.second)
            )
        except FileError:  # it was readable a moment ago
            continue
        if one.shape != other.shape or (one == other).all():
            continue
        both = (one < classes) & (other < classes)
        cells = one[both].astype(np.int64) * classes + other[both]
        if cells.size:
            yield pair, np.bincount(cells, minlength=classes * classes)


def _by_photograph(
    counted: Sequence[tuple[Pair, NDArray[np.int64]]], samples: int
) -> NDArray[np.float64]:
    """Adds up the counts of all pairs of a photograph: (photographs, C * C)."""
    if not counted:
        return np.zeros((0, 0))
    first = [pair.first for pair, _ in counted]
    second = [pair.second for pair, _ in counted]
    edges = coo_array((np.ones(len(first)), (first, second)), shape=(samples, samples))
    _, of_sample = connected_components(edges, directed=False)
    found, photographs = np.unique(of_sample[first], return_inverse=True)
    sums = np.zeros((len(found), len(counted[0][1])))
    np.add.at(sums, photographs, [count for _, count in counted])
    return sums
