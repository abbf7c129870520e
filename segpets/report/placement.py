"""Labels beside points, so that none covers another label or a point."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_LETTER, _LINE = 6.4, 12.0  # of the charts' font of 11 pixels
_RADIUS: Final = 5.0  # of a point
_NEAR, _FAR = 9.0, (20.0, 32.0, 46.0, 62.0, 80.0, 100.0)
_DIRECTIONS: Final = [(math.cos(a * math.pi / 8), math.sin(a * math.pi / 8)) for a in range(16)]
_PLACES: Final = [
    *((_NEAR, *way) for way in _DIRECTIONS[::2]),  # between these one can't see whose it is
    *((far, *way) for far in _FAR for way in _DIRECTIONS),
]

Box = tuple[float, float, float, float]
Place = tuple[float, float]


@dataclass(frozen=True)
class Label:
    """A text beside a point.

    Attributes:
        x: Its middle, from the left.
        y: Its base line, from the top.
        text: What it says.
        line: The course, as SVG has it, of a line to a point that isn't next to it; else empty.
    """

    x: float
    y: float
    text: str
    line: str = ""


def placed(points: Sequence[Place], texts: Sequence[str], *, frame: Box) -> list[Label | None]:
    """Places a label for each point at the nearest free place, the first points first.

    Greedy: J. Christensen, J. Marks, S. Shieber, "An empirical study of algorithms for point-
    feature label placement", ACM Transactions on Graphics 14 (1995), section 3.1.

    Args:
        points: All points of a drawing.
        texts: Of the first of them, in the order in which they choose; the others have none.
        frame: Left, top, right and bottom of where labels may stand.

    Returns:
        A label for each text; None where there is no room.
    """
    marks = [_around(x, y, 2 * _RADIUS, 2 * _RADIUS) for x, y in points]
    boxes: list[Box] = []
    labels: list[Label | None] = []
    for (x, y), text in zip(points, texts, strict=False):
        width = _LETTER * len(text)
        found = None
        for far, across, down in _PLACES:
            middle = (x + across * (far + width / 2), y + down * (far + _LINE / 2 - 2))
            box = _around(*middle, width, _LINE)
            within = box[0] >= frame[0] and box[1] >= frame[1]
            within = within and box[2] <= frame[2] and box[3] <= frame[3]
            if within and not any(_meet(box, other) for other in itertools.chain(boxes, marks)):
                end = (middle[0] - across * width / 2, middle[1] - down * _LINE / 2)
                line = "" if far == _NEAR else f"M{x} {y}L{end[0]:.1f} {end[1]:.1f}"
                found = Label(round(middle[0], 1), round(middle[1] + 4, 1), text, line)
                boxes.append(box)
                break
        labels.append(found)
    return labels


def _around(x: float, y: float, width: float, height: float) -> Box:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
