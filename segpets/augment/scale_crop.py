"""Random scale and crop, the way that scenes are trained on: pieces of pictures, judged whole."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from segpets.labels import IGNORE_INDEX


class ScaleCrop(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """Cuts out a piece whose size is drawn, and resizes it to one size.

    The same as scaling the whole picture by a factor and cropping it then, but only the piece is
    resized. Where the piece is larger than the picture, the rest is black, and 255 in the mask.

    Args:
        size: Height and width of the result, or one number for both.
        scale: The least and the largest factor; drawn uniformly.
        rare: The probability that the piece must hold a pixel of a class that is drawn among those
            of the mask, each with a weight of one over its pixels.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        scale: Sequence[float] = (0.5, 2.0),
        rare: float = 0.0,
    ) -> None:
        super().__init__()
        self.size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        low, high = map(float, scale)
        if not 0 < low <= high:
            raise ValueError(f"scale=[{low:g},{high:g}] needs a small and a larger factor above 0")
        if not 0 <= rare <= 1:
            raise ValueError(f"rare={rare:g} is a probability, from 0 to 1")
        self.scale, self.rare = (low, high), rare

    def box(self, mask: Tensor) -> tuple[int, int, int, int]:
        """Draws the piece: its first row and column, height and width; it may reach beyond."""
        height, width = mask.shape[-2:]
        factor = self.scale[0] + (self.scale[1] - self.scale[0]) * _uniform()
        high, wide = (max(1, round(side / factor)) for side in self.size)
        point = _pixel_of_a_rare_class(mask) if _uniform() < self.rare else None
        return (
            _start(height, high, None if point is None else point[0]),
            _start(width, wide, None if point is None else point[1]),
            high,
            wide,
        )

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the piece of image and mask."""
        mask = next(one for one in flat_inputs if isinstance(one, tv_tensors.Mask))
        return {"box": self.box(mask)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Cuts and resizes an image, or a mask by nearest neighbour."""
        top, left, high, wide = params["box"]
        height, width = inpt.shape[-2:]
        upper, first = max(top, 0), max(left, 0)
        lower, last = min(top + high, height), min(left + wide, width)
        # A copy, as what follows may work in place, and a piece of its final size isn't resized.
        piece = F.crop(inpt, upper, first, lower - upper, last - first).clone()
        is_mask = isinstance(inpt, tv_tensors.Mask)
        margins = [first - left, upper - top, left + wide - last, top + high - lower]
        if any(margins):
            piece = F.pad(piece, margins, fill=IGNORE_INDEX if is_mask else 0)
        if is_mask:
            return F.resize(
                piece, list(self.size), interpolation=v2.InterpolationMode.NEAREST_EXACT
            )
        return F.resize(piece, list(self.size), antialias=True)


def _uniform() -> float:
    return float(torch.rand(()))


def _start(length: int, piece: int, inside: int | None) -> int:
    """Draws where a piece begins along one axis; with a pixel given, the piece holds it."""
    low, high = min(0, length - piece), max(0, length - piece)
    if inside is not None:
        low, high = max(low, inside - piece + 1), min(high, inside)
    return int(torch.randint(low, high + 1, ()))


def _pixel_of_a_rare_class(mask: Tensor) -> tuple[int, int] | None:
    ids = mask.as_subclass(Tensor).flatten()
    counts = ids.bincount(minlength=256)
    counts[IGNORE_INDEX] = 0
    if not counts.any():
        return None
    weights = torch.where(counts > 0, 1 / counts.clamp(min=1), 0.0)
    chosen = int(torch.multinomial(weights, 1))
    places = torch.nonzero(ids == chosen).flatten()
    place = int(places[int(torch.randint(len(places), ()))])
    return place // mask.shape[-1], place % mask.shape[-1]
