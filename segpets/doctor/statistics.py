"""What a survey says of a data set as a whole."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segpets.doctor.survey import Survey

IGNORED = "ignored"
_MOST_VALUES = 500


@dataclass(frozen=True, slots=True)
class Share:
    """How much of a stage a class has.

    Attributes:
        pixels: The part of the pixels that are its own, within [0, 1].
        images: The part of the images that show it, within [0, 1].
    """

    pixels: float
    images: float


def frequencies(found: Survey, classes: Sequence[str]) -> dict[str, dict[str, Share]]:
    """The share of each class, and of ignored pixels where there are any, in each stage.

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
    """How many images of each stage have which value of an attribute, such as breed.

    Attributes of a single value, or of more than 500, tell nothing and are left out.
    """
    counted = {}
    for key in found.samples.attributes:
        values = list(found.samples.attribute(key))
        of_stages = {s: Counter(values[row] for row in rows) for s, rows in found.stages.items()}
        different = sorted({value for value in values if value})
        if 1 < len(different) <= _MOST_VALUES:
            counted[key] = {
                value: {stage: counts[value] for stage, counts in of_stages.items()}
                for value in different
            }
    return counted


def extremes(found: Survey) -> dict[str, str]:
    """The size and the name of the smallest, the middle and the largest image."""
    areas = found.sizes.prod(axis=1)
    order = np.argsort(areas, kind="stable")[int((areas == 0).sum()) :].tolist()
    if not order:
        return {}
    wanted = {"smallest": order[0], "median": order[len(order) // 2], "largest": order[-1]}
    return {
        word: "{1}x{0}".format(*found.sizes[row].tolist()) + f" ({found.samples.name(row)})"
        for word, row in wanted.items()
    }
