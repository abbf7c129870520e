"""What lies in folders, and what lists name of it."""

import bisect
import logging
import os
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from segpets.errors import UserError

log = logging.getLogger(__name__)

SUFFIXES: Final = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

_CLUTTER = {"thumbs.db", "desktop.ini"}


class Names(Mapping[str, str]):
    """Stem, with its sub-folder, to file; to files with a NUL between them if there are several.

    It takes 40 bytes a file, and a dict would take 240: enough to be seen with 100,000 of them.

    Args:
        files: Paths within a folder, in any order.

    Attributes:
        claimed: Which of the files were asked for as somebody's partner.
    """

    def __init__(self, files: Iterable[str]) -> None:
        self._text, self._ends, hashes = bytearray(), array("q", [0]), array("q")
        for file in files:
            self._text += os.fsencode(file)
            self._ends.append(len(self._text))
            hashes.append(hash(stem_of(file)))
        self._order = np.argsort(np.array(hashes), kind="stable")
        ascending = np.array(hashes)[self._order]
        self._hashes = array("q", ascending.tobytes())
        self._distinct = bool((np.diff(ascending) > 0).all())
        self.claimed = np.zeros(len(hashes), dtype=np.bool_)

    def __getitem__(self, stem: str) -> str:
        if files := [self._file(row) for row in self._rows(stem)]:
            return "\0".join(files)
        raise KeyError(stem)

    def __contains__(self, stem: object) -> bool:
        return next(self._rows(stem), None) is not None

    def __iter__(self) -> Iterator[str]:
        for row in range(len(self._hashes)):
            stem = stem_of(self._file(row))
            if self._distinct or row == next(self._rows(stem)):
                yield stem

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def files(self) -> Iterator[str]:
        """All files, in order."""
        return map(self._file, range(len(self._hashes)))

    def claim(self, stem: str) -> list[str]:
        """The files of a stem, if there are any, which have found their partner."""
        rows = list(self._rows(stem))
        self.claimed[rows] = True
        return [self._file(row) for row in rows]

    def unclaimed(self) -> list[str]:
        """The stems without a partner, sorted."""
        return sorted({stem_of(self._file(row)) for row in np.flatnonzero(~self.claimed).tolist()})

    def _rows(self, stem: object) -> Iterator[int]:
        """The rows of a stem's files, in order."""
        wanted = hash(stem)
        at = bisect.bisect_left(self._hashes, wanted)
        while at < len(self._hashes) and self._hashes[at] == wanted:
            row = int(self._order[at])
            if stem_of(self._file(row)) == stem:
                yield row
            at += 1

    def _file(self, row: int) -> str:
        return os.fsdecode(bytes(self._text[self._ends[row] : self._ends[row + 1]]))


def pictures(folder: Path, *, key: str, without: Path | None = None) -> Names:
    """The pictures in a folder and its sub-folders, without those of another folder.

    Raises:
        UserError: There are none, or a folder can't be read; the error names `data.<key>`.
    """
    return Names(_walk(folder, key, without))


def _walk(folder: Path, key: str, without: Path | None) -> Iterator[str]:
    apart = os.path.realpath(without) if without else None
    found = 0
    others: Counter[str] = Counter()

    def fail(error: OSError) -> None:
        raise UserError(f"data.{key}: {error.filename} can't be read: {error.strerror}")

    seen = {apart}
    for base, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        real = os.path.realpath(base)
        if real in seen:  # by a link: a circle, or what is listed already
            folders.clear()
            continue
        seen.add(real)
        # Links come last, so that what can be reached twice has its own name.
        folders.sort(key=lambda name: (os.path.islink(os.path.join(base, name)), name))
        folders[:] = [name for name in folders if not name.startswith(".")]
        where = os.path.relpath(base, folder)
        for name in sorted(files):
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith(".") or name.lower() in _CLUTTER:
                continue
            if suffix not in SUFFIXES:
                others[suffix or name] += 1
                continue
            found += 1
            yield name if where == "." else f"{where}/{name}"
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(8))
    if not found:
        hint = f" but {kinds}" if kinds else ""
        raise UserError(
            f"data.{key}: {folder} holds no pictures{hint}: give a folder with files of "
            f"{', '.join(SUFFIXES)}"
        )
    if kinds:
        log.info("%s: files of other kinds are left out: %s", folder, kinds)


def normal(path: str) -> str:
    """The spelling by which paths are compared: some systems store an accent by itself."""
    return unicodedata.normalize("NFC", path)


def stem_of(file: str) -> str:
    """A path without its suffix, as it is compared."""
    return os.path.splitext(normal(file))[0]


def inventory(folder: Path) -> str:
    """What to say of the folders in a folder: `holds a/, b/`."""
    if not folder.is_dir():
        return "is not there"
    names = sorted(f"{p.name}/" for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
    return f"holds {', '.join(names[:8]) or 'no folders'}{' ...' if names[8:] else ''}"


def read_text(path: Path, key: str) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Args:
        path: The file.
        key: What the error calls it, such as `data.pairs`.

    Raises:
        UserError: It is missing or no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{key}: {path} is missing: write it, or give another file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{key}: {path} can't be read ({error}): save it as UTF-8") from error


def homes(root: Path, is_home: Callable[[Path], bool], *, depth: int = 3) -> list[Path]:
    """The folders that hold a data set: the root, or the first ones below it.

    Args:
        root: Where to begin.
        is_home: Tells whether a folder is one.
        depth: How many levels below the root are searched at most.

    Returns:
        All that lie on the level nearest to the root, sorted; hidden ones are left out.
    """
    level = [root]
    for _ in range(depth + 1):
        if found := [folder for folder in level if is_home(folder)]:
            return found
        level = [below for folder in level for below in _folders(folder)]
    return []


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if e.name[0] != "." and e.is_dir())
    except OSError:
        return []
    return [folder / name for name in names]
