"""Near duplicates: copies that were scaled, encoded anew, mirrored, cropped or changed in colour.

Hashes of pixels find none of them. Instead thumbnails are compared: small ones of all images with
each other, larger ones of what is alike, laid over each other. What decides is the correlation of
their details (what is left when a blurred picture is taken off), which scenes that merely look
alike, such as X-rays or photographs of one series, don't share. Zero-mean normalised
cross-correlation: J. P. Lewis, "Fast Normalized Cross-Correlation", Vision Interface 1995;
alignment by Gauss-Newton steps: S. Baker, I. Matthews, "Lucas-Kanade 20 Years On", IJCV 2004.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

SIDE: Final = 48
"""Height and width of a thumbnail in pixels."""

ALIKE: Final = 0.9
"""The least correlation of details of two copies.

In the Oxford-IIIT Pet data set copies have 0.92 to 1.0, photographs of one series at most 0.87, and
what is neither at most 0.25.
"""

EVERYWHERE: Final = 0.88
"""The least correlation where details of all parts count alike, however strong they are.

Pictures that share a frame or a caption and little else are alike by those: they have at most 0.87
here, even at an eighth of the usual contrast; copies have 0.89 to 1.0.
"""

CROPPED: Final = 0.01
"""How far corners are moved, as parts of a side, where a copy was cropped."""

_SMALL, _COARSE = 8, 16  # sides at which all, and at which the likely ones are compared
_LIKELY, _LIKELIER = 0.9, 0.85  # the least correlation there
_NEIGHBOURS = 3  # of each image, in each of the ways in which it may have been cropped
_CROP = 0.92  # the sides of a crop, as parts of the picture's, with which a search begins
_ROWS = 1024
_STEPS = 3  # of an alignment; copies are aligned by two, in data sets and among made crops
_PROMISING = 0.5  # the least correlation of details after the first alignment; copies have 0.85


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images of one photograph.

    Attributes:
        first: The row of the one.
        second: The row of the other.
        alike: The correlation of their details, from `ALIKE` to 1.
        mirrored: Whether one is mirrored.
        moved: How far the corners lie from each other, as a part of the side: 0 if neither is
            cropped.
        difference: The mean difference of grey values in levels, 0 to 255.
    """

    first: int
    second: int
    alike: float
    mirrored: bool
    moved: float
    difference: float

    @property
    def same_view(self) -> bool:
        """Says if nothing but the encoding differs, so that the masks can be compared."""
        return not self.mirrored and self.moved < CROPPED and self.difference < 8


def thumbnail(image: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float16]:
    """Makes the thumbnail of an image: its grey values, (48, 48), from 0 to 255.

    Args:
        image: uint8, or float32 in [0, 1], (C, H, W).
    """
    grey = torch.from_numpy(image).float().mean(0) * (1 if image.dtype == np.uint8 else 255)
    # With antialiasing: windows of unequal widths would make another picture of a part.
    small = F.interpolate(grey[None, None], (SIDE, SIDE), mode="bilinear", antialias=True)
    pixels: NDArray[np.float16] = small[0, 0].half().numpy()
    return pixels


def near_duplicates(thumbnails: NDArray[np.float16]) -> list[Pair]:
    """Finds pairs of images of one photograph, the likest first.

    Args:
        thumbnails: Those of N images, (N, 48, 48); zeros where an image can't be read.
    """
    if len(thumbnails) < 2:
        return []
    images = torch.from_numpy(thumbnails)[:, None]  # (N, 1, S, S)
    likely = sorted(set(_likely(images)))
    best: dict[tuple[int, int], Pair] = {}
    for start in range(0, len(likely), _ROWS):
        for pair in _verified(images, likely[start : start + _ROWS]):
            key = (pair.first, pair.second)
            if key not in best or pair.alike > best[key].alike:
                best[key] = pair
    return sorted(best.values(), key=lambda pair: (-pair.alike, pair.first, pair.second))


def _likely(images: Tensor) -> Iterator[tuple[int, int, bool]]:
    """Finds pairs whose small thumbnails are alike, perhaps of a part and perhaps mirrored.

    Yields:
        The row of what may be a crop, that of what it was cut from, whether one is mirrored.
    """
    whole = _normed(_resized(images, _SMALL))
    rows = range(0, len(images), _ROWS)
    for place in _places(one_size=True):
        cut = torch.cat([_warped(images[i : i + _ROWS].float(), place, 24) for i in rows])
        for mirrored in (False, True):
            parts = _normed(_resized(cut.flip(-1) if mirrored else cut, _SMALL))
            for i in rows:
                likeness = parts[i : i + _ROWS] @ whole.T  # (rows, N)
                here = torch.arange(len(likeness))
                likeness[here, here + i] = -1.0
                best = likeness.topk(min(_NEIGHBOURS, len(images)))
                found = (best.values > _LIKELY).nonzero()
                for row, rank in found.tolist():
                    other = int(best.indices[row, rank])
                    yield other, row + i, mirrored
                    yield row + i, other, mirrored


