"""Decoded pictures of any size, depth and number of bands, in bounded memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from segpets.data.decode import LARGE, to_rgb
from segpets.data.geometry import Fit, Geometry, Size, as_size, place
from segpets.errors import FileError

STRIP: Final = 1 << 20
"""Pixels of a strip."""

_GREY: Final = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as Pillow has it

_DARKEST: Final = 0.25  # of a range, what a picture of 8 bits must be able to reach

Pixels = Image.Image | NDArray[Any]
Exif = Literal["auto", "apply", "ignore"]
Pages = Literal["each", "channels"]


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules by which files become what a net sees.

    Attributes:
        size: Height and width of `data.size`.
        fit: How a picture is fitted to it; see `segpets.data.geometry.place`.
        channels: C.
        range: The values that become 0 and 1; None: pictures have 8 bits, and stay uint8.
        exif: `apply` turns pictures as their EXIF orientation wants it, and `ignore` doesn't.
            `auto` does, unless the size of the mask says that it lies as the pixels are stored.
        pages: What becomes of files with several pages or frames: `each` is a picture, or all
            are `channels` of one. None refuses them.
    """

    size: Size
    fit: Fit = "stretch"
    channels: int = 3
    range: tuple[float, float] | None = None
    exif: Exif = "auto"
    pages: Pages | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """Reads those of the group `data`; earlier versions had fewer keys."""
        limits = data.get("range")
        return cls(
            size=as_size(data["size"]),
            fit=data.get("fit", "stretch"),
            channels=data.get("channels", 3),
            range=None if limits is None else (float(limits[0]), float(limits[1])),
            exif=data.get("exif", "auto"),
            pages=data.get("pages"),
        )

    @property
    def is_uniform(self) -> bool:
        """True if all pictures get one size."""
        return self.fit in ("stretch", "letterbox")

    @property
    def dtype(self) -> torch.dtype:
        """The type of what a net sees: uint8, or float32 in [0, 1] where there is a range."""
        return torch.uint8 if self.range is None else torch.float32

    @property
    def white(self) -> float:
        """The largest value of that type, which stands for 1."""
        return 255.0 if self.range is None else 1.0


class DepthError(FileError):
    """A picture of more than 8 bits, for which no range is given.

    Args:
        file: The file.
        low: Its least value.
        high: Its largest value.
        others: The number of further files of that kind, whose values these are, too.
    """

    def __init__(self, file: Path, low: float, high: float, others: int = 0) -> None:
        low, high = _rounded(low), _rounded(high)
        hold = f"and {others} more hold" if others else "holds"
        super().__init__(
            file,
            f"{hold} values from {low:g} to {high:g}, more than 8 bits",
            f"say which become black and white, as in data.range=[{low:g},{max(high, low + 1):g}]",
        )
        self.low, self.high, self.others = low, high, others

    def __reduce__(self) -> tuple[type["DepthError"], tuple[Path, float, float, int]]:  # type: ignore[override]
        return type(self), (self.file, self.low, self.high, self.others)


