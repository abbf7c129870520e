"""Shares of classes and attributes in a data set."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segpets.browse.survey import Survey

IGNORED = "ignored"
_MOST_VALUES = 500


@dataclass(frozen=True, slots=True)
class Share:
    """The share of a class in a stage.

    Attributes:
        pixels: The part of the pixels that are its own, within [0, 1].
        images: The part of the images that show it, within [0, 1].
    """

    pixels: float
    images: float


def frequencies(found: Survey, classes: Sequence[str]) -> dict[str, dict[str, Share]]:
    """Computes the share of each class, and of ignored pixels if any, in each stage.

    Args:
        found: The survey; pixels are counted in the masks as they are stored.
        classes: Names, in the order of their ids.
    """
    shares = {}
    for column, name in enumerate([*classes, IGNORED]):
        stages = {}
        for stage, rows in found.stages.items():
            counts = found.counts[rows]
            read = counts[counts.sum(axis=1) > 0]
            own = read[:, column]
            pixels = int(own.sum()) / max(int(read.sum()), 1)
            stages[stage] = Share(pixels, int((own > 0).sum()) / max(len(read), 1))
        if column < len(classes) or any(share.pixels for share in stages.values()):
            shares[name] = stages
    return shares


def groups(found: Survey) -> dict[str, dict[str, dict[str, int]]]:
    """Counts the images of each stage by the value of an attribute, such as breed.

    Attributes of a single value, or of more than 500, tell nothing and are left out.
    """
    counted = {}
    for key in found.samples[0].attributes if found.samples else ():
        values = [sample.attributes[key] for sample in found.samples]
        of_stages = {s: Counter(values[row] for row in rows) for s, rows in found.stages.items()}
        different = sorted({value for value in values if value})
        if 1 < len(different) <= _MOST_VALUES:
            counted[key] = {
                value: {stage: counts[value] for stage, counts in of_stages.items()}
                for value in different
            }
    return counted


def extremes(found: Survey) -> dict[str, str]:
    """Finds the size and the name of the smallest, the median and the largest image."""
    areas = found.sizes.prod(axis=1)
    order = np.argsort(areas, kind="stable")[int((areas == 0).sum()) :].tolist()
    if not order:
        return {}
    wanted = {"smallest": order[0], "median": order[len(order) // 2], "largest": order[-1]}
    return {
        word: "{1}x{0}".format(*found.sizes[row].tolist()) + f" ({found.title(row)})"
        for word, row in wanted.items()
    }
