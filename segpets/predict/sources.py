"""The files that are predicted, and the names of their outputs."""

import glob
import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from segpets.data.bands import with_band, without
from segpets.data.filenames import SUFFIXES
from segpets.data.pages import page_count
from segpets.errors import FileError, UserError

FOLDERS: Final = {
    "masks": ".png",
    "overlays": ".jpg",
    "cutouts": ".png",
    "composites": ".jpg",
}
"""The folders of an output, and how their files end."""

log = logging.getLogger(__name__)

_WILD = frozenset("*?[")
_NAME_LENGTH = 200
"""Bytes of a name; with a suffix, it fits all file systems."""


@dataclass(frozen=True)
class PictureFile:
    """A picture to be predicted.

    Attributes:
        path: The file, absolute.
        name: The name of its outputs, without suffix; unique, and may hold folders.
        bands: The files of its further bands, where each has its own.
        page: The page of the file; None where it has one, or all are channels.
    """

    path: Path
    name: str
    bands: tuple[Path, ...] = ()
    page: int | None = None

    @property
    def source(self) -> str:
        """The word for it in a table: its path, and the number of its page from 1 on."""
        return str(self.path) if self.page is None else f"{self.path}#{self.page + 1}"

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, or one for each band."""
        return self.path, *self.bands


def find_sources(
    given: Sequence[str],
    *,
    output: Path,
    known: Mapping[str, str] | None = None,
    bands: Sequence[str] | None = None,
) -> list[PictureFile]:
    """Lists pictures, sorted as they are given.

    Args:
        given: Files, folders or patterns.
        output: The output's folder; files in its `FOLDERS` aren't sources.
        known: Names that are taken, by the file, absolute, that has them; what is passed over is
            said then.
        bands: A folder, or a pattern, for each band of a picture; see `segpets.data.Folder`.

    Raises:
        UserError: One of what is given doesn't exist, or no picture is names.
    """
    own = [_resolved(output / folder) for folder in FOLDERS]
    names: dict[Path, str] = {}
    seen: set[Path] = set()
    others: Counter[str] = Counter()
    for text in given:
        listed = [(path, name, _resolved(path)) for path, name in _listed(text, others)]
        sources = [one for one in listed if not any(map(one[2].is_relative_to, own))]
        if not listed:
            raise UserError(
                f"source={text}: there is no picture in it. Pictures end in "
                f"{', '.join(sorted(SUFFIXES))}; a file of another name can be given by itself"
            )
        if not sources:
            raise UserError(
                f"source={text}: all its pictures are outputs of earlier predictions, in {output}: "
                "give the originals, or another output="
            )
        for path, name, real in sources:
            if real not in seen:
                seen.add(real)
                names[path] = name
    if others and known is not None:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(8))
        log.warning("%d files of other kinds are left out: %s", others.total(), kinds)
    if bands is None:
        return _named(names, known or {})
    whole = {path: rest for path in names if (rest := _of_first_band(path, bands)) is not None}
    if not whole:
        raise UserError(
            f"no picture is named as the first of data.bands={list(bands)}, by which the run was "
            "trained: give folders or files named so"
        )
    first = {
        path: (_of_first_band(Path(names[path]), bands) or os.path.basename(rest)) + path.suffix
        for path, rest in whole.items()
    }
    return [
        replace(one, bands=tuple(_band(band, whole[one.path]) for band in bands[1:]))
        for one in _named(first, known or {})
    ]


def each_page(
    sources: Sequence[PictureFile], *, known: Mapping[str, str] | None = None
) -> Iterator[PictureFile]:
    """Yields a picture for each page of files with several.

    Args:
        sources: The files, each with a name of its own.
        known: Names that are taken, by the source that has them.
    """
    names = known or {}
    taken = {one.name.casefold() for one in sources} | {name.casefold() for name in names.values()}
    for one in sources:
        try:
            count = page_count(one.path)
        except FileError:
            count = 1  # it is reported when it is read
        if count == 1:
            yield one
            continue
        pages = [replace(one, name=f"{one.name}-page{n + 1}", page=n) for n in range(count)]
        free = all(names.get(p.source) == p.name or p.name.casefold() not in taken for p in pages)
        if not free:
            base = f"{one.name}-{_digest(one.path)}"
            pages = [replace(page, name=f"{base}-page{n}") for n, page in enumerate(pages, 1)]
        yield from pages


def _of_first_band(path: Path, bands: Sequence[str]) -> str | None:
    return without(bands[0], os.path.splitext(path)[0].replace(os.sep, "/"))


def _band(band: str, whole: str) -> Path:
    """Finds the file of a band; one that isn't there is refused when it is read."""
    stem = Path(with_band(band, whole))
    there = sorted(stem.parent.iterdir()) if stem.parent.is_dir() else []
    files = [f for f in there if f.stem == stem.name and f.suffix.lower() in SUFFIXES]
    if len(files) > 1:
        raise UserError(f"{files[0]} and {files[1]} are both the band {band}: remove one of them")
    return files[0] if files else stem.with_name(f"{stem.name}.tif")