def _verified(images: Tensor, likely: Sequence[tuple[int, int, bool]]) -> Iterator[Pair]:
    """Lays the pictures of each pair over each other, and compares their details."""
    first, second, mirrored = (torch.tensor(column) for column in zip(*likely, strict=True))
    crops, wholes = images[first].float(), images[second].float()
    wholes = torch.where(mirrored[:, None, None, None], wholes.flip(-1), wholes)

    coarse = _normed(_resized(crops, _COARSE))
    tried = torch.stack(
        [(_normed(_warped(wholes, place, _COARSE)) * coarse).sum(1) for place in _places()]
    )
    best = tried.max(0)
    kept = best.values > _LIKELIER
    if not kept.any():
        return
    crops, wholes = crops[kept], wholes[kept]
    place = torch.stack(list(_places()))[best.indices[kept]]  # (P, 4)

    found = torch.stack([first, second, mirrored.long()], 1)[kept]
    place = _aligned(crops, wholes, place, _COARSE)
    kept = _correlation(crops, _warped(wholes, place, SIDE)) > _PROMISING
    if not kept.any():  # as where all images look alike when small
        return
    crops, wholes, place, found = crops[kept], wholes[kept], place[kept], found[kept]
    for side in (24, SIDE):
        place = _aligned(crops, wholes, place, side)
    warped = _warped(wholes, place, SIDE)
    alike, difference = _correlation(crops, warped), (crops - warped).abs().mean((1, 2, 3))
    evenly = _correlation(crops, warped, evenly=True)
    alike = torch.where(evenly >= EVERYWHERE, alike, evenly)
    moved = (place[:, :2] - 1).abs() / 2 + place[:, 2:].abs() / 2
    for (one, other, flipped), likeness, far, levels in zip(
        found.tolist(), alike.tolist(), moved.amax(1).tolist(), difference.tolist(), strict=True
    ):
        if likeness >= ALIKE:
            rows = (one, other) if one < other else (other, one)
            yield Pair(*rows, likeness, bool(flipped), far, levels)


def _correlation(crops: Tensor, warped: Tensor, *, evenly: bool = False) -> Tensor:
    """Returns that of details, (P,), perhaps with all parts made equally strong."""
    sides = [_details(crops), _details(warped)]
    if evenly:
        power = [F.avg_pool2d(F.pad(one**2, (4, 4, 4, 4), mode="replicate"), 9, 1) for one in sides]
        sides = [255 * one / (p + 1.0).sqrt() for one, p in zip(sides, power, strict=True)]
    return (_normed(sides[0]) * _normed(sides[1])).sum(1)


def _aligned(crops: Tensor, wholes: Tensor, place: Tensor, side: int) -> Tensor:
    """Moves the places of crops, (P, 4), so that they fit better: Gauss-Newton steps."""
    target = _normed(_resized(crops, side))  # (P, S * S)
    nudge = 0.25 / side
    likeness = (_normed(_warped(wholes, place, side)) * target).sum(1)
    for _ in range(_STEPS):
        now = _normed(_warped(wholes, place, side))
        slopes = []
        for key in range(4):
            nudged = place.clone()
            nudged[:, key] += nudge
            slopes.append((_normed(_warped(wholes, nudged, side)) - now) / nudge)
        slope = torch.stack(slopes, -1)  # (P, S * S, 4)
        square = slope.mT @ slope + 1e-3 * torch.eye(4)
        step = torch.linalg.solve(square, (slope.mT @ (target - now)[..., None]))[..., 0]
        moved = place + step.clamp(-2 / side, 2 / side)
        better = (_normed(_warped(wholes, moved, side)) * target).sum(1)
        place = torch.where((better > likeness)[:, None], moved, place)
        likeness = torch.maximum(better, likeness)
    return place


def _places(*, one_size: bool = False) -> Iterator[Tensor]:
    """Yields where in a picture a crop may lie: width, height, centre's x and y, in [-1, 1]."""
    free = 1 - _CROP
    yield torch.tensor([1.0, 1.0, 0.0, 0.0])
    sizes = ((_CROP, _CROP),) if one_size else ((_CROP, _CROP), (_CROP, 1.0), (1.0, _CROP))
    for wide, high in sizes:
        for x in (-free, 0.0, free) if wide < 1 else (0.0,):
            for y in (-free, 0.0, free) if high < 1 else (0.0,):
                yield torch.tensor([wide, high, x, y])


def _warped(images: Tensor, place: Tensor, side: int) -> Tensor:
    """Cuts a place, (4,) or (P, 4), out of each image, (P, 1, S, S), at the size of `side`."""
    wide, high, x, y = place.expand(len(images), 4).unbind(1)
    zero = torch.zeros_like(x)
    theta = torch.stack([wide, zero, x, zero, high, y], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, [len(images), 1, SIDE, SIDE], align_corners=False)
    return _resized(F.grid_sample(images, grid, "bilinear", "border", False), side)


def _resized(images: Tensor, side: int) -> Tensor:
    return F.adaptive_avg_pool2d(images.float(), side)


def _details(images: Tensor) -> Tensor:
    return images - F.avg_pool2d(F.pad(images, (2, 2, 2, 2), mode="replicate"), 5, 1)


def _normed(images: Tensor) -> Tensor:
    """Takes the mean off each image and divides by the norm: (P, S * S); zeros if it is plain."""
    flat = images.flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    norm = flat.norm(dim=1, keepdim=True)
    return torch.where(norm > 1.0, flat / norm.clamp(min=1.0), 0.0)
