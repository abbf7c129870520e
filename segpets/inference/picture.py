"""Pictures of any size, orientation and type, in bounded memory."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from segpets.data.decode import DRAFT, LARGE, alone, load, open_image, to_rgb
from segpets.errors import FileError

log = logging.getLogger(__name__)

MAX_PIXELS: Final = 178_956_970
"""What a file may claim; from there on, Pillow refuses by itself to open it. Decoded, 716 MB."""

STRIP: Final = 1 << 20
"""Pixels of a strip."""

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture as EXIF's orientation wants it."""

_ON_ITS_SIDE = (5, 6, 7, 8)


@dataclass(frozen=True)
class Picture:
    """A decoded picture, as displayed.

    Attributes:
        image: Upright, of its file's own type, so that nothing is copied as a whole.
        path: Its source, for messages.
    """

    image: Image.Image
    path: Path

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.height, self.image.width

    def strip(self, top: int, bottom: int) -> Image.Image:
        """Returns some rows as RGB.

        Raises:
            FileError: Its pixels are of a type that has no place in 0 to 255.
        """
        whole = (top, bottom) == (0, self.image.height)
        strip = self.image if whole else self.image.crop((0, top, self.image.width, bottom))
        return to_rgb(strip, self.path)

    def rows(self, top: int, bottom: int) -> Tensor:
        """Returns some rows as uint8 RGB, (3, rows, W)."""
        return torch.from_numpy(np.array(self.strip(top, bottom))).permute(2, 0, 1)

    def resized(self, to: tuple[int, int]) -> Tensor:
        """Resizes it as a training does, bilinear with antialiasing: uint8 (3, *to)."""
        height, width = self.size
        if (height, width) == to:
            return self.rows(0, height).contiguous()
        rows = strip_rows(width) if height * width > LARGE else height
        narrow = []
        for top, bottom in strips(height, rows):  # to its width in strips, then to its height
            between = to if rows >= height else (bottom - top, to[1])
            strip = self.rows(top, bottom)[None]
            narrow.append(interpolate(strip, size=between, mode="bilinear", antialias=True))
        resized = torch.cat(narrow, dim=2)
        if rows < height:
            resized = interpolate(resized, size=to, mode="bilinear", antialias=True)
        return resized[0].contiguous()


@contextmanager
def claiming(max_pixels: int) -> Iterator[None]:
    """Lets Pillow also open files with this many pixels."""
    before = Image.MAX_IMAGE_PIXELS
    if before is not None:
        Image.MAX_IMAGE_PIXELS = max(before, max_pixels)
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def strip_rows(width: int) -> int:
    """Computes how many rows of a picture make a strip."""
    return max(1, STRIP // width)


def strips(height: int, rows: int) -> Iterator[tuple[int, int]]:
    """Yields the first row of each strip, and the one after its last."""
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def read_picture(path: Path, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decodes a file whole.

    Raises:
        FileError: It is truncated, not an image, or claims more than `max_pixels`.
    """
    with open_image(path, max_pixels=max_pixels) as image:
        return Picture(upright(load(image, path)), path)


@contextmanager
def opened_alone(path: Path, *, max_pixels: int = MAX_PIXELS) -> Iterator[Picture]:
    """Decodes a file whole; meanwhile, no other large picture is worked on.

    Raises:
        FileError: It is truncated, not an image, or claims more than `max_pixels`.
    """
    with open_image(path, max_pixels=max_pixels) as image, alone(image.size):
        if _animated(image, path):
            log.warning("%s has several frames or pages: the first is predicted", path)
        yield Picture(upright(load(image, path)), path)


def read_shrunk(
    path: Path, size: int, *, max_pixels: int = MAX_PIXELS
) -> tuple[Tensor, tuple[int, int]]:
    """Decodes a file for the net, exactly as a training reads it, but upright.

    Returns:
        uint8 RGB (3, size, size), and height and width of the picture as displayed.

    Raises:
        FileError: It is truncated, not an image, or claims more than `max_pixels`.
    """
    with open_image(path, max_pixels=max_pixels) as image, alone(image.size):
        if _animated(image, path):
            log.warning("%s has several frames or pages: the first is predicted", path)
        width, height = image.size
        drafted = image.draft(None, (DRAFT * size, DRAFT * size)) is not None
        picture = Picture(upright(load(image, path)), path)
        if not drafted:
            return picture.resized((size, size)), picture.size
        turned = orientation(image) in _ON_ITS_SIDE
        return picture.resized((size, size)), (width, height) if turned else (height, width)


def upright(image: Image.Image) -> Image.Image:
    """Turns a decoded picture as its EXIF orientation says."""
    way = _UPRIGHT.get(orientation(image))
    return image if way is None else image.transpose(way)


def orientation(image: Image.Image) -> int:
    """Reads the EXIF orientation of a picture, 1 to 8; 1 where its data are damaged."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # of damaged bytes: anything
        return 1
    return value if isinstance(value, int) else 1


def _animated(image: Image.Image, path: Path) -> bool:
    """Tells whether a file has several frames; other views in a phone's photo don't count."""
    try:
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except Exception as error:
        raise FileError(path, f"can't be decoded ({error})", "replace it") from error
