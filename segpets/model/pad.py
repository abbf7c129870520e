"""Padding, so that a net that halves its input several times takes an input of any size."""

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

MIN_SIZE: Final = 32
"""The smallest height and width that every net takes."""


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until height and width are multiples of `multiple`.

    The net crops its logits back by `logits[..., :height, :width]`. An input that already fits is
    returned as it is, without any operation, so that no padding enters an exported graph.

    Args:
        image: (B, C, H, W).
        multiple: The net's stride.

    Returns:
        (B, C, ceil(H / multiple) * multiple, ceil(W / multiple) * multiple).

    Raises:
        ValueError: If H or W is below `MIN_SIZE`.
    """
    height, width = image.shape[-2:]
    if height < MIN_SIZE or width < MIN_SIZE:
        raise ValueError(
            f"the input is {height}x{width}, but a net needs at least {MIN_SIZE}x{MIN_SIZE}: "
            f"raise data.size"
        )
    bottom, right = -height % multiple, -width % multiple
    if bottom == 0 and right == 0:
        return image
    # Zeros would show the net an edge that isn't in the picture; a repeated border shows none.
    return F.pad(image, (0, right, 0, bottom), mode="replicate")


def fitting(length: int, multiple: int) -> int:
    """Round a height or width up to a multiple."""
    return -(-length // multiple) * multiple


def continued(image: Tensor, height: int, width: int) -> Tensor:
    """Repeat the last row and column of an image of any type, up to a height and width.

    Args:
        image: (..., H, W), of which H and W may be larger.
        height: The least height.
        width: The least width.
    """
    for dim, least in ((-2, height), (-1, width)):
        if (length := image.shape[dim]) < least:
            places = torch.arange(least, device=image.device).clamp(max=length - 1)
            image = image.index_select(dim, places)
    return image