class Picture:
    """A decoded picture.

    Args:
        pixels: Upright, of its file's own type, so that nothing is copied as a whole.
        path: Its source, for messages.
        reader: Says what its values mean.
        size: Height and width of the file; the pixels may be fewer. None: as many.

    Attributes:
        undecided: True if it was turned as its EXIF orientation wants it, though its mask could
            lie either way.
        turned: True if it was turned.
        clipped: The number of values outside of the range.
        lost_alpha: True if a fourth channel was left out that isn't the same everywhere.
    """

    def __init__(self, pixels: Pixels, path: Path, reader: Rules, size: Size | None = None) -> None:
        self.pixels, self.path, self.reader = pixels, path, reader
        self.size: Size = size or self._stored
        self.undecided = self.turned = self.lost_alpha = False
        self.clipped = 0

    @property
    def _stored(self) -> Size:
        if isinstance(self.pixels, Image.Image):
            return self.pixels.height, self.pixels.width
        return self.pixels.shape[0], self.pixels.shape[1]

    def rows(self, top: int, bottom: int) -> Tensor:
        """Returns some rows as the net takes them, (C, rows, W).

        Raises:
            FileError: It has other channels than `data.channels`.
        """
        reader, strip = self.reader, self._cut(top, bottom)
        if isinstance(strip, Image.Image):
            values = np.atleast_3d(np.asarray(self._banded(strip)))
        else:
            values = self._channels(strip)
        if reader.range is not None:
            values = self._in_range(values, *reader.range)
        elif values.dtype != np.uint8:
            raise DepthError(self.path, float(values.min()), float(values.max()))
        return torch.from_numpy(np.array(values, order="C")).permute(2, 0, 1)

    def strip(self, top: int, bottom: int) -> Image.Image:
        """Returns some rows as RGB of 8 bits, to be looked at.

        Raises:
            FileError: As `rows`.
        """
        strip = self._cut(top, bottom)
        if isinstance(strip, Image.Image):
            return to_rgb(strip, self.path)
        values = self.rows(top, bottom)[:3].permute(1, 2, 0)
        shown = values.numpy() if values.dtype == torch.uint8 else _as_bytes(values)
        grey = shown.shape[2] < 3
        return Image.fromarray(np.repeat(shown[:, :, :1], 3, axis=2) if grey else shown.copy())

    def resized(self, to: Size) -> Tensor:
        """Resizes it bilinearly with antialiasing: (C, *to)."""
        height, width = self._stored
        if (height, width) == to:
            return self.rows(0, height).contiguous()
        rows = strip_rows(width) if height * width > LARGE else height
        narrow = []
        for top, bottom in strips(height, rows):  # to its width in strips, then to its height
            between = to if rows >= height else (bottom - top, to[1])
            strip = self.rows(top, bottom)[None]
            # At most 1 of 255 away from Pillow's own, in a quarter of the time.
            narrow.append(interpolate(strip, size=between, mode="bilinear", antialias=True))
        resized = torch.cat(narrow, dim=2)
        if rows < height:
            resized = interpolate(resized, size=to, mode="bilinear", antialias=True)
        return resized[0].contiguous()

    def seen(self, to: Size) -> Tensor:
        """Resizes it as RGB to be looked at, float32 in 0 to 1, (3, *to)."""
        values = self.resized(to).float() / self.reader.white
        return values[:3] if len(values) > 2 else values[:1].expand(3, -1, -1)

    def fitted(self) -> Tensor:
        """Returns all of it as the net sees it, (C, H, W); see `geometry`."""
        geometry, self.clipped = self.geometry, 0
        return geometry.padded(self.resized((geometry.height, geometry.width)))

    @property
    def geometry(self) -> Geometry:
        """Its place within what the net sees."""
        return place(self.size, self.reader.size, self.reader.fit)

    def _cut(self, top: int, bottom: int) -> Pixels:
        if not isinstance(self.pixels, Image.Image):
            return self.pixels[top:bottom]
        whole = (top, bottom) == (0, self.pixels.height)
        return self.pixels if whole else self.pixels.crop((0, top, self.pixels.width, bottom))

    def _banded(self, image: Image.Image) -> Image.Image:
        wanted = self.reader.channels
        if wanted in (1, 3):
            self._note_alpha(image)
            rgb = to_rgb(image, self.path)
            return rgb if wanted == 3 else image if image.mode == "L" else rgb.convert("L")
        if image.mode == "P":
            image = image.convert("RGBA" if "transparency" in image.info else "RGB")
        if len(image.getbands()) != wanted:
            raise other_channels(self.path, len(image.getbands()), wanted)
        return image

    def _note_alpha(self, image: Image.Image) -> None:
        if image.mode in ("RGBA", "RGBX", "LA", "PA"):
            low, high = image.getchannel(len(image.getbands()) - 1).getextrema()
            self.lost_alpha = self.lost_alpha or low != high

    def _channels(self, values: NDArray[Any]) -> NDArray[Any]:
        """Chooses the bands of an array, (H, W, bands), as far as that loses nothing in silence."""
        wanted, bands = self.reader.channels, values.shape[2]
        if bands == wanted:
            return values
        if wanted == 3 and bands == 1:
            return np.repeat(values, 3, axis=2)
        if wanted == 1 and bands == 3:
            grey: NDArray[Any] = (values.astype(np.float32) @ _GREY)[:, :, None]
            return grey.round().astype(values.dtype) if values.dtype.kind in "iu" else grey
        raise other_channels(self.path, bands, wanted)

    def _in_range(self, values: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
        """Maps a range to [0, 1], and counts what is outside."""
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).sum())
            raise FileError(
                self.path,
                f"holds {bad:,} values that are NaN or infinite",
                "replace them by a number; in its mask, their pixels can be ignored",
            )
        if values.dtype == np.uint8 and (255 - low) / (high - low) < _DARKEST:
            raise FileError(
                self.path,
                f"has 8 bits, and its white would be nearly black in the range {low:g} to {high:g}",
                "convert it to the depth of the pictures that the range is for",
            )
        self.clipped += int(((values < low) | (values > high)).sum())
        scaled = (values.astype(np.float32) - np.float32(low)) / np.float32(high - low)
        return scaled.clip(0, 1)


def other_channels(file: Path, bands: int, wanted: int) -> FileError:
    """Makes the error of a file with other channels than `data.channels`."""
    return FileError(
        file,
        f"has {bands} channels, but data.channels={wanted}",
        f"store it with {wanted}, or train with data.channels={bands}",
    )


def _as_bytes(values: Tensor) -> NDArray[np.uint8]:
    return (values * 255).round().to(torch.uint8).numpy()


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def strip_rows(width: int) -> int:
    """Computes how many rows of a picture make a strip."""
    return max(1, STRIP // width)


def strips(height: int, rows: int) -> Iterator[tuple[int, int]]:
    """Yields the first row of each strip, and the one after its last."""
    for top in range(0, height, rows):
        yield top, min(top + rows, height)
