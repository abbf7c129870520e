"""Tiles: a picture of any size at its own resolution, with seams that can't be seen."""

from collections.abc import Iterator

import torch
from torch import Tensor

from segpets.inference.layers import Net
from segpets.inference.picture import Picture, strip_rows, strips
from segpets.model.pad import continued, fitting

OVERLAP = 4
"""Neighbouring tiles share 1/4 of their length or more."""

RIM = 16
"""The outermost 1/16 of a tile, where the net sees too little around, has no weight."""

AT_ONCE = 1 << 18
"""Pixels that the net takes at once, at most, or one tile: what it computes from them is large."""

SMALLEST = 32
"""Height and width that every net takes."""


def tiled(
    net: Net, picture: Picture, tile: int, *, batch_size: int = 8
) -> Iterator[tuple[int, Tensor]]:
    """Predicts overlapping tiles and blends their logits, one row of tiles after another.

    Args:
        net: The net that predicts.
        picture: The picture.
        tile: Height and width of tiles in pixels; rounded up to a multiple of the net's stride. A
            picture that is smaller is one tile.
        batch_size: The number of tiles that the net takes at once; fewer if they are large.

    Yields:
        From top to bottom the first row, and the logits, float32 (C, rows, W) on the CPU, of what
        no later tile changes.
    """
    height, width = picture.size
    high, wide = (_fitting(tile, length, net.stride) for length in picture.size)
    tops, lefts = starts(height, high), starts(width, wide)
    down, across = weights(height, high), weights(width, wide)
    batch = max(1, min(batch_size, AT_ONCE // (high * wide)))
    rows, done = min(high, height), 0
    blended = torch.zeros(0)
    for top, by_row in zip(tops, down, strict=True):
        if top > 0:
            keep = top - done
            yield from _finished(done, blended[:, :keep])
            begun = blended[:, keep:].clone()
            blended[:, : rows - keep] = begun
            blended[:, rows - keep :] = 0
            done = top
        strip = continued(picture.rows(top, top + rows), high, wide)
        for first in range(0, len(lefts), batch):
            some = lefts[first : first + batch]
            crops = torch.stack([strip[:, :, left : left + wide] for left in some])
            for index, logits in enumerate(net.logits(crops).cpu(), start=first):
                columns = slice(lefts[index], min(lefts[index] + wide, width))
                by_column = across[index]
                if not len(blended):
                    blended = torch.zeros(logits.shape[0], rows, width)
                part = logits[:, :rows, : len(by_column)]
                blended[:, :, columns] += part * (by_row[:, None] * by_column)
    yield from _finished(done, blended)


def _finished(done: int, blended: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yields rows that no later tile changes, in strips."""
    for top, bottom in strips(blended.shape[1], strip_rows(blended.shape[2])):
        yield done + top, blended[:, top:bottom].clone()  # the buffer is used again


def _fitting(tile: int, length: int, stride: int) -> int:
    return fitting(max(min(tile, length), SMALLEST), stride)


def starts(length: int, tile: int) -> list[int]:
    """Places tiles evenly, so that they cover a length and overlap enough."""
    if length <= tile:
        return [0]
    count = -(-(length - tile) // (tile - tile // OVERLAP)) + 1
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def weights(length: int, tile: int) -> list[Tensor]:
    """Computes all tiles' weights along one axis, cut off at the picture's end; they sum to 1."""
    parts = [
        (start, window(start, length, tile)[: length - start]) for start in starts(length, tile)
    ]
    total = torch.zeros(length)
    for start, part in parts:
        total[start : start + tile] += part
    return [part / total[start : start + tile] for start, part in parts]


def window(start: int, length: int, tile: int) -> Tensor:
    """Computes the weights of a tile's pixels along one axis, (tile,).

    They rise from the rim to 1 over the overlap; at the edges of the picture they are 1.
    """
    rim, overlap = tile // RIM, tile // OVERLAP
    rise = ((torch.arange(tile) + 0.5 - rim) / (overlap - 2 * rim)).clamp(0, 1)
    weights = torch.ones(tile)
    if start > 0:
        weights *= rise
    if start + tile < length:
        weights *= rise.flip(0)
    return weights
