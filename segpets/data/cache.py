"""Decoded pixels in one file, which processes share.

    SEGPETS4 | length of the header | header (JSON) | table | records

The table has a row for each image: what its files looked like (size and dates), where its record
lies and how large it is, the record's checksum, and what was noted when it was decoded. A record is
the image, (C, H, W), uint8 or float32, and the mask, (H, W), uint8. A file is written under another
name, complete and flushed, before it takes its own; so a kill, a full disk or a second process
never leaves a half one. It holds numbers only: reading one that somebody else wrote can show wrong
pixels, but run nothing.
"""

import fcntl
import json
import logging
import mmap
import os
import re
import shutil
import threading
import weakref
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segpets.data.decoded import FACTS, Decoded
from segpets.data.source import Mask

log = logging.getLogger(__name__)

MAGIC: Final = b"SEGPETS4"
TABLE: Final = np.dtype(
    [
        ("files", "<u8"),
        ("offset", "<u8"),
        ("height", "<u4"),
        ("width", "<u4"),
        ("checksum", "<u4"),
        ("facts", FACTS),
    ]
)
_PAGE: Final = 4096
_TABLE_START: Final = len(MAGIC) + 4 + _PAGE
_OURS: Final = re.compile(r"\w+-[0-9a-f]{16}\.(pixels|tmp)")


Image = NDArray[np.uint8] | NDArray[np.float32]


