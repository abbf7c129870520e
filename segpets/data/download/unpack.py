"""Unpacks an archive that may be hostile."""

import errno
import gzip
import os
import shutil
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import IO, Final, cast

from segpets.errors import FileError, UserError

_MAX_DEPTH: Final = 8
_MAX_HEADERS: Final = 40_000
"""Bytes between the contents of two files. Before 3.11.8, Python takes ten seconds to read a header
of 100 kB, and four times as long for one of twice the length."""

_MAX_END: Final = 2**20
"""Bytes behind the last file, which tar fills up."""

_OF_NAMES: Final = {
    *(errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
}
_REMEDY: Final = "nothing of it was unpacked; give the checksum and the address of another archive"


class _Metered:
    """A stream that refuses to give more bytes than are allowed, however far it decompresses."""

    def __init__(self, archive: Path, stream: IO[bytes] | gzip.GzipFile) -> None:
        self._archive, self._stream = archive, stream
        self.left = _MAX_HEADERS

    def read(self, size: int) -> bytes:
        block = self._stream.read(size)
        self.left -= len(block)
        if self.left < 0:
            raise FileError(self._archive, "has headers without end", _REMEDY)
        return block


def unpack(
    archive: Path, into: Path, *, top: str, limit: int, max_files: int = 100_000
) -> list[str]:
    """Unpacks the one folder of a tar archive, plain or compressed by gzip, to a new folder.

    Hidden files, such as the `._beagle_1.png` that macOS adds, are left out; all others are kept,
    in the pets' `images/` some `.mat`, too. Owners, modes and dates are not kept.

    Args:
        archive: The file.
        into: The new folder; `top/a.jpg` becomes `into/a.jpg`.
        top: The folder that all names must begin with.
        limit: What all files may have together, in bytes.
        max_files: The most files and folders allowed, with those that are left out.

    Returns:
        The names of the files, relative to `into`.

    Raises:
        FileError: The archive is damaged, or holds a link, a device, a name that leads elsewhere,
            or more than is allowed.
        OSError: The disk is full or can't be written. Nothing is left then, nor after any error.
    """
    into.mkdir()
    try:
        names = _unpack(archive, into, top, limit, max_files)
        flush([into / name for name in names])
        return names
    except BaseException as error:
        shutil.rmtree(into, ignore_errors=True)
        if isinstance(error, UserError) or not isinstance(error, Exception):
            raise
        if isinstance(error, OSError) and error.errno and error.errno not in _OF_NAMES:
            raise
        # What tarfile and zlib raise for damaged headers are errors of a dozen kinds.
        raise FileError(archive, f"is no archive that can be read ({error})", _REMEDY) from error


def _unpack(archive: Path, into: Path, top: str, limit: int, max_files: int) -> list[str]:
    names: list[str] = []
    left = limit
    with archive.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        meter = _Metered(archive, gzip.open(file) if compressed else file)
        # A stream is only ever read from.
        with tarfile.open(fileobj=cast(IO[bytes], meter), mode="r|") as tar:
            for count, member in enumerate(tar, start=1):
                if member.size < 0 or member.size > left or count > max_files:
                    raise FileError(
                        archive,
                        f"unfolds to more than {limit:,} bytes or {max_files:,} files",
                        _REMEDY,
                    )
                left -= member.size
                meter.left = member.size + _MAX_HEADERS
                path = _checked(archive, member, top)
                if path is None:
                    continue
                place = into / path
                if member.isdir():
                    place.mkdir(parents=True, exist_ok=True)
                    continue
                place.parent.mkdir(parents=True, exist_ok=True)
                content = tar.extractfile(member)
                assert content is not None
                with content, place.open("xb") as target:
                    shutil.copyfileobj(content, target)
                names.append(path.as_posix())
        meter.left = _MAX_END
        while meter.read(2**16):  # to the checksum of gzip
            pass
    return names


def flush(files: Sequence[Path]) -> None:
    """Waits until files and their folders are on the disk: no name may outlive its content.

    In many threads the file system writes many at once: 4,000 took 0.3 s and, one by one, 14 s.
    """

    def one(path: Path) -> None:
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)

    with ThreadPoolExecutor(32) as threads:
        list(threads.map(one, [*files, *{file.parent for file in files}]))


def _checked(archive: Path, member: tarfile.TarInfo, top: str) -> PurePosixPath | None:
    """Returns a member's path relative to the top folder; None if it is left out."""
    name = member.name
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise FileError(archive, f"holds {name!r}, which leads out of its folder", _REMEDY)
    if not (member.isdir() or member.isreg()) or member.issparse():
        kind = "a link" if member.issym() or member.islnk() else "neither a file nor a folder"
        raise FileError(archive, f"holds {name!r}, which is {kind}", _REMEDY)
    if any(part.startswith(".") for part in path.parts):
        return None
    if path.parts[:1] != (top,) or len(path.parts) > _MAX_DEPTH:
        if member.isdir() and not path.parts:  # the archive of a folder begins with ./
            return None
        raise FileError(archive, f"holds {name!r}, which doesn't lie in {top}/", _REMEDY)
    if member.isreg() and len(path.parts) == 1:
        raise FileError(archive, f"holds {name!r} as a file, which must be a folder", _REMEDY)
    return path.relative_to(top)
