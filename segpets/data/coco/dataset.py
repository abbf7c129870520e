"""Instances in COCO's format as semantic masks.

T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, arXiv:1405.0312; the
format is described at https://cocodataset.org/#format-data.

    annotations/instances_{train,val}2017.json    train2017/  val2017/    as COCO has it
    {train,valid,test}/_annotations.coco.json     beside its images       as Roboflow exports it

Where instances overlap, the smaller lies above the larger, so that small things stay visible;
among equals the later one does. Pixels of no instance are background.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segpets.data.coco.files import categories, class_names, find_files, unknown_category
from segpets.data.coco.instances import REMEDY, Instances, ListedImage, stems
from segpets.data.coco.outline import area, draw, runs_of
from segpets.data.filenames import SUFFIXES
from segpets.data.holdout import holdout, in_three
from segpets.data.source import Mask, Problem, Sample, Splits, sample_name
from segpets.data.stages import grouped_stages, warned
from segpets.errors import FileError, UserError
from segpets.settings import Natural, checked


class Coco:
    """Lists the images of JSON files of instances, and draws their masks.

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
        group: A regular expression that names what no split may part; see `Folder`.
        seed: Chooses the images that are held out.

    Raises:
        UserError: The arguments contradict each other or the files.
    """

    @checked("data")
    def __init__(
        self,
        *,
        classes: Any,
        root: str | Path | None = None,
        annotations: str | Path | None = None,
        images: str | Path | None = None,
        files: Any = None,
        categories: Any = None,
        crowd: Literal["class", "ignore"] = "class",
        empty: Literal["keep", "drop"] = "keep",
        split: Literal["holdout", "files"] = "holdout",
        group: str | None = None,
        seed: Natural = 0,
    ) -> None:
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
        self.group = group
        self.rules = f"COCO, {expected}, crowd as {crowd}, smaller above larger"
        self._entries: dict[str, ListedImage] | None = None

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
        listings = [
            Instances(file, self._class_ids(file.path), ignore_crowds=self.crowd == "ignore")
            for file in self.files
        ]
        samples = self._samples(listings, problems)
        samples = grouped_stages(samples, self.group, self.root)
        unused = _unused(samples.values(), problems) if self.empty == "keep" else []
        if not any(samples.values()):
            first = f". The first problem: {problems[0].error}" if problems else ": add some"
            raise UserError(f"{self.files[0].path} has no image that can be used{first}")
        if self.split == "files":
            test = samples.get("test", samples["val"])
            splits = Splits(
                train=samples["train"],
                val=samples["val"],
                test=test,
                val_is_test="test" not in samples,
                problems=problems,
                unused=unused,
            )
            return warned(splits)
        train, val, test = self._held_out(samples, problems)
        return warned(Splits(train=train, val=val, test=test, problems=problems, unused=unused))

    def mask(self, sample: Sample) -> Mask:
        """Draws a mask as class ids; see `Source.mask`."""
        if self._entries is None:
            self.splits()
        assert self._entries is not None
        entry = self._entries[sample.name]
        outlines = []
        for annotation, value in entry.annotations:
            try:
                outlines.append((runs_of(annotation, entry.height, entry.width), value))
            except ValueError as error:
                raise FileError(
                    sample.mask,
                    f"has the annotation {annotation.get('id')!r:.40} of {sample.image.name}, "
                    f"which {error}",
                    REMEDY,
                ) from error
        canvas = np.zeros((entry.height, entry.width), dtype=np.uint8, order="F")
        for runs, value in sorted(outlines, key=lambda outline: -area(outline[0])):
            draw(runs, canvas, value)
        return np.ascontiguousarray(canvas)

    def _class_ids(self, file: Path) -> dict[int, int | None]:
        """Maps each category id to its class; None for those that aren't chosen."""
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

    def _samples(
        self, listings: Sequence[Instances], problems: list[Problem]
    ) -> dict[str, list[Sample]]:
        """Lists the samples of each file by its stage; records their annotations."""
        counts = Counter(stems(listings))
        listed: dict[str, Path] = {}
        entries: dict[str, ListedImage] = {}
        samples: dict[str, list[Sample]] = {}
        for listing in listings:
            file = listing.file
            samples[file.stage] = []
            for entry in listing.entries:
                stem = os.path.splitext(entry.name)[0]
                unique = counts[stem] == 1
                name = sample_name(stem if unique else f"{file.stage}/{entry.name}")
                image = listing.folder / entry.name
                other = listed.setdefault(str(image), file.path)
                error = entry.error
                if error is None and other != file.path:
                    what = f"is listed in {other} and in {file.path}"
                    error = FileError(image, what, "remove it from one of them")
                if error is not None:
                    problems.append(Problem(name, error))
                elif entry.annotations or self.empty == "keep":
                    entries[name] = entry
                    sample = Sample(name, image, file.path, mask_hash=entry.digest())
                    samples[file.stage].append(sample)
            problems += listing.strays()
        self._entries = entries
        return samples

    def _held_out(
        self, samples: Mapping[str, list[Sample]], problems: Sequence[Problem]
    ) -> tuple[list[Sample], list[Sample], list[Sample]]:
        if set(samples) == {"train", "val", "test"}:
            return samples["train"], samples["val"], samples["test"]
        more = f". {len(problems)} can't be used: {problems[0].error}" if problems else ""
        if len(samples) == 1:
            (everything,) = samples.values()
            return in_three(everything, seed=self.seed, place=self.files[0].path, problems=problems)
        if len(samples["train"]) < 2:
            raise UserError(
                "data.split=holdout takes val from train, which has too few images in "
                f"{self.files[0].path}: add some, or use data.split=files{more}"
            )
        train, val = holdout(samples["train"], fraction=0.1, seed=self.seed)
        return train, val, samples["test" if "test" in samples else "val"]


def _unused(stages: Iterable[list[Sample]], problems: Sequence[Problem]) -> list[Path]:
    """Lists the pictures beside those that the files list."""
    listed: dict[Path, set[str]] = {}
    for sample in (sample for samples in stages for sample in samples):
        listed.setdefault(sample.image.parent, set()).add(sample.image.name)
    faulty = {problem.error.file.name for problem in problems}
    return [
        folder / name
        for folder, used in sorted(listed.items())
        for name in sorted(set(os.listdir(folder)) - used - faulty)
        if name[0] != "." and name.lower().endswith(SUFFIXES)
    ]
