"""The Oxford-IIIT Pet Dataset in its official layout.

O. M. Parkhi, A. Vedaldi, A. Zisserman, C. V. Jawahar, "Cats and Dogs", CVPR 2012. 37 breeds, about
200 images each, with a trimap: 1 = pet, 2 = background, 3 = border. Licence CC BY-SA 4.0.

    images/<Breed>_<n>.jpg
    annotations/trimaps/<Breed>_<n>.png
    annotations/{trainval,test}.txt      name, class id 1..37, species 1 cat / 2 dog, breed id
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from segpets import reading
from segpets.data.decode import read_indices
from segpets.data.download.archives import Archive, download
from segpets.data.download.fetch import check_checksum
from segpets.data.download.transport import check_mirrors
from segpets.data.filenames import homes
from segpets.data.holdout import holdout, parted
from segpets.data.source import Mask, Problem, Sample, Splits, check_class_count
from segpets.errors import FileError, UserError
from segpets.labels import IGNORE_INDEX
from segpets.settings import Natural, checked

SPECIES: Final = {"1": "cat", "2": "dog"}
PET, BACKGROUND, BORDER = 1, 2, 3

# What trimap values mean, for cats and for dogs, as class ids.
_LABELS: Final[dict[str, dict[str, dict[int, int]]]] = {
    labels: {"cat": cat, "dog": dog}
    for labels, cat, dog in (
        ("trimap", {PET: 0, BACKGROUND: 1, BORDER: 2}, {PET: 0, BACKGROUND: 1, BORDER: 2}),
        ("border_as_pet", {PET: 0, BACKGROUND: 1, BORDER: 0}, {PET: 0, BACKGROUND: 1, BORDER: 0}),
        (
            "border_ignored",
            {PET: 0, BACKGROUND: 1, BORDER: IGNORE_INDEX},
            {PET: 0, BACKGROUND: 1, BORDER: IGNORE_INDEX},
        ),
        (
            "species",
            {PET: 1, BACKGROUND: 0, BORDER: IGNORE_INDEX},
            {PET: 2, BACKGROUND: 0, BORDER: IGNORE_INDEX},
        ),
    )
}
_CLASSES: Final = {
    "trimap": ("pet", "background", "border"),
    "border_as_pet": ("pet", "background"),
    "border_ignored": ("pet", "background"),
    "species": ("background", "cat", "dog"),
}
_PARTS: Final = ("trainval", "test")
_FOLDERS: Final = ("annotations", "images")
_LIMIT: Final = 2 * 10**9
"""Bytes of an archive or of what it holds; the larger one has 0.8e9 of each."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class OxfordPets:
    """Reads names, breeds and splits; turns trimaps into class ids.

    Args:
        root: The folder with `images/` and `annotations/`.
        split: `holdout` splits the official trainval images 90/10 by breed into train and val,
            and tests on the official test images. `article` trains on all of trainval and
            validates on the test images with the training augmentation, as the article series
            does; so nothing may be chosen by its val metrics.
        labels: The set of classes. `trimap`: pet, background, border. `border_as_pet`: pet with
            its border, background. `border_ignored`: pet, background, and the border is no
            pixel's class. `species`: background, cat, dog, and the border is no pixel's class.
        classes: The classes' names, in the order of their ids; None takes those above.
        seed: Chooses the images that `holdout` holds out.
        download: Whether files missing in `root` are downloaded when samples are listed. What the
            user put there is used as it is. Needs 1.7 GB of room, of which 0.9 GB stay in use.
        mirrors: Addresses or folders that `images.tar.gz` and `annotations.tar.gz` may lie under.
        checksums: The checksums of these archives by folder: `images` and `annotations`.
    """

    stratify = "breed"
    splits_by_names = True

    @checked("data")
    def __init__(
        self,
        *,
        root: str | Path,
        split: Literal["holdout", "article"] = "holdout",
        labels: Literal["trimap", "border_as_pet", "border_ignored", "species"] = "trimap",
        classes: Any = None,
        seed: Natural = 0,
        download: bool = False,
        mirrors: Any = (),
        checksums: Any = None,
    ) -> None:
        if classes is not None:
            check_class_count(classes, _CLASSES[labels], by=f"data.labels={labels}")
        self.root = Path(os.path.expanduser(root))
        self._images, self._annotations = self.root / "images", self.root / "annotations"
        self.split = split
        self.seed = seed
        self.rules = f"trimap as {labels}"
        self._differences = {
            species: {
                value: np.uint8((class_id - _UNKNOWN) % 256) for value, class_id in ids.items()
            }
            for species, ids in _LABELS[labels].items()
        }
        self._mirrors = check_mirrors("data.mirrors", mirrors)
        if download and not self._mirrors:
            raise UserError(
                "data.download=true, but data.mirrors names no address: data=oxford_pets has those "
                "of the whole data set, and data=pets_mini lies in the package and needs none"
            )
        self._archives = _archives(checksums or {}) if download else []

    def splits(self) -> Splits:
        """Lists the samples of each stage, downloaded if need be; see `Source.splits`."""
        if self._archives:
            download(self.root, self._archives, mirrors=self._mirrors, lacking=self._lacking)
        if not self.root.is_dir():
            raise UserError(
                f"data.root={self.root} is not a folder: give the folder that holds images/ and "
                "annotations/ of the Oxford-IIIT Pet data set, add data.download=true, which "
                "downloads them, or use data=pets_mini, which needs no files"
            )
        self._locate()
        problems: list[Problem] = []
        trainval, test = (self._listed(part, problems) for part in _PARTS)
        if twice := {s.name for s in trainval} & {s.name for s in test}:
            listing = self._annotations / "test.txt"
            for name in sorted(twice):
                error = FileError(listing, f"lists {name}, as trainval.txt does", _ONE_SPLIT)
                problems.append(Problem(name, error))
            trainval, test = parted(trainval, twice)[0], parted(test, twice)[0]
        named = {sample.name for sample in (*trainval, *test)} | {p.name for p in problems}
        folder = self._images
        unused = [
            folder / file  # the official archive has some .mat files beside its images
            for file in sorted(_files(folder))
            if file.endswith(".jpg") and file[0] != "." and file.removesuffix(".jpg") not in named
        ]
        if self.split == "article":
            return Splits(
                train=trainval,
                val=test,
                test=test,
                augment_val=True,
                val_is_test=True,
                problems=problems,
                unused=unused,
            )
        train, val = holdout(trainval, fraction=0.1, by="breed", seed=self.seed)
        return Splits(train=train, val=val, test=test, problems=problems, unused=unused)

    def mask(self, sample: Sample) -> Mask:
        """Reads a trimap as class ids; see `Source.mask`."""
        trimap = read_indices(sample.mask)
        ids: Mask = np.full_like(trimap, _UNKNOWN)
        for value, difference in self._differences[sample.attributes["species"]].items():
            ids += (
                trimap == value
            ) * difference  # takes a fifth of the time of a look-up in a table
        if (ids == _UNKNOWN).any():
            wrong = sorted(set(np.unique(trimap).tolist()) - {PET, BACKGROUND, BORDER})
            raise FileError(
                sample.mask,
                f"has the values {wrong}, but a trimap has 1 (pet), 2 (background) and 3 (border) "
                "only",
                "replace the file, or remove its line from the split",
            )
        return ids

    def _locate(self) -> None:
        """Finds the folders where other programs unpack them: one deeper, or within themselves."""

        def is_home(folder: Path) -> bool:
            return all((folder / name).is_dir() for name in _FOLDERS)

        for home in homes(self.root, is_home)[:1]:
            images, annotations = home / "images", home / "annotations"
            if not any(images.glob("*.jpg")) and (images / "images").is_dir():
                images = images / "images"
            if not (annotations / "trimaps").is_dir() and (annotations / "annotations").is_dir():
                annotations = annotations / "annotations"
            self._images, self._annotations = images, annotations

    def _listed(self, part: str, problems: list[Problem]) -> list[Sample]:
        listing = self._annotations / f"{part}.txt"
        if not listing.is_file():
            raise UserError(
                f"{listing} is missing: data.root={self.root} must hold images/ and annotations/ "
                "of the Oxford-IIIT Pet data set; data.download=true downloads them"
            )
        samples = [self._sample(words) for words in _read(listing)]
        if not samples:
            raise UserError(f"{listing} lists no images: the split would be empty")
        counts = Counter(sample.name for sample in samples)
        for name in (name for name, count in counts.items() if count > 1):
            error = FileError(listing, f"lists {name} more than once", "remove the repeated lines")
            problems.append(Problem(name, error))
        samples = [sample for sample in samples if counts[sample.name] == 1]
        images = _files(self._images)
        trimaps = _files(self._annotations / "trimaps")
        whole = []
        for sample in samples:
            missing = [
                _missing(file, there, listing)
                for file, there in ((sample.image, images), (sample.mask, trimaps))
                if file.name not in there
            ]
            problems += [Problem(sample.name, error) for error in missing]
            if not missing:
                whole.append(sample)
        return whole

    def _lacking(self, folder: str, where: Path) -> list[str]:
        lists = where if folder == "annotations" else self._annotations
        listings = [lists / f"{part}.txt" for part in _PARTS]
        if absent := [listing.name for listing in listings if not listing.is_file()]:
            return absent
        sub, suffix = ("trimaps/", ".png") if folder == "annotations" else ("", ".jpg")
        there = _files(where / sub)
        files = (f"{name}{suffix}" for listing in listings for name, *_ in _read(listing))
        return [f"{sub}{file}" for file in files if file not in there]

    def _sample(self, words: list[str]) -> Sample:
        name = words[0]
        return Sample(
            name=name,
            image=self._images / f"{name}.jpg",
            mask=self._annotations / "trimaps" / f"{name}.png",
            attributes={"breed": name.rpartition("_")[0] or name, "species": SPECIES[words[2]]},
        )


