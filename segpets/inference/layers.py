"""Turns logits into what is drawn: class ids, and the opacity of the foreground."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segpets.data.reader import Reader
from segpets.inference.logits import enlarged, largest


class Net(Protocol):
    """A model that predicts, such as `segpets.inference.trained.Trained`."""

    @property
    def reader(self) -> Reader:
        """The rules by which it sees pictures."""

    @property
    def window(self) -> tuple[int, int] | None:
        """Height and width of the windows by which it predicts; None predicts at once."""

    @property
    def stride(self) -> int:
        """The multiple to which it pads height and width."""

    def logits(self, images: Tensor) -> Tensor:
        """Maps uint8, or float32 in [0, 1], (B, C, H, W) to float32 (B, K, H, W)."""


@dataclass(frozen=True)
class Layers:
    """The prediction of a picture, at its size.

    Attributes:
        ids: Class ids, (H, W).
        alpha: The opacity of the foreground, 0 to 255, (H, W), if requested: above 127 exactly
            where the class is one of the foreground, and soft at the edge.
        confidence: The mean of the largest probability.
        shares: The part of the pixels that each class has.
    """

    ids: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None
    confidence: float
    shares: tuple[float, ...]


def whole_layers(
    logits: Tensor, size: tuple[int, int], *, foreground: Sequence[bool] | None = None
) -> Layers:
    """Enlarges the logits, (C, h, w), of a whole picture to its height and width, in strips."""
    total, count = _certainty(logits)
    return _collected(enlarged(logits, size), size, foreground, total / count)


def collected(
    strips: Iterable[tuple[int, Tensor]],
    size: tuple[int, int],
    *,
    foreground: Sequence[bool] | None = None,
) -> Layers:
    """Collects strips of logits.

    Args:
        strips: The first row, and logits (C, rows, W), of each.
        size: Height and width of the picture.
        foreground: For each class whether it belongs to it; None computes no opacity.
    """
    return _collected(strips, size, foreground, None)


def _collected(
    strips: Iterable[tuple[int, Tensor]],
    size: tuple[int, int],
    foreground: Sequence[bool] | None,
    confidence: float | None,
) -> Layers:
    ids = np.empty(size, dtype=np.uint8)
    alpha = None if foreground is None else np.empty(size, dtype=np.uint8)
    total, count = 0.0, 0
    counts: Tensor | int = 0
    for top, strip in strips:
        rows = slice(top, top + strip.shape[1])
        best = largest(strip)
        ids[rows] = best.numpy()
        counts = counts + best.flatten().bincount(minlength=len(strip))
        if alpha is not None and foreground is not None:
            alpha[rows] = opacity(strip, foreground).numpy()
        if confidence is None:
            more, pixels = _certainty(strip)
            total, count = total + more, count + pixels
    shares = (torch.as_tensor(counts).double() / ids.size).tolist()
    return Layers(ids, alpha, total / count if confidence is None else confidence, tuple(shares))


def opacity(logits: Tensor, foreground: Sequence[bool]) -> Tensor:
    """Computes how far each pixel belongs to the foreground.

    The logistic function of the best logit of the foreground less the best of the others, with its
    contrast raised fourfold: what is less likely than 3/8 is clear, than 5/8 or more opaque.

    Args:
        logits: float32 (C, ...).
        foreground: For each class whether it belongs to it.

    Returns:
        uint8 (...), at least 128 where the largest logit is of the foreground, else at most 127.
    """
    inside = torch.tensor(foreground, device=logits.device)
    if inside.all() or not inside.any():
        return torch.full(logits.shape[1:], 255 * int(inside[0]), dtype=torch.uint8)
    margin = logits[inside].amax(dim=0) - logits[~inside].amax(dim=0)
    alpha = 255 * (4 * torch.sigmoid(margin) - 1.5).clamp(0, 1)
    # Rounded away from the middle, so that the two sides of the edge stay apart.
    return torch.where(margin > 0, alpha.ceil().clamp(min=128), alpha.floor()).to(torch.uint8)


def _certainty(logits: Tensor) -> tuple[float, int]:
    """Sums the largest probabilities of logits (C, H, W), and counts the pixels."""
    largest = 1 / (logits - logits.amax(dim=0)).exp().sum(dim=0)
    return float(largest.sum(dtype=torch.float64)), largest.numel()
