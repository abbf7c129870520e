"""Images and masks of known folders: paired by name, and chosen by the lists that name them."""

import filecmp
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from segpets.data.filenames import SUFFIXES, Names, normal, pictures, read_text
from segpets.data.holdout import parted
from segpets.data.source import Problem, Sample, sample_name
from segpets.errors import FileError

_WORDS: Final = re.compile(r'"([^"]+)"|(\S+)')
_COLUMN: Final = re.compile(r"(.*\S)\s+-?[01]")


@dataclass(frozen=True, slots=True)
class Found:
    """An image that a list names, or that lies in a folder.

    Attributes:
        name: The sample's name.
        where: The list and its line, `train.txt:3`, or the folder.
        listing: The list, or the folder.
        result: The image with its mask, or why there is none.
    """

    name: str
    where: str
    listing: Path
    result: Sample | FileError


class Pairs:
    """Pairs the images of some folders with their masks.

    A mask has the stem of its image, perhaps with an ending, or with the name of its own folder
    in place of that of the image: `train/train_1` and `trainannot/trainannot_1`.

    Args:
        home: The folder that all others lie in.
        masks: The folder of masks by the folder of images, relative to `home`.
        endings: What may be added to a stem.

    Raises:
        UserError: A folder holds no pictures.
    """

    def __init__(
        self, home: Path, masks: Mapping[str, str], *, endings: Sequence[str] = ("",)
    ) -> None:
        self.home, self.masks, self._endings = home, dict(masks), endings
        self._files: dict[str, Names] = {}
        self._paths: dict[str, Path] = {}  # as many a path costs more than all else
        if len(self.masks) > 1:
            counts = Counter(stem for folder in self.masks for stem in self.files(folder))
            self.shared = {stem for stem, count in counts.items() if count > 1}
        else:
            self.shared = set()

    def files(self, folder: str) -> Names:
        """Returns the pictures of a folder by their stems; the folder is read once."""
        if folder not in self._files:
            self._paths[folder] = self.home / folder
            self._files[folder] = pictures(self._paths[folder], key="root")
        return self._files[folder]

    def name(self, folder: str, stem: str) -> str:
        """Names a sample: by its stem, with the folder where several have that stem."""
        return sample_name(f"{folder}/{stem}" if stem in self.shared else stem)

    def partners(self, folder: str, stem: str) -> list[str]:
        """Lists the stems of an image's masks; one, if all is well."""
        masks = self.masks[folder]
        wanted = [stem + ending for ending in self._endings]
        head, last = os.path.basename(folder), os.path.basename(stem)
        if last.startswith(f"{head}_"):
            wanted.append(
                stem[: len(stem) - len(last)] + os.path.basename(masks) + last[len(head) :]
            )
        return [mask for mask in dict.fromkeys(wanted) if mask in self.files(masks)]

    def all(self, folder: str, *, lone: bool = True) -> Iterator[Found]:
        """Lists all images of a folder, and its masks that belong to none."""
        used: set[str] = set()
        for stem in self.files(folder):
            partners = self.partners(folder, stem)
            used.update(partners)
            if not partners and not lone:
                continue
            result = self._pair(folder, stem, self.masks[folder], partners, "")
            yield Found(self.name(folder, stem), folder, self.home / folder, result)
        masks = self.masks[folder]
        for stem in sorted(self.files(masks).keys() - used):
            error = FileError(
                self.home / masks / self.files(masks)[stem][0],
                f"is a mask without an image in {self.home / folder}",
                "add it, or exclude the mask by data.exclude",
            )
            yield Found(sample_name(f"{masks}/{stem}"), folder, self.home / folder, error)

    def listed(self, listing: Path, folder: str) -> Iterator[Found]:
        """Reads the images that a list names.

        A line names an image, or an image and its mask, as paths of which the last parts count;
        or an image and a number from -1 to 1, which is ignored. `#` begins a comment.

        Args:
            listing: The list.
            folder: The folder of images in which bare names are looked for.

        Raises:
            UserError: It can't be read.
        """

        def known(line: str) -> bool:
            return any(self._stem(place, normal(line)) for place in (folder, *self.masks))

        text = read_text(listing, "data.split")
        for number, word, mask in _entries(text, known):
            where = f"{listing.name}:{number}"
            location = self._image(word, folder)
            outside = [name for name in (word, mask) if ".." in _parts(name)]
            if outside:
                error = FileError(
                    listing,
                    f"names {outside[0]} in line {number}, which leaves its folder",
                    "correct the name, or remove the line",
                )
                yield Found(sample_name(word), where, listing, error)
            elif location is None:
                last = _parts(word)[-1:] or ["(nothing)"]
                file = self.home / folder / (last[0] if _suffixed(last[0]) else f"{last[0]}.*")
                missing = f"is missing, though {listing}:{number} names it"
                error = FileError(file, missing, "restore it, or remove the line")
                yield Found(sample_name(_unsuffixed(word)), where, listing, error)
            else:
                place, stem = location
                masks, partners = self._mask(mask, place, stem)
                told = f", though {listing}:{number} names it"
                result = self._pair(place, stem, masks, partners, told)
                yield Found(self.name(place, stem), where, listing, result)

    def unused(self, named: Iterable[str]) -> list[Path]:
        """Lists the images with masks whose names aren't among the given ones."""
        taken = set(named)
        return [
            self.home / folder / files[0]
            for folder in self.masks
            for stem, files in self.files(folder).items()
            if self.name(folder, stem) not in taken and self.partners(folder, stem)
        ]

    def _pair(
        self, folder: str, stem: str, masks: str, partners: list[str], told: str
    ) -> Sample | FileError:
        images = [self._paths[folder] / file for file in self.files(folder)[stem]]
        if not partners:
            return FileError(
                images[0],
                f"has no mask {self.home / masks / stem}.*{told}",
                "add it, or exclude the image by data.exclude",
            )
        files = [file for mask in partners for file in self.files(masks)[mask]]
        mask_files = [self._paths[masks] / file for file in files]
        for first, *others in (images, mask_files):
            if others:
                several = f"and {others[0]} are partners of the same file"
                return FileError(first, several, "remove or rename one")
        return Sample(self.name(folder, stem), images[0], mask_files[0])

    def _image(self, word: str, folder: str) -> tuple[str, str] | None:
        """Finds the folder and stem of an image; a known folder in the path takes precedence."""
        parts = _parts(word)
        tails = ["/".join(parts[start:]) for start in range(len(parts))]
        for tail in tails:
            for place in self.masks:
                if tail.startswith(f"{place}/"):
                    if stem := self._stem(place, tail[len(place) + 1 :]):
                        return place, stem
        places = (folder, *(place for place in self.masks if place != folder))
        for tail in tails:
            for place in places:
                if stem := self._stem(place, tail):
                    return place, stem
        return None

    def _mask(self, word: str, folder: str, stem: str) -> tuple[str, list[str]]:
        own, parts = self.masks[folder], _parts(word)
        if len(parts) == 1 and (named := self._stem(own, parts[0])):
            return own, [named]
        others = parts[-2:-1] if _suffixed(word) else []
        for masks in (*self.masks.values(), *others):
            for start in range(len(parts)):
                tail = "/".join(parts[start:])
                if tail.startswith(f"{masks}/") and os.path.isdir(self.home / masks):
                    named = self._stem(masks, tail[len(masks) + 1 :])
                    return masks, [named] if named else []
        return own, self.partners(folder, stem)

    def _stem(self, folder: str, word: str) -> str | None:
        files = self.files(folder)
        return next((stem for stem in (word, _unsuffixed(word)) if stem in files), None)


