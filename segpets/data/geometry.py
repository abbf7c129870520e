"""The place of a whole picture within what a net sees, and the way back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from segpets.data.source import Mask
from segpets.labels import IGNORE_INDEX

Size = tuple[int, int]
"""Height and width in pixels."""

Fit = Literal["stretch", "letterbox", "shorter", "none"]

SMALLEST: Final = 32
"""The least height and width of what a net sees; smaller pictures are padded."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """A resized picture on a canvas.

    Attributes:
        height: Of the resized picture.
        width: Of the resized picture.
        top: Rows of padding above it.
        left: Columns of padding before it.
        canvas: Height and width of what the net sees.
    """

    height: int
    width: int
    top: int
    left: int
    canvas: tuple[int, int]

    @property
    def is_padded(self) -> bool:
        """True if the canvas is larger than the picture."""
        return (self.height, self.width) != self.canvas

    def inside(self, values: Tensor) -> Tensor:
        """Cuts the picture, (..., height, width), out of its canvas, (..., H, W)."""
        rows = slice(self.top, self.top + self.height)
        return values[..., rows, self.left : self.left + self.width]

    def padded(self, image: Tensor) -> Tensor:
        """Puts an image, (..., height, width), on its canvas, (..., H, W), of zeros."""
        return pad(image, self._margins()) if self.is_padded else image

    def fitted(self, ids: Mask) -> Mask:
        """Resizes class ids by nearest neighbour; the padding has no class."""
        if ids.shape != (self.height, self.width):
            size = (self.width, self.height)
            ids = np.asarray(Image.fromarray(ids).resize(size, Image.Resampling.NEAREST)).copy()
        if not self.is_padded:
            return ids
        margins = self._margins()
        return np.pad(ids, (margins[2:], margins[:2]), constant_values=IGNORE_INDEX)

    def _margins(self) -> tuple[int, int, int, int]:
        high, wide = self.canvas
        right, bottom = wide - self.left - self.width, high - self.top - self.height
        return self.left, right, self.top, bottom


def place(picture: Size, size: Size, fit: Fit) -> Geometry:
    """Places a picture.

    Args:
        picture: Its height and width.
        size: `data.size`.
        fit: `stretch` resizes to `size`. `letterbox` keeps the shape and pads evenly. `shorter`
            resizes the shorter side to the smaller of `size`, and `none` nothing.
    """
    height, width = picture
    if fit == "stretch":
        return Geometry(*size, 0, 0, size)
    scale = {
        "letterbox": min(size[0] / height, size[1] / width),
        "shorter": min(size) / min(height, width),
        "none": 1.0,
    }[fit]
    high, wide = max(1, round(scale * height)), max(1, round(scale * width))
    canvas = size if fit == "letterbox" else (max(high, SMALLEST), max(wide, SMALLEST))
    high, wide = min(high, canvas[0]), min(wide, canvas[1])
    return Geometry(high, wide, (canvas[0] - high) // 2, (canvas[1] - wide) // 2, canvas)


def as_size(size: Any) -> Size:
    """Reads `data.size`: one number for both sides, or height and width."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)


def as_size_or_none(size: Any) -> Size | None:
    """Does what `as_size` does; None stays None."""
    return None if size is None else as_size(size)


def trained_size(data: Mapping[str, Any]) -> Size:
    """Returns height and width of the images that a net is trained on: the crop, or the size."""
    return as_size(net_size(data["size"], data.get("crop")))


def sides(size: Any) -> Any:
    """Returns height and width, of one number for both or of the two; a resolver of conf/."""
    try:
        return [*as_size(size)]
    except (TypeError, ValueError):
        return size  # whoever else takes it says what is wrong with it


def crop_ratios(size: Any, low: float, high: float) -> list[float]:
    """Returns ratios of width to height for crops like the images; a resolver of conf/.

    Args:
        size: Of the images, one number or height and width.
        low: How much narrower than an image a crop may be.
        high: How much wider.
    """
    try:
        height, width = as_size(size)
        return [low * width / height, high * width / height]
    except (TypeError, ValueError, ZeroDivisionError):
        return [low, high]


def net_size(size: Any, crop: Any = None) -> Any:
    """Chooses the value for a net that must know its size; a resolver of conf/."""
    return size if crop is None else crop


def channel_statistics(kind: str, channels: int) -> list[float]:
    """Returns mean or standard deviation of channels in [0, 1]; a resolver of conf/.

    Those of ImageNet for RGB, and their average for grey; 0.5 and 0.25 for other channels.
    """
    known = {
        "mean": {1: [0.449], 3: [0.485, 0.456, 0.406]},
        "std": {1: [0.226], 3: [0.229, 0.224, 0.225]},
    }
    return known[kind].get(channels, [{"mean": 0.5, "std": 0.25}[kind]] * channels)


def by(size: Size) -> str:
    """Writes height and width as `256x512`."""
    return f"{size[0]}x{size[1]}"


def common(sizes: list[Size]) -> Size:
    """Finds the least height and width that hold all of some sizes."""
    return max(height for height, _ in sizes), max(width for _, width in sizes)


def stacked(images: list[Tensor], *, value: int = 0) -> Tensor:
    """Stacks images, (..., h, w), of perhaps different sizes, padded below and to the right."""
    high, wide = common([(image.shape[-2], image.shape[-1]) for image in images])
    return torch.stack(
        [
            pad(image, (0, wide - image.shape[-1], 0, high - image.shape[-2]), value=value)
            for image in images
        ]
    )
