"""Instances in COCO's format as semantic masks.

T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, arXiv:1405.0312; the
format is described at https://cocodataset.org/#format-data.

    annotations/instances_{train,val}2017.json    train2017/  val2017/    as COCO has it
    {train,valid,test}/_annotations.coco.json     beside its images       as Roboflow exports it

Where instances overlap, the smaller lies above the larger, so that small things stay visible;
among equals the later one does. Pixels of no instance are background.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segpets.coco_files import (
    categories,
    class_names,
    find_files,
    unknown_category,
)
from segpets.data.instances import REMEDY, Listing, Names, content_hash
from segpets.data.listing import SUFFIXES
from segpets.data.outline import area, draw, runs_of
from segpets.data.source import (
    Mask,
    Problem,
    Sample,
    Samples,
    Splits,
    check_seed,
    holdout,
    sample_name,
)
from segpets.errors import FileError, UserError


class Coco:
    """Lists the images of JSON files of instances, and draws their masks.

    Of the annotations only the places in the file are kept, 13 bytes each; they are read again,
    checked and drawn when a mask is wanted.

    Args:
        classes: The classes' names, as `coco_files.class_names` gives them.
        root: The folder of an official or Roboflow-like layout; None: that of the JSON.
        annotations: One JSON in place of a layout.
        images: The folder of all images; None looks where layouts have them.
        files: JSONs by stage in place of a layout.
        categories: Names of those that become classes, what else there is being background; None
            takes all.
        crowd: `class` takes a crowd (iscrowd) for pixels of its class; `ignore` ignores them.
        empty: `keep` or `drop` images without any pixel of a class but background.
        split: `holdout` holds out by the seed what isn't there: of one JSON 10 % for val and 10 %
            for test; of train and val 10 % of train for val, while val becomes test; of train,
            val and test nothing. `files` takes the files as they are; without a test file, val
            serves as test.
        seed: Chooses the images that are held out.

    Raises:
        UserError: The arguments contradict each other or the files.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str],
        root: str | Path | None = None,
        annotations: str | Path | None = None,
        images: str | Path | None = None,
        files: Mapping[str, str | Path] | None = None,
        categories: Sequence[str] | None = None,
        crowd: str = "class",
        empty: str = "keep",
        split: str = "holdout",
        seed: int = 0,
    ) -> None:
        for key, value, choices in (
            ("split", split, ("holdout", "files")),
            ("crowd", crowd, ("class", "ignore")),
            ("empty", empty, ("keep", "drop")),
        ):
            if value not in choices:
                raise UserError(f"data.{key}={value} is unknown: choose {' or '.join(choices)}")
        check_seed(seed)
        self.files = find_files(root, annotations, files, images)
        self.root = Path(root).expanduser() if root is not None else self.files[0].path.parent
        expected = class_names(root, annotations, files, categories)
        if list(classes) != expected:
            raise UserError(
                f"data.classes={list(classes)} doesn't fit the categories, {expected}: leave it "
                "out, and choose by data.categories=[cat,dog]"
            )
        self.classes, self.chosen = expected, categories
        self.crowd, self.empty, self.split, self.seed = crowd, empty, split, seed
        self.rules = f"COCO, {expected}, crowd as {crowd}, smaller above larger"
        self._places: _Places | None = None

    def splits(self) -> Splits:
        """Lists the samples of each stage; see `Source.splits`."""
        stages = {file.stage for file in self.files}
        needed = {"train", "val"} if self.split == "files" else {"train"}
        if not needed <= stages and (self.split == "files" or len(stages) > 1):
            there = ", ".join(str(file.path) for file in self.files)
            raise UserError(
                f"data.split={self.split} needs files for {' and '.join(sorted(needed))}, but "
                f"there is only {there}: name them by 'data.files={{train: FILE, val: FILE}}', or "
                "split one by data.annotations=FILE data.split=holdout"
            )
        problems: list[Problem] = []
        names = Names()
        listings = [
            Listing(file, self._class_ids(file.path), names, ignore_crowds=self.crowd == "ignore")
            for file in self.files
        ]
        samples = self._samples(listings, problems)
        unused = _unused(names, samples.values(), problems) if self.empty == "keep" else []
        if not any(samples.values()):
            first = f". The first problem: {problems[0].error}" if problems else ": add some"
            raise UserError(f"{self.files[0].path} has no image that can be used{first}")
        if self.split == "files":
            test = samples.get("test", samples["val"])
            return Splits(
                train=samples["train"],
                val=samples["val"],
                test=test,
                val_is_test="test" not in samples,
                problems=problems,
                unused=unused,
            )
        train, val, test = self._held_out(samples, problems)
        return Splits(train=train, val=val, test=test, problems=problems, unused=unused)

    def mask(self, sample: Sample) -> Mask:
        """Draws a mask as class ids; see `Source.mask`."""
        if self._places is None:
            self.splits()
        assert self._places is not None
        height, width, values, texts = self._places.read(sample)
        if content_hash(height, width, values, texts) != sample.mask_hash:
            raise FileError(sample.mask, "has changed since its images were listed", "start anew")
        outlines = []
        for value, text in zip(values, texts, strict=True):
            annotation = json.loads(text)
            try:
                outlines.append((runs_of(annotation, height, width), int(value)))
            except ValueError as error:
                raise FileError(
                    sample.mask,
                    f"has the annotation {annotation.get('id')!r:.40} of {sample.image.name}, "
                    f"which {error}",
                    REMEDY,
                ) from error
        canvas = np.zeros((height, width), dtype=np.uint8, order="F")
        for runs, value in sorted(outlines, key=lambda outline: -area(outline[0])):
            draw(runs, canvas, value)
        return np.ascontiguousarray(canvas)

    def _class_ids(self, file: Path) -> dict[int, int | None]:
        """The class of each category id; None for those that aren't chosen."""
        known = categories(file)
        by_name = {name: index for index, name in enumerate(self.classes)}
        names = [name for _, name in known]
        for name in self.classes[1:] if self.chosen is not None else []:
            if name not in names:
                raise unknown_category(name, names, file)
        strange = [name for name in names if name not in by_name]
        if strange and self.chosen is None:
            raise FileError(
                file,
                f"has the category {strange[0]}, which {self.files[0].path} hasn't",
                "add it there, or choose those that both have by data.categories=[cat,dog]",
            )
        return {id_: by_name.get(name) for id_, name in known}

    def _samples(self, listings: Sequence[Listing], problems: list[Problem]) -> dict[str, Samples]:
        """The samples of each file by its stage; notes where their annotations lie."""
        stems = Counter(os.path.splitext(name)[0] for listing in listings for name in listing.names)
        places = _Places(listings)
        listed: dict[str, Path] = {}
        found = {
            listing.file.stage: Samples(
                self._usable(listing, index, stems, listed, places, problems)
            )
            for index, listing in enumerate(listings)
        }
        places.seal()
        self._places = places
        return found

    def _usable(
        self,
        listing: Listing,
        index: int,
        stems: Counter[str],
        listed: dict[str, Path],
        places: "_Places",
        problems: list[Problem],
    ) -> Iterator[Sample]:
        file = listing.file
        for row, relative in enumerate(listing.names):
            stem = os.path.splitext(relative)[0]
            name = sample_name(stem if stems[stem] == 1 else f"{file.stage}/{relative}")
            image = listing.folder / relative
            error = listing.errors.get(row)
            if error is None:
                other = listed.setdefault(str(image), file.path)
                if other != file.path:
                    error = FileError(
                        image,
                        f"is listed in {other} and in {file.path}",
                        "remove it from one of them",
                    )
            if error is not None:
                problems.append(Problem(name, error))
                continue
            begin, end = int(listing.ends[row]), int(listing.ends[row + 1])
            if begin == end and self.empty == "drop":
                continue
            places.add(name, index, listing.heights[row], listing.widths[row], begin, end)
            yield Sample(name, image, file.path, mask_hash=listing.digests[row])
        problems += listing.strays()

    def _held_out(
        self, samples: Mapping[str, Samples], problems: Sequence[Problem]
    ) -> tuple[Samples, Samples, Samples]:
        if set(samples) == {"train", "val", "test"}:
            return samples["train"], samples["val"], samples["test"]
        more = f". {len(problems)} can't be used: {problems[0].error}" if problems else ""
        if len(samples) == 1:
            (everything,) = samples.values()
            if len(everything) < 3:
                raise UserError(
                    f"{self.files[0].path} has {len(everything)} images that can be used, but "
                    f"train, val and test need at least one each: add images{more}"
                )
            rest, test = holdout(everything, fraction=1 / 10, by=None, seed=self.seed)
            train, val = holdout(rest, fraction=1 / 9, by=None, seed=self.seed)
            return train, val, test
        if len(samples["train"]) < 2:
            raise UserError(
                "data.split=holdout takes val from train, which has too few images in "
                f"{self.files[0].path}: add some, or use data.split=files{more}"
            )
        train, val = holdout(samples["train"], fraction=0.1, by=None, seed=self.seed)
        return train, val, samples["test" if "test" in samples else "val"]


