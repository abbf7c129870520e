"""Pairs of images and masks in folders, by their names."""

import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from segpets.data.bands import banded
from segpets.data.filenames import SUFFIXES, Names, inventory, pictures, stem_of
from segpets.data.mask_names import STEM, guessed_pattern, mask_stem, strays_of
from segpets.data.source import Problem, Sample, sample_name
from segpets.data.stages import WORDS
from segpets.errors import FileError, UserError

log = logging.getLogger(__name__)

Join = Literal["union", "by_name"]

IMAGE_FOLDERS: Final = ("images", "image", "imgs", "img")
MASK_FOLDERS: Final = ("masks", "mask", "labels", "label", "annotations")
_APART: Final = "_-. "
"""Characters between the name of a mask and what tells several masks of an image apart."""


@dataclass(frozen=True)
class Folders:
    """Folders of images and masks.

    Attributes:
        images: The folder of images.
        masks: The folder of masks.
        by_stage: The data set itself, where each stage has folders of its own within, as in
            `train/images`; then both folders are that.
    """

    images: Path
    masks: Path
    by_stage: bool = False


@dataclass
class Paired:
    """Samples, and where they were found.

    Attributes:
        samples: The samples.
        paths: The path of each image, relative to the data and without suffix, by name.
        problems: What can't be used.
    """

    samples: list[Sample] = field(default_factory=list)
    paths: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def locate(root: Path, images: Path, masks: Path, *, named: bool) -> Folders:
    """Finds the folders.

    Args:
        root: The data set.
        images: The folder of images, as given or as expected.
        masks: The folder of masks.
        named: Whether the user named one of them.

    Raises:
        UserError: There are none.
    """
    if not named and not images.is_dir() and _stages_within(root):
        return Folders(root, root, by_stage=True)
    for key, place in (("images", images), ("masks", masks)):
        if not place.is_dir():
            raise UserError(
                f"data.{key}: {place} is not a folder. data.root={root} {inventory(root)}, but "
                "must hold images/ and masks/, or both in each of train/, val/ and test/. Or give "
                f"data.images=DIR data.masks=DIR, or data.pairs=FILE.csv{_hint(root)}"
            )
    return Folders(images, masks)


