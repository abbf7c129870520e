"""Pixels of any number of bits and bands: TIFF, NumPy's files, and pictures of 16 bits.

Pillow reads what has 8 bits and up to four bands, and one band of more bits. For the rest there is
tifffile, with imagecodecs for its compressions, and OpenCV. All give (H, W, C) of the file's own
type, and none is given a file before its size is known to be bounded.
"""

import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segpets.data.decode import SMALL_FILE, too_many_pixels
from segpets.errors import FileError
from segpets.reading import in_one_line, open_regular, read_bytes, read_start

Values = NDArray[Any]
"""Of any integer or floating type."""

MAX_VALUES: Final = 1 << 28
"""Pixels times bands that a file may claim: 1 GB of 32 bits each."""

LARGEST_FILE: Final = 2_000_000_000
MOST_PAGES: Final = 10_000

_TIFF: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PNM: Final = (b"P2", b"P3", b"P5", b"P6")
_BOUNDED: Final = {1, 5, 8, 32946, 32773, 34925, 50000}
"""Compressions that are decoded into memory of the size that the TIFF claims: none, LZW, deflate,
PackBits, LZMA and Zstandard. Others hold pictures with sizes of their own."""

_BYTES_OF_A_VALUE: Final = 16
_KINDS: Final = "uif"


def is_tiff(start: bytes) -> bool:
    """Tells from a file's first bytes whether it is a TIFF."""
    return start[:4] in _TIFF


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


def read_npy(path: Path) -> Values:
    """Reads an array, (H, W), (H, W, C) or (C, H, W), which has fewer channels than rows.

    Raises:
        FileError: It holds no such array, or objects.
    """
    try:
        shape, dtype, begin = _npy_header(io.BytesIO(read_start(path, 12_000)))
        if dtype.hasobject or dtype.kind not in _KINDS + "b":
            raise ValueError(f"it holds {dtype}")
        if len(shape) not in (2, 3) or not all(shape) or np.prod(shape, dtype=float) > MAX_VALUES:
            raise ValueError(f"its shape is {shape}, not (H, W), (H, W, C) or (C, H, W)")
        length = begin + int(np.prod(shape)) * dtype.itemsize
        content = io.BytesIO(read_bytes(path, length))
        values: Values = np.load(content, allow_pickle=False, max_header_size=10_000)
    except Exception as error:  # of damaged bytes: anything
        remedy = "save it by numpy.save as one array of numbers"
        raise FileError(path, f"can't be read ({in_one_line(error)})", remedy) from error
    if values.dtype.kind == "b":
        values = values.astype(np.uint8) * np.uint8(255)
    if values.ndim == 2:
        return values[:, :, None]
    return np.moveaxis(values, 0, -1) if values.shape[0] < min(values.shape[1:]) else values


def _npy_header(content: io.BytesIO) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    version = np.lib.format.read_magic(content)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"it is of the version {version}")
    reads = np.lib.format
    read = reads.read_array_header_1_0 if version == (1, 0) else reads.read_array_header_2_0
    shape, _, dtype = read(content, max_header_size=10_000)
    return shape, dtype, content.tell()


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


@dataclass(frozen=True)
class TiffPage:
    """A page, without its pixels.

    Attributes:
        frame: Its number in the file, in which smaller copies of pages count, too.
        size: Height and width in pixels.
        bands: Values of a pixel.
        dtype: Their type.
        turn: Its orientation, 1 to 8, as EXIF counts.
        plain_fourth: True if a fourth band is transparency, or black ink, as Pillow takes it.
    """

    frame: int
    size: tuple[int, int]
    bands: int
    dtype: np.dtype[Any]
    turn: int
    plain_fourth: bool


def tiff_pages(path: Path, max_pixels: int) -> list[TiffPage]:
    """Lists a TIFF's pages; smaller copies and masks of a page aren't any.

    Raises:
        FileError: It can't be read, or claims too much.
    """
    with _opened(path) as file:
        pages = [_described(path, page) for page in _pages(path, file)]
    if (most := max(page.size[0] * page.size[1] for page in pages)) > max_pixels:
        raise too_many_pixels(path, f"Image size ({most} pixels)", max_pixels)
    return pages


def _described(path: Path, page: Any) -> TiffPage:
    try:
        dtype, shape = page.dtype, page.shape
        if dtype is None or dtype.kind not in _KINDS + "b":
            raise ValueError(f"its values are of type {dtype}")
        if not all(shape):
            raise ValueError(f"it claims the shape {shape}")
        tag = page.tags.get(274)
        turn = tag.value if tag is not None and isinstance(tag.value, int) else 1
        size = int(page.imagelength), int(page.imagewidth)
        fourth = int(page.photometric) == 5 or any(int(e) in (1, 2) for e in page.extrasamples)
        return TiffPage(page.index, size, int(page.samplesperpixel), dtype, int(turn), fourth)
    except Exception as error:
        raise FileError(path, f"can't be read ({in_one_line(error)})", "replace it") from error


