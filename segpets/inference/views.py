"""Computes a model's logits from one view of an image, or averaged over several."""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segpets.data.geometry import SMALLEST
from segpets.errors import UserError
from segpets.inference.trained import Trained

FLIP: Final = "flip"
_LARGEST_SCALE: Final = 4.0

View = tuple[float, bool]
"""A scale, and whether left and right change places."""


def views(words: Sequence[object], size: int) -> list[View]:
    """Lists the views that test-time augmentation averages over, the unchanged image first.

    Args:
        words: `flip` and scales, such as 0.75; the scale 1 is always among them. With `flip`, each
            scale is seen both ways.
        size: The smaller of height and width of the images in pixels.

    Raises:
        UserError: A word is neither of these, or a scale makes images too small or too large.
    """
    scales = [1.0]
    for word in words:
        if word == FLIP:
            continue
        if isinstance(word, bool) or not isinstance(word, int | float):
            raise UserError(f"tta={word} is unknown: choose flip, and scales such as 0.75 or 1.25")
        if not SMALLEST / size <= word <= _LARGEST_SCALE:
            raise UserError(
                f"tta={word} makes images of {size} pixels too small or too large: choose a scale "
                f"from {SMALLEST / size:.3g}, which leaves {SMALLEST} pixels, to "
                f"{_LARGEST_SCALE:g}"
            )
        if float(word) not in scales:
            scales.append(float(word))
    ways = (False, True) if FLIP in words else (False,)
    return [(scale, flip) for scale in scales for flip in ways]


def averaged(trained: Trained, images: Tensor, logits: Tensor, seen: Sequence[View]) -> Tensor:
    """Averages the probabilities over several views.

    Args:
        trained: The model.
        images: uint8 or float32 (B, C, H, W), on the CPU.
        logits: Its logits of the images as they are, (B, C, H, W), on the CPU.
        seen: The views; the first, the images as they are, is what `logits` are of.

    Returns:
        Logarithms of the averages, float32 (B, C, H, W): logits again.
    """
    total = logits.softmax(dim=1)
    height, width = images.shape[-2:]
    for scale, flip in seen[1:]:
        shown = images
        if scale != 1:
            size = (round(height * scale), round(width * scale))
            shown = interpolate(shown, size=size, mode="bilinear", antialias=True)
        found = trained.logits(shown.flip(-1) if flip else shown).cpu()
        found = found.flip(-1) if flip else found
        if scale != 1:
            found = interpolate(found, size=(height, width), mode="bilinear")
        total += found.softmax(dim=1)
    return (total / len(seen)).clamp(min=torch.finfo(total.dtype).tiny).log()
