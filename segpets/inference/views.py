"""Test-time augmentation: a model's probabilities, averaged over several views of an image."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segpets.data.geometry import SMALLEST
from segpets.errors import UserError
from segpets.inference.decision import as_bias, check_weights
from segpets.inference.trained import Trained

log = logging.getLogger(__name__)

FLIP: Final = "flip"
_LARGEST_SCALE: Final = 4.0

View = tuple[float, bool]
"""A scale, and whether left and right change places."""


def views(words: Sequence[object], size: int | None) -> list[View]:
    """Lists the views that test-time augmentation averages over, the unchanged image first.

    Args:
        words: `flip` and scales, such as 0.75; the scale 1 is always among them. With `flip`, each
            scale is seen both ways.
        size: The smaller of height and width of the images in pixels; None if it isn't known.

    Raises:
        UserError: A word is neither of these, or a scale makes images too small or too large.
    """
    scales = [1.0]
    for word in words:
        if word == FLIP:
            continue
        if isinstance(word, bool) or not isinstance(word, int | float):
            raise UserError(f"tta={word} is unknown: choose flip, and scales such as 0.75 or 1.25")
        least = 1 / _LARGEST_SCALE if size is None else SMALLEST / size
        if not least <= word <= _LARGEST_SCALE:
            of, leaves = f" of {size} pixels", f", which leaves {SMALLEST} pixels,"
            raise UserError(
                f"tta={word} makes images{of if size else ''} too small or too large: choose a "
                f"scale from {least:.3g}{leaves if size else ''} to {_LARGEST_SCALE:g}"
            )
        if float(word) not in scales:
            scales.append(float(word))
    ways = (False, True) if FLIP in words else (False,)
    return [(scale, flip) for scale in scales for flip in ways]


@dataclass(frozen=True)
class Viewing(Trained):
    """A trained model whose probabilities are averaged over several views.

    Attributes:
        views: The views, the images as they are first.
        decide: Weights of the classes, which the averages carry, not each view.
    """

    views: tuple[View, ...] = ()

    def logits(self, images: Tensor) -> Tensor:
        """Computes logarithms of the averages, float32 (B, K, H, W), on the CPU."""
        images, plain = images.cpu(), super().logits
        logits = averaged(plain, images, plain(images).cpu(), self.views)
        return logits + as_bias(self.decide).view(-1, 1, 1) if self.decide else logits


def viewing(
    trained: Trained, words: Sequence[object], size: int | None, weights: Sequence[float] | None
) -> Viewing:
    """Returns a model that averages over views, and then weighs the classes.

    Args:
        trained: The model, without decision weights of its own.
        words: Views, as `views` takes them.
        size: The smaller of height and width in pixels that the net is given; None if it isn't
            known.
        weights: Those of the classes; None leaves the averages as they are.

    Raises:
        UserError: A word names no view, or the weights don't fit the classes.
    """
    if weights is not None:
        check_weights(weights, trained.classes)
    seen = tuple(views(words, size))
    log.info("%d views of each picture are averaged, and cost as much together", len(seen))
    own = {field.name: getattr(trained, field.name) for field in fields(Trained)}
    return Viewing(**own | {"views": seen, "decide": tuple(weights or ())})


def averaged(
    plain: Callable[[Tensor], Tensor], images: Tensor, logits: Tensor, seen: Sequence[View]
) -> Tensor:
    """Averages the probabilities over several views, none of which has a side below 32 pixels.

    Args:
        plain: Maps images to a model's logits.
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
            least = SMALLEST / min(height, width)
            size = tuple(round(side * max(scale, least)) for side in (height, width))
            shown = interpolate(shown, size=size, mode="bilinear", antialias=True)
        found = plain(shown.flip(-1) if flip else shown).cpu()
        found = found.flip(-1) if flip else found
        if scale != 1:
            found = interpolate(found, size=(height, width), mode="bilinear")
        total += found.softmax(dim=1)
    return (total / len(seen)).clamp(min=torch.finfo(total.dtype).tiny).log()
