"""Images whose bands are files of their own, as satellites' and microscopes' often are."""

from collections.abc import Sequence
from pathlib import Path

from segpets.data.filenames import Names
from segpets.data.mask_names import STEM
from segpets.data.source import Problem, sample_name
from segpets.errors import FileError, UserError


def banded(
    images: Names, bands: Sequence[str], base: Path, problems: list[Problem]
) -> tuple[Names, dict[str, tuple[Path, ...]], list[str]]:
    """Finds the files of each image's bands: by folders, or by patterns with `{stem}`.

    Args:
        images: The files of all bands.
        bands: A folder, or a pattern, for each band.
        base: The folder of all files.
        problems: Images without one of the bands are added.

    Returns:
        The files of the first band, by the name that all bands share; those of the others; and the
        names of images without one of them.
    """
    first, *rest = bands
    names: dict[str, str] = {}
    others: dict[str, tuple[Path, ...]] = {}
    incomplete = []
    for stem in images:
        whole = without(first, stem)
        if whole is None:
            continue
        files = [images.get(with_band(band, whole), []) for band in rest]
        if all(len(file) == 1 for file in files):
            names[images[stem][0]] = whole
            others[whole] = tuple(base / file[0] for file in files)
            continue
        lost = next(band for band, file in zip(rest, files, strict=True) if len(file) != 1)
        error = FileError(
            base / images[stem][0],
            f"has no band {with_band(lost, whole)}.* beside it",
            "add it, or correct data.bands",
        )
        problems.append(Problem(sample_name(whole), error))
        incomplete.append(whole)
    if not others and not problems:
        raise UserError(
            f"data.bands={list(bands)} fits no file in {base}, such as "
            f"{next(iter(images.values()))[0]}: name a folder for each band, or a pattern such as "
            "'{stem}_B02'"
        )
    return Names(names, key=names.__getitem__), others, incomplete


def with_band(band: str, whole: str) -> str:
    """Makes the path of a band, without suffix, from the one that all bands of an image share."""
    folder, _, last = whole.rpartition("/")
    name = band.replace(STEM, last) if STEM in band else f"{band}/{last}"
    return f"{folder}/{name}" if folder else name


def without(band: str, stem: str) -> str | None:
    """Recovers the name that all bands of an image share from that of its first band."""
    if STEM in band:
        before, _, after = band.partition(STEM)
        folder, _, last = stem.rpartition("/")
        fits = last.startswith(before) and last.endswith(after) and len(last) > len(before + after)
        if not fits:
            return None
        whole = last[len(before) : len(last) - len(after)]
        return f"{folder}/{whole}" if folder else whole
    folder, _, last = stem.rpartition("/")
    above, _, own = folder.rpartition("/")
    if own != band:
        return None
    return f"{above}/{last}" if above else last
