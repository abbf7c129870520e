"""Downloads a data set's archives and puts their folders in place, each at once or not at all.

    ROOT/.segpets_download/lock                     who holds it downloads
    ROOT/.segpets_download/images.tar.gz[.part]     what was fetched so far
    ROOT/.segpets_download/images/                  what was unpacked so far
    ROOT/images/                                    complete: it was renamed
    ROOT/images/.segpets_download.json              says that it came from here, and its files

The record lies in the folder before that takes its name, so no kill can part them. A folder without
one belongs to the user, and nothing in it is changed. Needs room for an archive and what it holds;
the archive is deleted afterwards.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from segpets.data.download.fetch import FULL, check_room, fetch, no_room
from segpets.data.download.unpack import flush, unpack
from segpets.errors import UserError
from segpets.run.lock import waiting

log = logging.getLogger(__name__)

FOLDER: Final = ".segpets_download"
RECORD: Final = ".segpets_download.json"
_LOCK: Final = "lock"


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive of one folder.

    Attributes:
        file: Its name, such as `images.tar.gz`.
        folder: The folder that it holds, such as `images`.
        checksum: Its MD5, SHA-1 or SHA-256.
        limit: What it and what it holds may take at most, in bytes each.
    """

    file: str
    folder: str
    checksum: str
    limit: int


Lacking = Callable[[str, Path], Sequence[str]]


def download(
    root: Path, archives: Sequence[Archive], *, mirrors: Sequence[str], lacking: Lacking
) -> None:
    """Completes a data set; if nothing is missing, nothing is requested and nothing is written.

    Of two processes, the second waits for the first.

    Args:
        root: The data set's folder; it is made.
        archives: The archives of the data set, in the order to fetch them.
        mirrors: The addresses that the archives may lie under.
        lacking: lacking("images", folder) gives the files, relative to the folder, that the data
            set needs there and hasn't. It may rely on the folders of earlier archives.

    Raises:
        UserError: No address gives an archive; an archive is hostile, or isn't the data set's;
            the disk is full or can't be written; a folder is incomplete that the user put there.
    """

    def complete() -> bool:
        return not any(lacking(archive.folder, root / archive.folder) for archive in archives)

    own = root / FOLDER
    try:
        if complete() and not _remains(own):
            return
        message = f"Another process downloads to {root}: waiting for it"
        with waiting(own / _LOCK, message):
            for archive in archives:
                if missing := lacking(archive.folder, root / archive.folder):
                    _install(archive, root, mirrors, lacking, missing)
            for rest in _remains(own):
                _remove(rest)
    except OSError as error:
        if error.errno in FULL:
            raise no_room(own, 2 * sum(_size(file) for file in _remains(own))) from error
        raise UserError(
            f"data.download=true, but {error.filename or root} can't be used ({error.strerror}): "
            "give a data.root that can be written"
        ) from error


def _install(
    archive: Archive,
    root: Path,
    mirrors: Sequence[str],
    lacking: Lacking,
    missing: Sequence[str],
) -> None:
    target = root / archive.folder
    there = os.path.lexists(target) and (not target.is_dir() or any(target.iterdir()))
    ours = _recorded(target) if there else []
    if there and not set(missing) <= set(ours):
        whose = f"{archive.file} doesn't hold them" if ours else "data.download didn't put it there"
        raise UserError(
            f"{target} lacks {len(missing)} files that the data set lists, for example "
            f"{missing[0]}, and {whose}: complete it, or move it away, and it is downloaded"
        )
    own = root / FOLDER
    file = fetch(
        archive.file, mirrors=mirrors, checksum=archive.checksum, folder=own, limit=archive.limit
    )
    unpacked = own / archive.folder
    _remove(unpacked)  # left by a killed process
    needed = file.stat().st_size
    check_room(own, needed)
    log.info("Unpacking %s", file)
    try:
        names = unpack(file, unpacked, top=archive.folder, limit=archive.limit)
    except OSError as error:
        if error.errno in FULL:
            raise no_room(own, needed) from error
        raise
    try:
        if not there and (absent := lacking(archive.folder, unpacked)):
            raise UserError(
                f"{file} lacks {len(absent)} files that the data set lists, for example "
                f"{absent[0]}: give the checksum and the address of the right archive"
            )
    except UserError:
        _remove(unpacked)
        raise
    record = {"archive": archive.file, "checksum": archive.checksum, "files": sorted(names)}
    (unpacked / RECORD).write_text(json.dumps(record), encoding="utf-8")
    flush([unpacked / RECORD])
    if there:
        for name in names:
            place = target / name
            if not os.path.lexists(place):
                place.parent.mkdir(parents=True, exist_ok=True)
                (unpacked / name).rename(place)
        (unpacked / RECORD).replace(target / RECORD)
        log.info("Restored %s files of %s", len(missing), target)
    else:
        unpacked.rename(target)
        log.info("%s is complete, with %s files", target, f"{len(names):,}")
    _remove(unpacked)
    file.unlink()


def _recorded(folder: Path) -> list[str]:
    """Lists the files that were put in a folder; none if the user put it there."""
    if folder.is_symlink():
        return []
    try:
        names = json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _remains(own: Path) -> list[Path]:
    return [path for path in own.iterdir() if path.name != _LOCK] if own.is_dir() else []


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
