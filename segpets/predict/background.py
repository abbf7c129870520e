"""Backdrops of composites: a blur, a colour, a picture, or nothing new."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import torch
from PIL import Image, ImageColor, ImageFilter
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d

from segpets.data.geometry import SMALLEST
from segpets.data.picture import Picture
from segpets.data.reader import Reader
from segpets.errors import UserError
from segpets.inference.picture import MAX_PIXELS, read_picture

BLUR: Final = 0.02
"""The blur's radius, in parts of the longer side."""

_SMALL = 512
"""The longer side in pixels at which surroundings are computed; they are smooth."""


class Backdrop(Protocol):
    """The backdrop of a composite."""

    def strip(self, top: int, bottom: int) -> Image.Image:
        """Returns some of its rows, RGB, as wide as the picture."""


@dataclass(frozen=True)
class Colour:
    """One colour, for a picture of a width."""

    rgb: tuple[int, int, int]
    width: int

    def strip(self, top: int, bottom: int) -> Image.Image:
        """Returns some rows."""
        return Image.new("RGB", (self.width, bottom - top), self.rgb)


@dataclass(frozen=True)
class Stretched:
    """A part of an image, enlarged or shrunk to height and width of a picture.

    Attributes:
        image: RGB.
        box: Left, upper, right and lower edge of the part.
        size: Height and width of the picture.
    """

    image: Image.Image
    box: tuple[float, float, float, float]
    size: tuple[int, int]

    def strip(self, top: int, bottom: int) -> Image.Image:
        """Returns some rows."""
        left, upper, right, lower = self.box
        scale = (lower - upper) / self.size[0]
        box = (left, upper + top * scale, right, upper + bottom * scale)
        return self.image.resize((self.size[1], bottom - top), Image.Resampling.BILINEAR, box=box)


@dataclass(frozen=True)
class Emptied:
    """The picture itself, with its foreground covered by what surrounds it."""

    picture: Picture
    surroundings: Stretched
    hidden: Stretched

    def strip(self, top: int, bottom: int) -> Image.Image:
        """Returns some rows."""
        return Image.composite(
            self.surroundings.strip(top, bottom),
            self.picture.strip(top, bottom),
            self.hidden.strip(top, bottom),
        )


@dataclass(frozen=True)
class Background:
    """The value of `background=`; all of it None is the picture's own.

    Attributes:
        blur: Whether the picture's own is blurred.
        rgb: A colour.
        image: A picture.
    """

    blur: bool = False
    rgb: tuple[int, int, int] | None = None
    image: Image.Image | None = None

    def behind(self, picture: Picture, alpha: Image.Image) -> Backdrop:
        """Makes the backdrop of a picture."""
        height, width = picture.size
        if self.rgb is not None:
            return Colour(self.rgb, width)
        if self.image is not None:
            # As large as it may be inside the image, in the middle.
            scale = min(self.image.width / width, self.image.height / height)
            wide = min(scale * width, self.image.width)  # rounding may make it larger
            high = min(scale * height, self.image.height)
            x, y = (self.image.width - wide) / 2, (self.image.height - high) / 2
            box = (x, y, x + wide, y + high)
            return Stretched(self.image, box, picture.size)
        small, weight = _small(picture, alpha)
        around = _as_image(filled(small, weight))
        box = (0, 0, around.width, around.height)
        if self.blur:
            radius = BLUR * max(around.size)
            return Stretched(around.filter(ImageFilter.GaussianBlur(radius)), box, picture.size)
        hidden = _as_image(1 - weight).convert("L")
        return Emptied(
            picture,
            Stretched(around, box, picture.size),
            Stretched(hidden, box, picture.size),
        )


def read_background(value: object, *, max_pixels: int = MAX_PIXELS) -> Background:
    """Reads what `background=` says: null, blur, a colour or a picture's file.

    Raises:
        UserError: It is none of these, or the file can't be used.
    """
    if value is None:
        return Background()
    if isinstance(value, float):
        raise UserError(
            f"background={value} is a number to Hydra: quote the colour, \"background='#123e45'\""
        )
    # Hydra parses 112233 as a number.
    text = f"{value:06d}" if isinstance(value, int) else str(value)
    if text == "blur":
        return Background(blur=True)
    if re.fullmatch(r"[0-9a-fA-F]{3}|[0-9a-fA-F]{6}", text):
        text = f"#{text}"
    try:
        red, green, blue, *_ = ImageColor.getrgb(text)
        return Background(rgb=(red, green, blue))
    except ValueError:
        path = Path(text).expanduser()
    if not path.is_file():
        raise UserError(
            f"background={value} is neither blur, nor a colour such as green, 00ff00 or "
            f"\"'#00ff00'\", nor a file: there is no {path.absolute()}"
        )
    picture = read_picture([path], Reader((SMALLEST, SMALLEST)), max_pixels=max_pixels)
    return Background(image=picture.strip(0, picture.size[0]))


def _small(picture: Picture, alpha: Image.Image) -> tuple[Tensor, Tensor]:
    """Shrinks a picture to float (3, h, w) in 0 to 1, with its share of background, (1, h, w)."""
    scale = min(1.0, _SMALL / max(picture.size))
    height, width = (max(1, round(scale * length)) for length in picture.size)
    small = picture.seen((height, width))
    shrunk = alpha.resize((width, height), Image.Resampling.BOX, reducing_gap=2.0)
    opaque = torch.frombuffer(bytearray(shrunk.tobytes()), dtype=torch.uint8)
    opaque = opaque.view(1, height, width).float() / 255
    margin = max(1, round(0.01 * max(height, width)))  # hair and shadow at the edge
    return small, 1 - max_pool2d(opaque, 2 * margin + 1, stride=1, padding=margin)


def filled(image: Tensor, weight: Tensor) -> Tensor:
    """Fills the unknown part of an image from the known, ever more smoothly further inside.

    A pyramid of averages, as in M. Kraus, "The Pull-Push Algorithm Revisited" (2009).

    Args:
        image: float (3, h, w).
        weight: The degree to which each pixel is known, from 0 to 1, (1, h, w).

    Returns:
        float (3, h, w): `image` where the weight is 1; grey if nothing is known.
    """
    height, width = image.shape[1:]
    if max(height, width) == 1:
        return image.lerp(torch.full_like(image, 0.5), 1 - weight)
    kernel = (min(2, height), min(2, width))
    known = avg_pool2d(weight, kernel, ceil_mode=True)
    sums = avg_pool2d(image * weight, kernel, ceil_mode=True)
    coarse = filled(sums / known.clamp(min=1e-6), (4 * known).clamp(max=1))
    beyond = interpolate(coarse[None], size=(height, width), mode="bilinear")[0]
    return beyond.lerp(image, weight)


def _as_image(values: Tensor) -> Image.Image:
    """Converts float (3 or 1, h, w) in 0 to 1 to RGB."""
    pixels = (255 * values).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(pixels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
