"""The colours of classes in pictures."""

import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from segpets.labels import is_background

_BLACK: Final = (0, 0, 0)
_OKABE_ITO: Final = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_TAKEN: Final = (_BLACK, (128, 128, 128), (255, 255, 255))  # background, ignored, and paper
_DARKEST: Final = 0.35  # of lightness, below which all look black
_LEVELS: Final = (0, 36, 73, 109, 146, 182, 219, 255)  # of red, green and blue


def palette(classes: Sequence[str]) -> list[tuple[int, int, int]]:
    """Chooses the colours of classes in pictures, RGB; colour-blind readers tell the first apart.

    A class called background is black, whatever its position, and no other is: black looks like
    nothing. The others take, in their order, orange, sky blue, bluish green, yellow, blue,
    vermilion and purple of M. Okabe and K. Ito, "Color Universal Design" (2008). Each further one
    is that of an even grid of RGB, without the darkest, which is farthest from all before it, from
    black, white and the grey of ignored pixels, in OKLab (B. Ottosson, "A perceptual color space
    for image processing", 2020). So a class keeps its colour when others are added after it.

    Args:
        classes: Class names, in the order of their ids. Capitals don't matter.
    """
    count = len(classes)
    coloured = [*_OKABE_ITO, *_further(max(count - len(_OKABE_ITO), 0))][:count]
    behind = [index for index, name in enumerate(classes) if is_background(name)]
    if behind:
        coloured.insert(behind[0], _BLACK)
    return coloured[:count]


@cache
def _further(count: int) -> tuple[tuple[int, int, int], ...]:
    grid = np.array(list(itertools.product(_LEVELS, repeat=3)))
    grid = grid[oklab(grid)[:, 0] > _DARKEST]
    places = oklab(grid)
    taken = oklab(np.array(_OKABE_ITO + _TAKEN))
    distance = np.linalg.norm(places[:, None] - taken, axis=2).min(1)
    chosen: list[tuple[int, int, int]] = []
    for _ in range(count):
        best = int(distance.argmax())
        red, green, blue = grid[best].tolist()
        chosen.append((red, green, blue))
        distance = np.minimum(distance, np.linalg.norm(places - places[best], axis=1))
    return tuple(chosen)


def oklab(rgb: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Maps colours of sRGB, 0 to 255, to OKLab, where equal distances look equal, (..., 3)."""
    part = rgb / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    lms = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    lab: NDArray[np.float64] = np.cbrt(lms) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )
    return lab
