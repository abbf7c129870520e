"""Files in folders, and names in lists."""

import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from segpets import reading
from segpets.errors import UserError

log = logging.getLogger(__name__)

SUFFIXES: Final = (
    *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".npy", ".pbm", ".pgm", ".png", ".pnm"),
    *(".ppm", ".tif", ".tiff", ".webp"),
)
"""What is taken for a picture in a folder, by all commands."""

_CLUTTER = {"thumbs.db", "desktop.ini"}


class Names(Mapping[str, list[str]]):
    """Files by stem, with its sub-folder; several files may share one.

    Args:
        files: Paths within a folder, in any order.
        key: Names the stem of a file.

    Attributes:
        claimed: The stems that were requested as a partner.
    """

    def __init__(self, files: Iterable[str], *, key: Callable[[str], str] | None = None) -> None:
        self._files: dict[str, list[str]] = {}
        for file in files:
            self._files.setdefault((key or stem_of)(file), []).append(file)
        self.claimed: set[str] = set()

    def __getitem__(self, stem: str) -> list[str]:
        return self._files[stem]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def files(self) -> list[str]:
        """Lists all files."""
        return [file for files in self._files.values() for file in files]

    def claim(self, stem: str) -> list[str]:
        """Returns the files of a stem, if any, and marks them as having a partner."""
        if stem in self._files:
            self.claimed.add(stem)
        return self._files.get(stem, [])


def pictures(folder: Path, *, key: str, without: Path | None = None) -> Names:
    """Lists the pictures in a folder and its sub-folders, without those of another folder.

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
        if real in seen:  # reached by a link: a cycle, or listed already
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
    """Normalises a path for comparison, since some systems store an accent by itself."""
    return unicodedata.normalize("NFC", path)


def stem_of(file: str) -> str:
    """Normalises a path for comparison, and removes its suffix."""
    return os.path.splitext(normal(file))[0]


def inventory(folder: Path) -> str:
    """Describes the folders in a folder: `holds a/, b/`."""
    if not folder.is_dir():
        return "is not there"
    names = sorted(f"{p.name}/" for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
    return f"holds {', '.join(names[:8]) or 'no folders'}{' ...' if names[8:] else ''}"


def read_text(path: Path, key: str) -> str:
    """Reads a text file in UTF-8, with or without a byte order mark.

    Raises:
        UserError: It is missing or isn't text.
    """
    try:
        return reading.read_text(path, reading.LARGEST_TABLE, encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{key}: {path} is missing: write it, or give another file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{key}: {path} can't be read ({error}): save it as UTF-8") from error


def homes(root: Path, is_home: Callable[[Path], bool], *, depth: int = 3) -> list[Path]:
    """Finds the folders that hold a data set: the root, or the first ones below it.

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
