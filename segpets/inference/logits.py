"""Turns logits at the net's size into class ids at a picture's size, in bounded memory."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import interpolate

_STRIP = 1 << 20
"""Pixels of a strip: with 3 classes, 12 MB of float32 logits."""


def class_ids(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes the logits of one picture bilinearly and takes the largest, strip by strip.

    The result equals `interpolate(mode="bilinear").argmax()` of the whole, except for pixels whose
    two largest logits agree to the last digits.

    Args:
        logits: float (C, h, w).
        size: Height and width of the picture in pixels.

    Returns:
        uint8 (H, W), on the CPU.
    """
    ids = torch.empty(size, dtype=torch.uint8)
    for top, strip in enlarged(logits, size):
        ids[top : top + strip.shape[1]] = largest(strip)
    return ids


def largest(logits: Tensor) -> Tensor:
    """Finds the class of the largest logit, the first if several are equal.

    On the CPU, `argmax` over the first dimension takes several times as long.

    Args:
        logits: float (C, ...).

    Returns:
        uint8 (...).
    """
    best = logits[0]
    ids = torch.zeros_like(best, dtype=torch.uint8)
    for index, one in enumerate(logits[1:], start=1):
        ids.masked_fill_(one > best, index)
        best = torch.maximum(best, one)
    return ids


def enlarged(logits: Tensor, size: tuple[int, int]) -> Iterator[tuple[int, Tensor]]:
    """Yields strips of the resized logits, from top to bottom.

    Args:
        logits: float (C, h, w).
        size: Height H and width W in pixels.

    Yields:
        The first row of the strip, and its logits, float32 (C, rows, W), on the CPU.
    """
    logits = logits.detach().float().cpu()
    height, width = size
    rows = max(1, _STRIP // width)
    # The position of each row in the logits, as `interpolate(align_corners=False)` has it.
    centre = (torch.arange(height, dtype=torch.float32) + 0.5) * (logits.shape[1] / height) - 0.5
    centre = centre.clamp(min=0)
    upper = centre.long().clamp(max=logits.shape[1] - 1)
    lower = (upper + 1).clamp(max=logits.shape[1] - 1)
    weight = (centre - upper).view(1, -1, 1)
    for top in range(0, height, rows):
        part = slice(top, top + rows)
        strip = logits[:, upper[part]].lerp(logits[:, lower[part]], weight[:, part])
        yield top, interpolate(strip[None], size=(strip.shape[1], width), mode="bilinear")[0]