def gathered(
    pairs: Pairs, stages: Mapping[str, Iterable[Found]], problems: list[Problem]
) -> dict[str, list[Sample]]:
    """Gathers the samples of each stage.

    A sample that is unusable, in two stages or twice in one becomes a problem and is in none.
    """
    taken: dict[str, str] = {}
    twins: dict[str, list[Path]] = {}
    twice: set[str] = set()

    def refused(found: Found, sample: Sample) -> FileError | None:
        """Explains why a sample can't be used a second time, if it can't."""
        if found.name in taken:
            twice.add(found.name)
            return FileError(
                found.listing,
                f"names {found.name} ({found.where}), as {taken[found.name]} does",
                "remove one of them, as an image belongs to one split, once",
            )
        taken[found.name] = found.where
        if (stem := normal(sample.image.stem)) in pairs.shared:
            for twin in twins.setdefault(stem, []):
                if filecmp.cmp(twin, sample.image, shallow=False):
                    return FileError(sample.image, f"is the same as {twin}", "remove one of them")
            twins[stem].append(sample.image)
        return None

    chosen: dict[str, list[Sample]] = {stage: [] for stage in stages}
    for stage, all_found in stages.items():
        for found in all_found:
            result = found.result
            error = refused(found, result) if isinstance(result, Sample) else result
            if error:
                problems.append(Problem(found.name, error))
            elif isinstance(result, Sample):
                chosen[stage].append(result)
    return {stage: parted(samples, twice)[0] for stage, samples in chosen.items()}


def _entries(text: str, known: Callable[[str], bool]) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        words = [quoted or bare for quoted, bare in _WORDS.findall(line)]
        paths = len(words) % 2 == 0 and all("/" in w or "\\" in w or _suffixed(w) for w in words)
        if known(line):  # the name may hold spaces
            yield number, line, ""
        elif paths:  # SegNet once had all of its pairs on one line
            yield from ((number, *pair) for pair in zip(words[::2], words[1::2], strict=True))
        elif len(words) == 1:
            yield number, words[0], ""
        else:
            column = _COLUMN.fullmatch(line)
            yield number, (column[1] if column else line).strip('"'), ""


def _parts(word: str) -> list[str]:
    return [part for part in normal(word.replace("\\", "/")).split("/") if part not in ("", ".")]


def _suffixed(word: str) -> bool:
    return word.lower().endswith(SUFFIXES)


def _unsuffixed(word: str) -> str:
    return os.path.splitext(word)[0] if _suffixed(word) else word