def _unused(names: Names, stages: Iterable[Samples], problems: Sequence[Problem]) -> list[Path]:
    """The pictures beside those that the files list."""
    listed: dict[str, set[str]] = {}
    for sample in (sample for samples in stages for sample in samples):
        listed.setdefault(str(sample.image.parent), set()).add(sample.image.name)
    faulty = {problem.error.file.name for problem in problems}
    return [
        Path(folder, name)
        for folder, used in sorted(listed.items())
        for name in sorted(names[folder] - used - faulty)
        if name[0] != "." and name.lower().endswith(SUFFIXES)
    ]


class _Places:
    """Where the annotations of images lie in their files, in few bytes and easy to pickle."""

    def __init__(self, listings: Sequence[Listing]) -> None:
        self._files = [listing.file.path for listing in listings]
        self._begins = [listing.begins for listing in listings]
        self._lengths = [listing.lengths for listing in listings]
        self._values = [listing.values for listing in listings]
        self._added: list[tuple[str, tuple[int, ...]]] = []
        self._names: NDArray[np.bytes_] = np.array([], dtype=np.bytes_)
        self._rows: NDArray[np.int64] = np.zeros((0, 5), dtype=np.int64)

    def add(self, name: str, *row: int) -> None:
        """Notes a sample: its file, height, width, first annotation and the one after its last."""
        self._added.append((name, row))

    def seal(self) -> None:
        """Packs what was added."""
        self._added.sort()
        self._names = np.array([name for name, _ in self._added], dtype=np.bytes_)
        rows = [row for _, row in self._added]
        self._rows = np.array(rows, dtype=np.int64).reshape(-1, 5)
        self._added = []

    def read(self, sample: Sample) -> tuple[int, int, NDArray[np.uint8], list[bytes]]:
        """Reads height, width, classes and annotations of a sample.

        Raises:
            FileError: The file is gone.
            KeyError: There is no such sample.
        """
        at = int(np.searchsorted(self._names, sample.name.encode()))
        if at == len(self._names) or self._names[at] != sample.name.encode():
            raise KeyError(sample.name)
        index, height, width, begin, end = self._rows[at].tolist()
        file, begins, lengths = self._files[index], self._begins[index], self._lengths[index]
        try:
            with file.open("rb", buffering=0) as stream:
                texts = [
                    os.pread(stream.fileno(), int(lengths[row]), int(begins[row]))
                    for row in range(begin, end)
                ]
        except OSError as error:
            raise FileError(file, f"can't be read ({error.strerror})", "restore it") from error
        return height, width, self._values[index][begin:end], texts