def read_tiff(path: Path, pages: Sequence[int]) -> Values:
    """Reads pages of a TIFF, and stacks their bands.

    Raises:
        FileError: It can't be decoded, claims too much, or its pages differ in size.
    """
    with _opened(path) as file:
        every = _pages(path, file)
        claimed = sum(np.prod(every[index].shape, dtype=float) for index in pages)
        if claimed > MAX_VALUES:
            remedy = "store fewer pages in a file"
            raise FileError(path, f"claims {claimed:,.0f} values in {len(pages)} pages", remedy)
        bands = [_page(path, every[index], index) for index in pages]
    if len({part.shape[:2] for part in bands}) > 1:
        odd = next(i for i, part in enumerate(bands) if part.shape[:2] != bands[0].shape[:2])
        raise FileError(
            path,
            f"has pages of different sizes: page {odd + 1} has "
            f"{bands[odd].shape[1]}x{bands[odd].shape[0]} pixels, the first "
            f"{bands[0].shape[1]}x{bands[0].shape[0]}",
            "store them as files of their own",
        )
    return bands[0] if len(bands) == 1 else np.concatenate(bands, axis=2)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Opens a TIFF; of a file that claims little, little is read."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it also reports what it can't read
    try:
        stream = open_regular(path)
    except OSError as error:
        raise FileError(path, f"can't be opened ({error})", "replace it") from error
    with stream:
        try:
            file = tifffile.TiffFile(stream, name=path.name)
        except Exception as error:
            reason = in_one_line(error)
            raise FileError(path, f"can't be opened ({reason})", "replace it") from error
        yield file


def _pages(path: Path, file: Any) -> list[Any]:
    try:
        pages = []
        for index, page in enumerate(file.pages):
            if index >= MOST_PAGES:
                raise ValueError(f"it has more than {MOST_PAGES:,} pages")
            full = page if hasattr(page, "is_reduced") else page.aspage()
            if not (full.is_reduced or full.is_mask):
                pages.append(full)
    except Exception as error:
        raise FileError(path, f"can't be read ({in_one_line(error)})", "replace it") from error
    if not pages:
        raise FileError(path, "has no page", "replace it")
    return pages


def _page(path: Path, page: Any, index: int) -> Values:
    _described(path, page)
    try:
        shape = page.shape
        count = np.prod(shape, dtype=float)
        if count > MAX_VALUES:
            raise ValueError(f"it claims the shape {shape}")
        if int(page.compression) not in _BOUNDED:
            raise ValueError(f"its compression is {page.compression!r}; store it with deflate")
        if sum(page.databytecounts) > SMALL_FILE + _BYTES_OF_A_VALUE * count:
            raise ValueError(f"{sum(page.databytecounts):,} bytes for {count:,.0f} values")
        tile = np.prod(getattr(page, "chunks", ()) or (1,), dtype=float)
        if tile > max(4 * np.prod(shape, dtype=float), 1 << 22):
            raise ValueError(f"its tiles have {tile:,.0f} values each")
        values: Values = page.asarray(maxworkers=1)
        values, axes = _with_meaning(page, values), page.axes
    except Exception as error:
        where = f"page {index + 1} " if index else ""
        raise FileError(
            path, f"can't be decoded ({where}{in_one_line(error)})", "replace it"
        ) from error
    if axes == "YX" and values.ndim == 2:
        values = values[:, :, None]
    elif axes == "SYX":
        values = np.moveaxis(values, 0, -1)
    elif axes not in ("YXS", "YX"):
        raise FileError(path, f"has the axes {axes}", "store rows, columns and bands only")
    if values.dtype.kind == "b":
        values = values.astype(np.uint8) * np.uint8(255)
    return values


def _with_meaning(page: Any, values: Values) -> Values:
    """Lets black be 0, and indices of a palette be colours of 8 bits, as Pillow does."""
    photometric = int(page.photometric)
    if photometric == 0 and values.dtype.kind == "u":  # white is 0
        return np.iinfo(values.dtype).max - values
    if photometric == 3 and page.colormap is not None and page.axes == "YX":
        colours = (np.asarray(page.colormap) >> 8).astype(np.uint8)  # (3, colours)
        return np.moveaxis(colours[:, values], 0, -1)
    return values


def mask_of_array(file: Path) -> Image.Image:
    """Reads a mask of whole numbers, (H, W).

    Raises:
        FileError: It is none.
    """
    values = read_npy(file)
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