class Shape(NamedTuple):
    """The common shape of a cache's records.

    Attributes:
        images: How many it has.
        channels: Of each image.
        dtype: Of its pixels, as NumPy writes it: `uint8` or `float32`.
        size: Height and width of all images; None: they differ.
    """

    images: int
    channels: int
    dtype: str
    size: tuple[int, int] | None

    def record(self, height: int, width: int) -> int:
        """Computes the bytes of an image and its mask."""
        return (self.channels * np.dtype(self.dtype).itemsize + 1) * height * width

    @property
    def start(self) -> int:
        """The place of the first record: the first page behind the header and the table."""
        end = _TABLE_START + self.images * TABLE.itemsize
        return -(-end // _PAGE) * _PAGE

    @property
    def bytes(self) -> int:
        """The length of the file, of images of one size; else only that of its start."""
        return self.start + (self.images * self.record(*self.size) if self.size else 0)


class FullError(Exception):
    """A cache of images of different sizes has become larger than it may be."""


class PixelCache:
    """An opened cache.

    Args:
        path: The file.
        shape: The shape that it must have.

    Raises:
        ValueError: The file isn't a complete cache of that kind.
        OSError: It isn't there or can't be read.
    """

    def __init__(self, path: Path, shape: Shape) -> None:
        self.path, self.shape = path, shape
        self._whole = np.zeros(shape.images, dtype=np.bool_)
        self._open()

    def _open(self) -> None:
        shape = self.shape
        self._file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        with open(self._file, "rb", closefd=False) as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ValueError("it is from another version")
            length = int.from_bytes(file.read(4), "little")
            try:
                header: dict[str, Any] = json.loads(file.read(min(length, _PAGE)))
                known = (header["count"], header["channels"], header["dtype"])
                checksum, whole = header["table_checksum"], header["bytes"]
                self.fingerprint = str(header["fingerprint"])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError("its header is damaged") from error
            size = os.fstat(file.fileno()).st_size
            if size != whole or size < shape.bytes:
                raise ValueError("it is incomplete")
            start = mmap.mmap(self._file, shape.start, access=mmap.ACCESS_READ)
            self.table = np.frombuffer(start, TABLE, shape.images, offset=_TABLE_START)
            actual = _table_checksum(self.table, self.fingerprint)
            if known != shape[:3] or actual != checksum or not self._fits(size):
                raise ValueError("its table is damaged")

    def _fits(self, size: int) -> bool:
        """Checks that all records lie within the file, and have the size that they must."""
        table, shape = self.table, self.shape
        pixel = shape.record(1, 1)
        lengths = pixel * table["height"].astype(float) * table["width"]
        ends = table["offset"].astype(float) + lengths
        inside = bool((table["offset"] >= shape.start).all() and (ends <= size).all())
        if shape.size is None:
            return inside
        return inside and bool(
            (table["height"] == shape.size[0]).all() and (table["width"] == shape.size[1]).all()
        )

    def read(self, row: int) -> tuple[Image, Mask] | None:
        """Copies an image, (C, H, W), and its mask, (H, W); None if the record is damaged."""
        entry, shape = self.table[row], self.shape
        height, width = int(entry["height"]), int(entry["width"])
        # Not from a map of the file: its pages would count as this process's memory.
        record = np.empty(shape.record(height, width), dtype=np.uint8)
        if not _read(self._file, record.data, int(entry["offset"])):
            return None
        if not self._whole[row]:  # once in each process: it takes longer than the copy
            if zlib.crc32(record.data) != entry["checksum"]:
                return None
            self._whole[row] = True
        pixels = len(record) - height * width
        image = record[:pixels].view(shape.dtype).reshape(shape.channels, height, width)
        return image, record[pixels:].reshape(height, width)

    def __reduce__(self) -> tuple[Callable[..., "PixelCache"], tuple[Path, Shape]]:
        return PixelCache, (self.path, self.shape)


def cache_name(words: str, key: str) -> str:
    """Makes the file name of a cache.

    Args:
        words: What its images are, in letters and digits.
        key: 16 hexadecimal digits that name its samples and settings.
    """
    return f"{words}-{key}.pixels"


def make_room(path: Path, *, needed: int, limit: int) -> str | None:
    """Removes the least recently used caches until a new one fits, and no other files.

    Args:
        path: The new one, which its caller has locked.
        needed: Its length in bytes.
        limit: What all caches of a folder may take together, in bytes.

    Returns:
        The reason why it can't fit, if it can't.
    """
    if needed > limit:
        return f"it would take {needed / 1e9:.3g} GB, and data.cache_gb allows {limit / 1e9:g}"
    ours = [file for file in path.parent.iterdir() if _OURS.fullmatch(file.name)]
    for half in (file for file in ours if file.suffix == ".tmp"):  # left by killed processes
        with half.with_suffix(".lock").open("ab") as lock, suppress(BlockingIOError, OSError):
            if half != path.with_suffix(".tmp"):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            half.unlink(missing_ok=True)
    others = sorted(
        (file for file in ours if file.suffix == ".pixels" and file != path),
        key=lambda file: file.stat().st_mtime,
    )
    total = sum(file.stat().st_size for file in others) + needed
    for file in others:
        if total > limit:
            total -= file.stat().st_size
            log.info("Removed the cache %s, which was unused the longest", file)
            file.unlink()  # processes that read it go on reading
    free = shutil.disk_usage(path.parent).free
    if needed > 0.9 * free:
        return f"it would take {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free"
    return None


Put = Callable[[int, int, Decoded], None]
"""Takes a row, what its files look like, and the decoded sample; from any thread."""


def build(path: Path, shape: Shape, *, limit: int, fill: Callable[[Put], str]) -> None:
    """Writes a cache; its caller has locked it.

    Args:
        path: Where.
        shape: The shape of its records.
        limit: The bytes that it may have.
        fill: Calls `put` once for each row; gives the fingerprint.

    Raises:
        FullError: Images of different sizes take more than `limit`.
        OSError: The disk is full or can't be written. Nothing is left then, nor after any error
            of `fill`.
    """
    table = np.zeros(shape.images, dtype=TABLE)
    unfinished = path.with_suffix(".tmp")
    file = os.open(unfinished, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o644)
    end, lock = shape.start, threading.Lock()
    try:
        if shape.size and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, shape.bytes)  # reveals a full disk now

        def reserved(row: int, length: int) -> int:
            nonlocal end
            with lock:
                begin = shape.start + row * length if shape.size else end
                end = max(end, begin + length)
            if end > limit:
                raise FullError
            return begin

        def put(row: int, files: int, decoded: Decoded) -> None:
            image, mask = decoded.image, decoded.mask
            record = image.tobytes() + mask.tobytes()
            begin = reserved(row, len(record))
            table[row] = files, begin, *mask.shape, zlib.crc32(record), decoded.facts
            _write(file, record, begin)

        fingerprint = fill(put)
        header = {
            "count": shape.images,
            "channels": shape.channels,
            "dtype": shape.dtype,
            "fingerprint": fingerprint,
            "bytes": end,
            "table_checksum": _table_checksum(table, fingerprint),
        }
        text = json.dumps(header).encode().ljust(_PAGE)
        begin = MAGIC + len(text).to_bytes(4, "little") + text + table.tobytes()
        _write(file, begin, 0)
        os.ftruncate(file, end)
        os.fsync(file)
        unfinished.replace(path)
    finally:
        os.close(file)
        unfinished.unlink(missing_ok=True)


def touch(path: Path) -> None:
    """Marks a cache as just used, where that is allowed."""
    with suppress(OSError):
        os.utime(path)


def _write(file: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def _read(file: int, into: memoryview, offset: int) -> bool:
    """Fills a buffer; returns False where the file ends before."""
    while into:
        if not (length := os.preadv(file, [into], offset)):
            return False
        into, offset = into[length:], offset + length
    return True


def _table_checksum(table: NDArray[np.void], fingerprint: str) -> int:
    """Covers the fingerprint, too: runs are compared only where it is the same."""
    return zlib.crc32(fingerprint.encode("utf-8", "replace"), zlib.crc32(table.tobytes()))
