"""Decoded pixels in one memory-mapped file, which processes share.

    SEGPETS1 | length of the header | header (JSON) | table | records

The table has a row for each image: what its files looked like (size and dates), and the checksum
of its record, which is the image, (3, size, size), and the mask, (size, size), both uint8. A file
is written under another name, complete and flushed, before it takes its own; so a kill, a full
disk or a second process never leaves a half one. It holds numbers only: reading one that somebody
else wrote can show wrong pixels, but run nothing.
"""

import fcntl
import json
import logging
import mmap
import os
import re
import shutil
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from segpets.data.decode import Pixel8
from segpets.data.source import Mask

log = logging.getLogger(__name__)

MAGIC: Final = b"SEGPETS2"
TABLE: Final = np.dtype([("files", "<u8"), ("checksum", "<u4")])
_PAGE: Final = 4096
_TABLE_START: Final = len(MAGIC) + 4 + _PAGE
_RELEASE_AFTER: Final = 2**20  # a system maps a few times as much, since it adds neighbours
_OURS: Final = re.compile(r"\d+px-[0-9a-f]{16}\.(pixels|tmp)")


class PixelCache:
    """An opened cache.

    Args:
        path: The file.
        count: How many images it must have.
        size: Their height and width.

    Raises:
        ValueError: The file isn't a complete cache of that kind.
        OSError: It isn't there or can't be read.
    """

    def __init__(self, path: Path, *, count: int, size: int) -> None:
        self.path, self.count, self.size = path, count, size
        self._read, self._record = 0, _record_bytes(size)
        self._whole = np.zeros(count, dtype=np.bool_)
        self._open()

    def _open(self) -> None:
        with self.path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ValueError("it is from another version")
            length = int.from_bytes(file.read(4), "little")
            try:
                header: dict[str, Any] = json.loads(file.read(min(length, _PAGE)))
                counts, checksum = (header["count"], header["size"]), header["table_checksum"]
                self.fingerprint = str(header["fingerprint"])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError("its header is damaged") from error
            if os.fstat(file.fileno()).st_size != bytes_needed(self.count, self.size):
                raise ValueError("it is incomplete")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._start = _records_start(self.count)
            self.table = np.frombuffer(self._map, TABLE, self.count, offset=_TABLE_START)
            actual = _table_checksum(self.table, self.fingerprint)
            if counts != (self.count, self.size) or actual != checksum:
                raise ValueError("its table is damaged")

    def read(self, row: int) -> tuple[Pixel8, Mask] | None:
        """Copies an image, (3, size, size), and its mask; None if the record is damaged."""
        begin = self._start + row * self._record
        record = np.frombuffer(self._map, dtype=np.uint8, count=self._record, offset=begin).copy()
        # What was touched counts as this process's memory until it is given back; it stays in the
        # system's cache of files.
        self._read += self._record
        if self._read > _RELEASE_AFTER and hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)
            self._read = 0
        if not self._whole[row]:  # once in each process: it takes longer than the copy
            if zlib.crc32(record.data) != self.table["checksum"][row]:
                return None
            self._whole[row] = True
        pixels = record.reshape(4, self.size, self.size)
        return pixels[:3], pixels[3]

    def __reduce__(self) -> tuple[Callable[..., "PixelCache"], tuple[Path]]:
        return partial(PixelCache, count=self.count, size=self.size), (self.path,)


def cache_name(size: int, key: str) -> str:
    """Makes the file name of a cache.

    Args:
        size: Height and width of its images.
        key: 16 hexadecimal digits that name its samples and settings.
    """
    return f"{size}px-{key}.pixels"


def bytes_needed(count: int, size: int) -> int:
    """Computes the length of a cache's file."""
    return _records_start(count) + count * _record_bytes(size)


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


def build(
    path: Path,
    *,
    count: int,
    size: int,
    fill: Callable[[Callable[[int, int, Pixel8, Mask], None]], str],
) -> None:
    """Writes a cache; its caller has locked it.

    Args:
        path: Where.
        count: How many images.
        size: Their height and width.
        fill: Is given put(row, files, image, mask), which it calls once for each row, from any
            thread; gives the fingerprint.

    Raises:
        OSError: The disk is full or can't be written. Nothing is left then, nor after any error
            of `fill`.
    """
    table = np.zeros(count, dtype=TABLE)
    record, start, whole = _record_bytes(size), _records_start(count), bytes_needed(count, size)
    unfinished = path.with_suffix(".tmp")
    file = os.open(unfinished, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o644)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, whole)  # reveals a full disk now

        def put(row: int, files: int, image: Pixel8, mask: Mask) -> None:
            pixels = np.concatenate([image.reshape(-1), mask.reshape(-1)])
            table[row] = files, zlib.crc32(pixels.data)
            _write(file, pixels.tobytes(), start + row * record)

        fingerprint = fill(put)
        header = {
            "count": count,
            "size": size,
            "fingerprint": fingerprint,
            "table_checksum": _table_checksum(table, fingerprint),
        }
        text = json.dumps(header).encode().ljust(_PAGE)
        begin = MAGIC + len(text).to_bytes(4, "little") + text + table.tobytes()
        _write(file, begin, 0)
        os.ftruncate(file, whole)
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


def _table_checksum(table: NDArray[np.void], fingerprint: str) -> int:
    """Covers the fingerprint, too: runs are compared only where it is the same."""
    return zlib.crc32(fingerprint.encode("utf-8", "replace"), zlib.crc32(table.tobytes()))


def _record_bytes(size: int) -> int:
    return 4 * size * size


def _records_start(count: int) -> int:
    """Places the records on the first page behind the header and the table."""
    end = _TABLE_START + count * TABLE.itemsize
    return -(-end // _PAGE) * _PAGE
