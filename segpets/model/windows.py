"""Sliding windows: images at their own resolution, with seams that can't be seen."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from segpets.model.pad import MIN_SIZE, continued, fitting

OVERLAP = 4
"""Neighbouring windows share 1/4 of their length or more."""

RIM = 16
"""The outermost 1/16 of a window, where the net sees too little around, has no weight."""

AT_ONCE = 1 << 18
"""Pixels that a CPU's net takes at once, at most, or one window: what it computes is large."""

Size = tuple[int, int]
"""Height and width in pixels."""


def windowed(
    logits: Callable[[Tensor], Tensor],
    rows: Callable[[int, int], Tensor],
    size: Size,
    window: Size,
    *,
    stride: int = 1,
    batch_size: int = 8,
    device: torch.device | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Predicts overlapping windows and blends their logits, one row of windows after another.

    Args:
        logits: Maps images (B, C, h, w) to logits (B, K, h, w), on any device.
        rows: Returns some rows of the image, (C, rows, W).
        size: Height and width of the image.
        window: Height and width of windows; rounded up to a multiple of the stride. A smaller image
            is one window.
        stride: The multiple to which the net pads.
        batch_size: The number of windows that the net takes at once; fewer if they are large.
        device: Where the logits lie; None stands for the CPU.

    Yields:
        From top to bottom the first row, and the logits, float32 (K, rows, W), of what no later
        window changes.
    """
    (height, width), (high, wide) = size, _fitted(window, size, stride)
    tops, lefts = starts(height, high), starts(width, wide)
    down, across = weights(height, high, device), weights(width, wide, device)
    batch = max(1, min(batch_size, AT_ONCE // (high * wide)))
    count, done = min(high, height), 0
    blended = torch.zeros(0)
    for top, by_row in zip(tops, down, strict=True):
        if top > 0:
            keep = top - done
            yield done, blended[:, :keep].clone()  # the buffer is used again
            begun = blended[:, keep:].clone()
            blended[:, : count - keep] = begun
            blended[:, count - keep :] = 0
            done = top
        strip = continued(rows(top, top + count), high, wide)
        for first in range(0, len(lefts), batch):
            some = lefts[first : first + batch]
            crops = torch.stack([strip[:, :, left : left + wide] for left in some])
            for index, part in enumerate(logits(crops), start=first):
                columns = slice(lefts[index], min(lefts[index] + wide, width))
                if not len(blended):
                    blended = part.new_zeros(part.shape[0], count, width, dtype=torch.float32)
                weight = (by_row[:, None] * across[index]).to(part.device)
                inner = part[:, :count, : weight.shape[1]].float()
                blended[:, :, columns].addcmul_(inner, weight)
    yield done, blended


def by_windows(
    logits: Callable[[Tensor], Tensor], images: Tensor, window: Size, *, stride: int = 1
) -> Tensor:
    """Computes logits of images by windows, if they are larger than one.

    Args:
        logits: Maps images (B, C, h, w) to logits (B, K, h, w).
        images: (B, C, H, W).
        window: Height and width of windows.
        stride: The multiple to which the net pads.

    Returns:
        Logits (B, K, H, W).
    """
    size = (images.shape[-2], images.shape[-1])
    high, wide = _fitted(window, size, stride)
    if high >= size[0] and wide >= size[1]:
        return logits(images)
    whole = []
    for image in images:

        def rows(top: int, end: int, image: Tensor = image) -> Tensor:
            return image[:, top:end]

        strips = windowed(logits, rows, size, window, stride=stride, device=image.device)
        whole.append(torch.cat([strip for _, strip in strips], dim=1))
    return torch.stack(whole)


def _fitted(window: Size, size: Size, stride: int) -> Size:
    high, wide = (
        fitting(max(min(side, length), MIN_SIZE), stride)
        for side, length in zip(window, size, strict=True)
    )
    return high, wide


def starts(length: int, window: int) -> list[int]:
    """Places windows evenly, so that they cover a length and overlap enough."""
    if length <= window:
        return [0]
    count = -(-(length - window) // (window - window // OVERLAP)) + 1
    return [round(i * (length - window) / (count - 1)) for i in range(count)]


def weights(length: int, window: int, device: torch.device | None = None) -> list[Tensor]:
    """Computes all windows' weights along one axis, cut off at the image's end; they sum to 1."""
    parts = [
        (start, rise(start, length, window, device)[: length - start])
        for start in starts(length, window)
    ]
    total = torch.zeros(length, device=device)
    for start, part in parts:
        total[start : start + window] += part
    return [part / total[start : start + window] for start, part in parts]


def rise(start: int, length: int, window: int, device: torch.device | None = None) -> Tensor:
    """Computes the weights of a window's pixels along one axis, (window,).

    They rise from the rim to 1 over the overlap; at the edges of the image they are 1.
    """
    rim, overlap = window // RIM, window // OVERLAP
    slope = ((torch.arange(window, device=device) + 0.5 - rim) / (overlap - 2 * rim)).clamp(0, 1)
    weights = torch.ones(window, device=device)
    if start > 0:
        weights *= slope
    if start + window < length:
        weights *= slope.flip(0)
    return weights