def _stages_within(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    stages = [folder for folder in sorted(root.iterdir()) if folder.name.lower() in WORDS]
    return [s for s in stages if _inner(s, IMAGE_FOLDERS) and _inner(s, MASK_FOLDERS)]


def _inner(folder: Path, names: Sequence[str]) -> bool:
    return any((folder / name).is_dir() for name in names)


def _hint(root: Path) -> str:
    """Suggests what to say for images and masks that lie side by side."""
    if not root.is_dir() or not any(p.is_dir() and p.name.lower() in WORDS for p in root.iterdir()):
        return ""
    return (
        f". Where they lie side by side, data.images={root} data.masks={root} and "
        "'data.mask_pattern=\"{stem}_mask\"' tells them apart"
    )


def paired(
    folders: Folders,
    pattern: str,
    *,
    join: Join | None,
    bands: Sequence[str] | None,
    classes: Sequence[str],
) -> Paired:
    """Pairs each image with its mask.

    Args:
        folders: Where they lie.
        pattern: The stem of a mask, made of the `{stem}` of its image.
        join: What becomes of several masks of one image; None refuses them.
        bands: The files of an image's bands; see `segpets.data.Folder`.
        classes: Class names, for masks that name theirs.

    Raises:
        UserError: No name fits.
    """
    images, masks = _names(folders, pattern)
    found = Paired()
    others: dict[str, tuple[Path, ...]] = {}
    if bands:
        images, others, lost = banded(images, bands, folders.images, found.problems)
        for stem in lost:
            masks.claim(mask_stem(stem, pattern))
    further = _further(images, masks, pattern)
    strays = strays_of(images, masks, pattern)
    rivals = defaultdict(list)
    for stem, candidates in strays.items():
        rivals[tuple(candidates)].append(stem)
    for stem in images:
        wanted = mask_stem(stem, pattern)
        candidates = strays.get(stem, [wanted])
        mine = [folders.masks / f for mask in candidates for f in masks.claim(mask)]
        claims = rivals.get(tuple(candidates), [stem])
        ours = [folders.images / file for claim in claims for file in images[claim]]
        more = further.get(stem, [])
        if join is None and not mine and len(more) == 1:
            more = []  # one mask of another name is no second mask: the pattern is wrong
        every = mine + [folders.masks / f for mask in more for f in masks.claim(mask)]
        if error := _refusal(ours, mine, every, folders.masks / wanted, join, classes):
            found.problems.append(Problem(sample_name(stem), error))
            continue
        sample = Sample(
            sample_name(stem),
            ours[0],
            every[0],
            bands=others.get(stem, ()),
            masks=tuple(every[1:]),
        )
        found.samples.append(sample)
        found.paths[sample.name] = stem
    if not masks.claimed:
        _refuse(folders, images, masks, pattern)
    found.problems += _orphans(folders, masks)
    return found


def _orphans(folders: Folders, masks: Names) -> Iterator[Problem]:
    for stem in sorted(masks.keys() - masks.claimed):
        remedy = "add it, or exclude the mask by data.exclude"
        error = FileError(folders.masks / masks[stem][0], "is a mask without an image", remedy)
        yield Problem(sample_name(stem), error)


def _refusal(
    images: Sequence[Path],
    exact: Sequence[Path],
    masks: Sequence[Path],
    wanted: Path,
    join: Join | None,
    classes: Sequence[str],
) -> FileError | None:
    """Explains why an image and its masks can't be used, if they can't."""
    if not masks:
        remedy = "add it, or exclude the image by data.exclude"
        return FileError(images[0], f"has no mask {wanted}.*", remedy)
    if len(exact) > 1 or len(images) > 1:
        return _several(*(exact if len(exact) > 1 else images)[:2])
    if len(masks) > 1 and join is None:
        return _many(images[0], masks)
    if join == "by_name" and (odd := _unnamed(masks, classes)):
        remedy = "rename it, or add the class"
        return FileError(odd, "names none of data.classes behind its image", remedy)
    return None


def _names(folders: Folders, pattern: str) -> tuple[Names, Names]:
    if folders.by_stage:
        every = pictures(folders.images, key="root").files()
        return _of_kind(every, IMAGE_FOLDERS), _of_kind(every, MASK_FOLDERS)
    if not folders.images.samefile(folders.masks):
        images = pictures(folders.images, key="images", without=folders.masks)
        masks = pictures(folders.masks, key="masks", without=folders.images)
        return images, _of_two_suffixes(images, masks, pattern)
    if pattern == STEM:
        raise UserError(
            f"data.images and data.masks are the same folder, {folders.images}: say which of its "
            "files are masks, as in 'data.mask_pattern=\"{stem}_mask\"', where that is the image's "
            "name and more; else name the pairs in a table, data.pairs=FILE.csv with the columns "
            "image,mask"
        )
    both = pictures(folders.images, key="images")
    wanted = {mask_stem(stem, pattern) for stem in both}
    masks = Names(file for file in both.files() if stem_of(file) in wanted)
    if not masks:
        raise UserError(
            f"no file in {folders.images} is named {pattern} after another, such as "
            f"{next(iter(both.values()))[0]}: correct data.mask_pattern, or name the pairs in a "
            "table, data.pairs=FILE.csv with the columns image,mask"
        )
    numbered = {stem for stem in both if stem not in masks and _continues_one(stem, masks)}
    images = Names(f for f in both.files() if stem_of(f) not in wanted | numbered)
    return images, Names(f for f in both.files() if stem_of(f) in masks or stem_of(f) in numbered)


def _of_kind(files: Sequence[str], kinds: Sequence[str]) -> Names:
    """Chooses the files in folders of a kind, named as if those weren't there."""
    chosen: dict[str, str] = {}
    for file in files:
        parts = file.split("/")
        at = next((i for i, part in enumerate(parts[:-1]) if part.lower() in kinds), None)
        if at is not None:
            chosen[file] = "/".join(parts[:at] + parts[at + 1 :])
    return Names(chosen, key=lambda file: stem_of(chosen[file]))


def _of_two_suffixes(images: Names, masks: Names, pattern: str) -> Names:
    """Names masks such as `a.jpeg.png` after the image `a`, where no image needs the whole name."""
    wanted = {mask_stem(stem, pattern) for stem in images}

    def key(file: str) -> str:
        stem = stem_of(file)
        shorter, suffix = os.path.splitext(stem)
        double = suffix.lower() in SUFFIXES and stem not in wanted and shorter in wanted
        return shorter if double and shorter not in masks else stem

    return Names(masks.files(), key=key)


def _continues_one(stem: str, masks: Names) -> bool:
    """Tells whether a stem is that of a mask, and more behind a character that parts them."""
    return any(stem[:at] in masks for at, letter in enumerate(stem) if letter in _APART)


def _further(images: Names, masks: Names, pattern: str) -> dict[str, list[str]]:
    """Finds masks that are named after an image and more, such as `a_mask_1`, by image."""
    exact = {mask_stem(stem, pattern): stem for stem in images}
    further: dict[str, list[str]] = {}
    for mask in sorted(masks.keys() - exact.keys()):
        cuts = [match.start() for match in re.finditer(f"[{re.escape(_APART)}]", mask)]
        for cut in reversed(cuts):  # the longest name counts
            if (stem := exact.get(mask[:cut])) is not None:
                further.setdefault(stem, []).append(mask)
                break
    return further


def _unnamed(files: Sequence[Path], classes: Sequence[str]) -> Path | None:
    known = {name.casefold() for name in classes}
    return next((file for file in files if class_of(file, known) is None), None)


def class_of(file: Path, known: set[str]) -> str | None:
    """Finds the class, in small letters, that a mask's name ends in."""
    last = stem_of(file.name)
    return next((n for n in sorted(known, key=len, reverse=True) if _ends_in(last, n)), None)


def _ends_in(stem: str, name: str) -> bool:
    before = stem.casefold().removesuffix(name)
    return before != stem.casefold() and (not before or before[-1] in _APART)


def _many(image: Path, masks: Sequence[Path]) -> FileError:
    names = ", ".join(file.name for file in masks[:3])
    more = f" and {len(masks) - 3} more" if masks[3:] else ""
    return FileError(
        image,
        f"has {len(masks)} masks: {names}{more}",
        "data.masks_per_image=union joins them; by_name takes each for the class that its name "
        "ends in",
    )


def _several(first: Path, second: Path) -> FileError:
    """Reports two files that are partners of the same file."""
    remedy = "remove or rename one, or name the pairs by data.pairs"
    if first.name == second.name and first.parent.parent == second.parent.parent:
        bands = f"[{first.parent.name},{second.parent.name}]"
        remedy += f"; if they are bands of one picture, data.bands={bands} names their folders"
    return FileError(first, f"and {second} are partners of the same file", remedy)


def _refuse(folders: Folders, images: Names, masks: Names, pattern: str) -> None:
    """Reports that no name fits, and which pattern would."""
    guess = guessed_pattern(images, masks)
    remedy = f"data.mask_pattern={guess}" if guess else "data.mask_pattern, or data.pairs=FILE.csv"
    image, mask = (next(iter(names.values()))[0] for names in (images, masks))
    raise UserError(
        f"{folders.images} holds {len(images)} images, such as {image}, and {folders.masks} holds "
        f"{len(masks)} masks, such as {mask}, but no mask is named {pattern} after "
        f"its image: say how they are named by {remedy}"
    )
