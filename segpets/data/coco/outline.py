"""Outlines of objects in COCO's format, polygons and run lengths, checked and then drawn.

pycocotools decides which pixels are inside. It trusts what it is given, and reads or writes beyond
its arrays where that is wrong; so everything is checked before. Its `decode` isn't used: it calls
NumPy in a way that NumPy 2 warns of, and it makes a whole mask of each object.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

Box = tuple[float, float, float, float]

MARGIN: Final = 0.1
"""How far a polygon may reach beyond the image, of the longer side; at least 10 pixels."""

BOX_MARGIN: Final = 0.05
"""How far a box's edge may be from that of the outline, of the longer side; at least 5 pixels."""

_LONGEST = 2_000_000
_MOST_DIGITS = 7


class Runs(TypedDict):
    """Compressed run lengths, as pycocotools takes them.

    Attributes:
        size: Height and width.
        counts: The runs.
    """

    size: list[int]
    counts: bytes


def runs_of(annotation: Mapping[str, Any], height: int, width: int) -> Runs:
    """Reads the outline of an annotation.

    Polygons are united, so they can't have holes. Run lengths may be compressed or not.

    Raises:
        ValueError: The outline isn't valid or contradicts the box; the message says how.
    """
    outline = annotation.get("segmentation")
    if isinstance(outline, Mapping):
        runs = _checked_runs(outline, height, width)
        x, y, across, down = coco.toBbox(runs).tolist()
        extent = (x, y, x + across, y + down)
    elif isinstance(outline, list) and outline:
        polygons = outline if isinstance(outline[0], list) else [outline]
        points = [_checked_polygon(polygon, height, width) for polygon in polygons]
        runs = coco.merge(coco.frPyObjects([p.ravel().tolist() for p in points], height, width))
        low, high = np.concatenate(points).min(axis=0), np.concatenate(points).max(axis=0)
        extent = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    else:
        hint = ", only a box" if annotation.get("bbox") else ""
        raise ValueError(f"has no segmentation{hint}")
    _check_box(annotation.get("bbox"), extent, height, width)
    return runs


def area(runs: Runs) -> int:
    """Counts the pixels inside."""
    return int(coco.area(runs))


def draw(runs: Runs, canvas: NDArray[np.uint8], value: int) -> None:
    """Fills the pixels inside.

    Args:
        runs: The outline.
        canvas: (H, W), in Fortran's order.
        value: The value that they get.
    """
    flat, end = canvas.reshape(-1, order="F"), 0
    for index, run in enumerate(_uncompressed(runs["counts"].decode())):
        end += run
        if index % 2:
            flat[end - run : end] = value


def _checked_polygon(polygon: object, height: int, width: int) -> NDArray[np.float64]:
    """Reads and checks the points of a polygon, (N, 2)."""
    if not isinstance(polygon, list) or not all(_is_number(value) for value in polygon):
        raise ValueError("has a polygon that is no list of numbers")
    if len(polygon) % 2:
        raise ValueError(f"has a polygon of {len(polygon)} numbers, which are no pairs of x and y")
    if len(polygon) < 6:
        raise ValueError(f"has a polygon of {len(polygon) // 2} points, but 3 are the least")
    margin = max(MARGIN * max(height, width), 10)
    points = np.array(polygon, dtype=np.float64).reshape(-1, 2)
    outside = (points < -margin) | (points > np.array([width, height]) + margin)
    if outside.any():
        x, y = points[outside.any(axis=1)][0].tolist()
        raise ValueError(
            f"has a polygon with the point ({x:g}, {y:g}), far outside of the image's "
            f"{width}x{height} pixels"
        )
    steps = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum()
    # Nothing that was drawn is longer than all pixels' borders; and its length takes memory.
    if steps > min(4 * (height + 1) * (width + 1), _LONGEST) + 8 * margin:
        raise ValueError(f"has a polygon that is {steps:.0f} pixels long")
    return points


def _checked_runs(outline: Mapping[str, Any], height: int, width: int) -> Runs:
    size, counts = outline.get("size"), outline.get("counts")
    if size != [height, width]:
        raise ValueError(
            f"has run lengths for the size {str(size)[:80]}, but the image's, height and width, is "
            f"[{height}, {width}]"
        )
    if isinstance(counts, str):
        runs = _uncompressed(counts)
    elif isinstance(counts, list) and all(type(count) is int for count in counts):
        runs = counts
    else:
        raise ValueError("has run lengths that are neither a list of whole numbers nor a text")
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise ValueError(
            f"has run lengths that sum to {sum(runs)}, or with a negative one, but the image has "
            f"{height}x{width} = {height * width} pixels"
        )
    if isinstance(counts, str):
        return Runs(size=[height, width], counts=counts.encode())
    compressed: Runs = coco.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return compressed


def _uncompressed(text: str) -> list[int]:
    """Decodes run lengths from COCO's compressed text.

    Six bits a character, from `0` on: five of a number, the lowest first, and one that says
    whether more follow. From the fourth on, numbers are differences to the last but one.
    """
    runs: list[int] = []
    value = digits = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or digits == _MOST_DIGITS:
            raise ValueError(f"has compressed run lengths with a wrong {character!r}")
        value |= (bits & 31) << 5 * digits
        digits += 1
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << 5 * digits
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = digits = 0
    if digits:
        raise ValueError("has compressed run lengths that end in the midst of a number")
    return runs


def _check_box(box: object, extent: Box, height: int, width: int) -> None:
    """Refuses a box that doesn't roughly match the outline's extent (left, top, right, bottom).

    An edge may also be where the outline leaves the image. A missing box, or one of zeros, passes.
    """
    if not box:
        return
    if not isinstance(box, Sequence) or len(box) != 4 or not all(map(_is_number, box)):
        raise ValueError(f"has the box {str(box)[:80]}, which isn't [x, y, width, height]")
    x, y, across, down = (float(value) for value in box)
    if not any((x, y, across, down)):
        return
    edges = (x, y, x + across, y + down)
    margin = max(BOX_MARGIN * max(extent[2] - extent[0], extent[3] - extent[1]), 5)
    for edge, wanted, most in zip(edges, extent, (width, height, width, height), strict=True):
        if min(abs(edge - wanted), abs(edge - min(max(wanted, 0), most))) > margin:
            left, top, right, bottom = extent
            raise ValueError(
                f"has the box [x, y, width, height] = [{x:g}, {y:g}, {across:g}, {down:g}], but "
                f"its outline has [{left:g}, {top:g}, {right - left:g}, {bottom - top:g}]"
            )


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # A float can't hold every int of JSON.
    return abs(value) < 1e9 and math.isfinite(value)
