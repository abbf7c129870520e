"""What lies in folders, and what lists name of it."""

import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from segpets.errors import UserError

log = logging.getLogger(__name__)

Names = dict[str, str]
"""Stem, with its sub-folder, to file; to files with a NUL between them where there are several."""

SUFFIXES: Final = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

_CLUTTER = {"thumbs.db", "desktop.ini"}


def pictures(folder: Path, *, key: str, without: Path | None = None) -> Names:
    """The pictures in a folder and its sub-folders, without those of another folder.

    Raises:
        UserError: There are none, or a folder can't be read; the error names `data.<key>`.
    """
    apart = os.path.realpath(without) if without else None
    found: Names = {}
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
            file = name if where == "." else f"{where}/{name}"
            stem = os.path.splitext(normal(file))[0]
            found[stem] = f"{found[stem]}\0{file}" if stem in found else file
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(8))
    if not found:
        hint = f" but {kinds}" if kinds else ""
        raise UserError(
            f"data.{key}: {folder} holds no pictures{hint}: give a folder with files of "
            f"{', '.join(SUFFIXES)}"
        )
    if kinds:
        log.info("%s: files of other kinds are left out: %s", folder, kinds)
    return found


def normal(path: str) -> str:
    """The spelling by which paths are compared: some systems store an accent by itself."""
    return unicodedata.normalize("NFC", path)


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