_UNKNOWN: Final = 254
_ONE_SPLIT: Final = "remove it from one of them, as an image belongs to one split"


def _read(listing: Path) -> Iterator[list[str]]:
    # Editors on Windows put a mark before UTF-8; what is no UTF-8 fails as a name, by its line.
    text = reading.read_bytes(listing).decode("utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            words = line.split()
            if len(words) != 4 or words[2] not in SPECIES or not _NAME.fullmatch(words[0]):
                raise UserError(
                    f"{listing}:{number}: expected a name, a class id, a species (1 cat, 2 dog) "
                    f"and a breed id, found {' '.join(words)!r}"
                )
            yield words


def _archives(checksums: Mapping[str, str]) -> list[Archive]:
    return [
        Archive(
            file=f"{folder}.tar.gz",
            folder=folder,
            checksum=check_checksum(f"data.checksums.{folder}", checksums.get(folder)),
            limit=_LIMIT,
        )
        for folder in _FOLDERS
    ]


def _files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _missing(file: Path, there: set[str], listing: Path) -> FileError:
    near = {name.lower(): name for name in there}.get(file.name.lower())
    hint = f" (but there is {near}: rename it)" if near else ""
    remedy = "restore it, or remove its line"
    if not there:  # perhaps not even their folder
        remedy += "; data.download=true downloads the whole data set"
    return FileError(file, f"is missing, though {listing} lists it{hint}", remedy)
