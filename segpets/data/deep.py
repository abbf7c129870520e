"""Pixels of any number of bits and bands: NumPy's files, and pictures of 16 bits.

Pillow reads what has 8 bits and up to four bands, and one band of more bits. For the rest there is
OpenCV, and tifffile in `segpets.data.tiff`. All give (H, W, C) of the file's own type, and none is
given a file before its size is known to be bounded.
"""

import io
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segpets.errors import FileError
from segpets.reading import in_one_line, open_regular, read_bytes, read_start

Values = NDArray[Any]
"""Of any integer or floating type."""

MAX_VALUES: Final = 1 << 28
"""Pixels times bands that a file may claim: 1 GB of 32 bits each."""

LARGEST_FILE: Final = 2_000_000_000
KINDS: Final = "uif"
"""NumPy's letters of the types that pixels have."""

Box = tuple[int, int, int, int]
"""A part of a picture, which it contains: first row and column, height and width."""

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PNM: Final = (b"P2", b"P3", b"P5", b"P6")


def is_deep(start: bytes) -> bool:
    """Tells from a file's first bytes whether Pillow would read it with fewer bits than it has.

    Of a PNG of 16 bits and colours it reads the upper 8, and a PNM of up to 65,535 it rescales.
    """
    if start[:8] == _PNG:
        return start[24:25] == b"\x10" and start[25:26] != b"\0"
    return start[:2] in _PNM and _largest_of_pnm(start) > 255


def has_alpha(start: bytes) -> bool:
    """Tells from a PNG's first bytes whether its last channel is transparency."""
    return start[:8] == _PNG and start[25:26] in (b"\x04", b"\x06")


def _largest_of_pnm(start: bytes) -> int:
    """Reads the largest value of a PNM, the third number behind its name; 0 if there is none."""
    words: list[bytes] = []
    for line in start[2:].split(b"\n"):
        words += line.partition(b"#")[0].split()
        if len(words) > 2:
            return int(words[2]) if words[2].isdigit() and len(words[2]) < 6 else 0
    return 0


def as_bands(values: Values) -> Values:
    """Makes (H, W, bands) of (H, W), and 0 and 255 of bits."""
    if values.dtype.kind == "b":
        values = values.astype(np.uint8) * np.uint8(255)
    return values[:, :, None] if values.ndim == 2 else values


class Npy(NamedTuple):
    """The header of an array, (H, W), (H, W, C) or (C, H, W), which has fewer channels than rows.

    Attributes:
        path: The file.
        shape: Its shape as it is stored.
        dtype: The type of its values.
        begin: Where they begin.
        in_columns: True if they are stored column by column, as Fortran does.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    begin: int
    in_columns: bool

    @property
    def channels_first(self) -> bool:
        """True if it is (C, H, W)."""
        return len(self.shape) == 3 and self.shape[0] < min(self.shape[1:])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.shape[1:] if self.channels_first else self.shape[:2]
        return height, width

    @property
    def bands(self) -> int:
        """Values of a pixel."""
        return int(np.prod(self.shape)) // (self.size[0] * self.size[1])

    def read(self, box: Box | None = None) -> Values:
        """Reads it, or a part, (H, W, bands).

        Raises:
            FileError: It is shorter than it says.
        """
        try:
            values = self._whole() if box is None else self._part(*box)
        except Exception as error:  # of damaged bytes: anything
            raise _unreadable(self.path, error) from error
        return as_bands(np.moveaxis(values, 0, -1) if self.channels_first else values)

    def _whole(self) -> Values:
        length = self.begin + int(np.prod(self.shape)) * self.dtype.itemsize
        content = io.BytesIO(read_bytes(self.path, length))
        values: Values = np.load(content, allow_pickle=False, max_header_size=10_000)
        return values

    def _part(self, top: int, left: int, high: int, wide: int) -> Values:
        """Reads the rows of a part, of each channel, and cuts them."""
        height, width = self.size
        planes = self.shape[0] if self.channels_first else 1
        row = self.dtype.itemsize * int(np.prod(self.shape)) // (planes * height)
        rows = []
        with open_regular(self.path) as file:
            for plane in range(planes):
                file.seek(self.begin + (plane * height + top) * row)
                rows.append(np.frombuffer(file.read(high * row), self.dtype))
        shape = (high, width) if self.channels_first else (high, *self.shape[1:])
        parts = [part.reshape(shape)[:, left : left + wide] for part in rows]
        return np.stack(parts) if self.channels_first else parts[0]


def open_npy(path: Path) -> Npy:
    """Reads the header of an array.

    Raises:
        FileError: It is no array of pixels, or holds objects.
    """
    try:
        content = io.BytesIO(read_start(path, 12_000))
        version = np.lib.format.read_magic(content)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"it is of the version {version}")
        reads = np.lib.format
        read = reads.read_array_header_1_0 if version == (1, 0) else reads.read_array_header_2_0
        shape, in_columns, dtype = read(content, max_header_size=10_000)
        if dtype.hasobject or dtype.kind not in KINDS + "b":
            raise ValueError(f"it holds {dtype}")
        if len(shape) not in (2, 3) or not all(shape) or np.prod(shape, dtype=float) > MAX_VALUES:
            raise ValueError(f"its shape is {shape}, not (H, W), (H, W, C) or (C, H, W)")
    except Exception as error:  # of damaged bytes: anything
        raise _unreadable(path, error) from error
    return Npy(path, shape, dtype, content.tell(), in_columns)


def _unreadable(path: Path, error: Exception) -> FileError:
    remedy = "save it by numpy.save as one array of numbers"
    return FileError(path, f"can't be read ({in_one_line(error)})", remedy)


def read_deep(path: Path, *, grey_alpha: bool) -> Values:
    """Reads a PNG or PNM of 16 bits, with alpha if it has some.

    Args:
        path: The file.
        grey_alpha: Whether it holds grey and alpha, which OpenCV gives as four channels.

    Raises:
        FileError: It can't be decoded.
    """
    import cv2  # takes a tenth of a second, and few files need it

    content = np.frombuffer(read_bytes(path, LARGEST_FILE), dtype=np.uint8)
    values = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if values is None:
        raise FileError(path, "can't be decoded", "replace it")
    if values.ndim == 2:
        return values[:, :, None]
    # OpenCV's order is blue, green, red, alpha.
    order = [0, 3] if grey_alpha and values.shape[2] == 4 else [2, 1, 0, 3][: values.shape[2]]
    return np.ascontiguousarray(values[:, :, order])


def mask_of_array(file: Path) -> Image.Image:
    """Reads a mask of whole numbers, (H, W).

    Raises:
        FileError: It is none.
    """
    values = open_npy(file).read()
    if values.shape[2] != 1 or values.dtype.kind not in "ui":
        raise FileError(
            file,
            f"is a mask of {values.dtype} with {values.shape[2]} channels",
            "save whole numbers, (H, W)",
        )
    wide = values[:, :, 0]
    low, high = int(wide.min()), int(wide.max())
    if low < -(2**31) or high >= 2**31:
        raise FileError(file, f"is a mask with values of {low} to {high}", "save class ids")
    return Image.fromarray(wide if wide.dtype == np.uint8 else wide.astype(np.int32))
