"""TIFF of any number of bits, bands and pages, whole or only the part that is wanted."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from segpets.data.decode import SMALL_FILE, check_parts, too_many_pixels
from segpets.data.deep import KINDS, MAX_VALUES, Box, Values, as_bands
from segpets.errors import FileError
from segpets.reading import in_one_line, open_regular

MOST_PAGES: Final = 10_000

_STARTS: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BOUNDED: Final = {1, 5, 8, 32946, 32773, 34925, 50000}
"""Compressions that are decoded into memory of the size that the TIFF claims: none, LZW, deflate,
PackBits, LZMA and Zstandard. Others hold pictures with sizes of their own."""

_BYTES_OF_A_VALUE: Final = 16


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
        in_parts: True if a part of it can be decoded, and its values mean the same to any reader.
    """

    frame: int
    size: tuple[int, int]
    bands: int
    dtype: np.dtype[Any]
    turn: int
    plain_fourth: bool
    in_parts: bool


class Tiff:
    """An opened TIFF.

    Args:
        path: The file, for messages.
        file: As tifffile opened it.
        max_pixels: What a page may claim.

    Attributes:
        pages: Its pages; smaller copies and masks of a page aren't any.

    Raises:
        FileError: It can't be read, or claims too much.
    """

    def __init__(self, path: Path, file: Any, max_pixels: int) -> None:
        self._path, self._pages = path, _pages(path, file)
        self.pages = [_described(path, page) for page in self._pages]
        if (most := max(page.size[0] * page.size[1] for page in self.pages)) > max_pixels:
            raise too_many_pixels(path, f"Image size ({most} pixels)", max_pixels)

    def read(self, pages: Sequence[int], box: Box | None = None) -> Values:
        """Reads pages, or a part of each, and stacks their bands: (H, W, bands).

        Raises:
            FileError: They can't be decoded, claim too much, or differ in size.
        """
        path = self._path
        claimed = sum(np.prod(self._pages[index].shape, dtype=float) for index in pages)
        if claimed > MAX_VALUES:
            remedy = "store fewer pages in a file"
            raise FileError(path, f"claims {claimed:,.0f} values in {len(pages)} pages", remedy)
        bands = [_values(path, self._pages[index], index, box) for index in pages]
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


def is_tiff(start: bytes) -> bool:
    """Tells from a file's first bytes whether it is a TIFF."""
    return start[:4] in _STARTS


@contextmanager
def open_tiff(path: Path, max_pixels: int) -> Iterator[Tiff]:
    """Opens a TIFF; of a file that claims little, little is read.

    Raises:
        FileError: It can't be read, or claims too much.
    """
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
        yield Tiff(path, file, max_pixels)


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


def _described(path: Path, page: Any) -> TiffPage:
    try:
        dtype, shape = page.dtype, page.shape
        if dtype is None or dtype.kind not in KINDS + "b":
            raise ValueError(f"its values are of type {dtype}")
        if not all(shape):
            raise ValueError(f"it claims the shape {shape}")
        tag = page.tags.get(274)
        turn = tag.value if tag is not None and isinstance(tag.value, int) else 1
        photometric = int(page.photometric)
        plain = photometric in (1, 2) and dtype.kind in KINDS
        return TiffPage(
            frame=page.index,
            size=(int(page.imagelength), int(page.imagewidth)),
            bands=int(page.samplesperpixel),
            dtype=dtype,
            turn=int(turn),
            plain_fourth=photometric == 5 or any(int(e) in (1, 2) for e in page.extrasamples),
            in_parts=plain and int(page.compression) in _BOUNDED and page.axes in ("YX", "YXS"),
        )
    except Exception as error:
        raise FileError(path, f"can't be read ({in_one_line(error)})", "replace it") from error


def _values(path: Path, page: Any, index: int, box: Box | None) -> Values:
    """Decodes a page, (H, W, bands)."""
    try:
        _check_claims(page)
        values: Values = page.asarray(maxworkers=1) if box is None else _part(page, box)
        values, axes = _with_meaning(page, values), page.axes
    except Exception as error:
        where = f"page {index + 1} " if index else ""
        raise FileError(
            path, f"can't be decoded ({where}{in_one_line(error)})", "replace it"
        ) from error
    if axes not in ("YX", "YXS", "SYX"):
        raise FileError(path, f"has the axes {axes}", "store rows, columns and bands only")
    return as_bands(np.moveaxis(values, 0, -1) if axes == "SYX" else values)


def _check_claims(page: Any) -> None:
    """Refuses a page that would take more memory than its pixels do.

    Raises:
        ValueError: It would; the message says why.
    """
    shape = page.shape
    count = np.prod(shape, dtype=float)
    if count > MAX_VALUES:
        raise ValueError(f"it claims the shape {shape}")
    if int(page.compression) not in _BOUNDED:
        raise ValueError(f"its compression is {page.compression!r}; store it with deflate")
    if sum(page.databytecounts) > SMALL_FILE + _BYTES_OF_A_VALUE * count:
        raise ValueError(f"{sum(page.databytecounts):,} bytes for {count:,.0f} values")
    tile = np.prod(getattr(page, "chunks", ()) or (1,), dtype=float)
    if tile > max(4 * count, 1 << 22):
        raise ValueError(f"its tiles have {tile:,.0f} values each")
    if not page.is_contiguous:  # else bytes that aren't there are missed
        check_parts(len(page.dataoffsets), int(np.prod(page.chunked, dtype=float)))


def _part(page: Any, box: Box) -> Values:
    """Decodes what a box touches of a page's tiles or strips: (h, w) or (h, w, bands)."""
    top, left, high, wide = box
    if page.is_contiguous:  # rows that lie in the file one behind the other, as they are
        row = page.imagewidth * page.samplesperpixel
        rows = page.parent.filehandle.read_array(
            page.parent.byteorder + page.dtype.char,
            high * row,
            page.dataoffsets[0] + top * row * page.dtype.itemsize,
        )
        native: Values = rows.astype(page.dtype, copy=False).reshape(high, *page.shape[1:])
        return native[:, left : left + wide]
    length, width = page.chunks[:2]  # of a tile, or of a strip
    across = -(-page.imagewidth // width)
    touched = [
        row * across + column
        for row in range(top // length, -(-(top + high) // length))
        for column in range(left // width, -(-(left + wide) // width))
    ]
    part = np.full((high, wide, page.samplesperpixel), page.nodata, dtype=page.dtype)
    segments = page.parent.filehandle.read_segments(
        [page.dataoffsets[index] for index in touched],
        [page.databytecounts[index] for index in touched],
        indices=touched,
    )
    for content, index in segments:
        tile, (_, _, row, column, _), _ = page.decode(content, index)
        if tile is None:  # left out: all of it is `nodata`
            continue
        first, last = max(top, row), min(top + high, row + tile.shape[1])
        begin, end = max(left, column), min(left + wide, column + tile.shape[2])
        part[first - top : last - top, begin - left : end - left] = tile[
            0, first - row : last - row, begin - column : end - column
        ]
    return part if page.axes == "YXS" else part[:, :, 0]


def _with_meaning(page: Any, values: Values) -> Values:
    """Lets black be 0, and indices of a palette be colours of 8 bits, as Pillow does."""
    photometric = int(page.photometric)
    if photometric == 0 and values.dtype.kind == "u":  # white is 0
        return np.iinfo(values.dtype).max - values
    if photometric == 3 and page.colormap is not None and page.axes == "YX":
        colours = (np.asarray(page.colormap) >> 8).astype(np.uint8)  # (3, colours)
        return np.moveaxis(colours[:, values], 0, -1)
    return values