def _resolved(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _listed(text: str, others: Counter[str]) -> Iterator[tuple[Path, str]]:
    """Lists the files that a word names, absolute, with their paths from where it was searched.

    An existing name is meant literally, even if it holds a bracket or a star.
    """
    path = Path(os.path.abspath(os.path.expanduser(text)))
    if path.is_file():
        yield path, path.name
    elif path.is_dir():
        yield from ((file, os.path.relpath(file, path)) for file in _below(path, others))
    elif _WILD & set(text):
        fixed = path
        while _WILD & set(str(fixed)):
            fixed = fixed.parent
        for match in sorted(glob.glob(str(path), recursive=True)):
            if os.path.isfile(match) and Path(match).suffix.lower() in SUFFIXES:
                yield Path(match), os.path.relpath(match, fixed)
    else:
        raise UserError(
            f"source={text}: there is no file or folder {path}. Names with spaces, commas or "
            f"brackets want quotes within quotes: \"source='my pictures (1)'\""
        )


def _below(folder: Path, others: Counter[str]) -> Iterator[Path]:
    """Lists all pictures in a folder and its sub-folders, sorted; hidden ones are left out."""

    def fail(error: OSError) -> None:
        raise UserError(f"{error.filename} can't be listed: {error.strerror}") from error

    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        if (real := os.path.realpath(parent)) in seen:  # reached by a link: a circle, or twice
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            suffix = Path(name).suffix.lower()
            if name.startswith("."):
                continue
            if suffix in SUFFIXES:
                yield Path(parent, name)
            else:
                others[suffix or name] += 1


def _named(found: Mapping[Path, str], known: Mapping[str, str]) -> list[PictureFile]:
    """Gives each file a name of its own, also where `A` and `a` are the same.

    It is the path without suffix; with it, where another file of these, or of earlier ones, has
    that name; and with a hash besides, where even that isn't enough or it is too long.
    """
    stems = {path: _shortened(os.path.splitext(relative)[0]) for path, relative in found.items()}
    owners = {name.casefold(): path for path, name in known.items()}
    counts = Counter(name.casefold() for name in stems.values())
    wholes = Counter(relative.casefold() for relative in found.values())
    sources = []
    for path, relative in found.items():
        name = known.get(str(path)) or stems[path]
        for candidate in () if str(path) in known else _candidates(path, relative, stems[path]):
            name, folded = candidate, candidate.casefold()
            others = counts[folded] - (name == stems[path])
            others += wholes[folded] - (name == relative)
            if not others and owners.get(folded, str(path)) == str(path):
                break
        owners[name.casefold()] = str(path)
        sources.append(PictureFile(path, name))
    return sources


def _candidates(path: Path, relative: str, stem: str) -> Iterable[str]:
    yield stem
    yield _shortened(relative)
    yield f"{stem}-{_digest(path)}"


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:8]


def _shortened(name: str) -> str:
    folder, last = os.path.split(name)
    encoded = os.fsencode(last)
    if len(encoded) <= _NAME_LENGTH:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    short = encoded[: _NAME_LENGTH - 9].decode(errors="ignore")
    return os.path.join(folder, f"{short}-{digest}")
