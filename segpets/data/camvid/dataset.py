"""CamVid, the Cambridge-driving Labeled Video Database, as distributed in several layouts.

G. J. Brostow, J. Fauqueur, R. Cipolla, "Semantic object classes in video: A high-definition ground
truth database", Pattern Recognition Letters 2009. 701 frames of four drives, in 32 classes.

    701_StillsRaw_full/<name>.png   the original; LabeledApproved_full/<name>_L.png holds colours
    train/<name>.png                SegNet's tutorial; trainannot/<name>.png holds ids, 11 is void
    train/<name>.png                Kaggle; train_labels/<name>_L.png holds colours
    images/<name>.png               fast.ai; labels/<name>_P.png holds ids, the lines of codes.txt
    label_colors.txt                red, green, blue and name of each class; or class_dict.csv
    train.txt, val.txt, test.txt    an image and its mask a line; fast.ai's valid.txt names val

The 11 classes are those of V. Badrinarayanan, A. Kendall, R. Cipolla, "SegNet", TPAMI 2017. Which
of the 32 make up each is stated by MathWorks, "Semantic Segmentation Using Deep Learning", whose
`camvidPixelLabelIDs` groups them "following the original SegNet training methodology"; the
backup github.com/lih627/CamVid makes its masks of 11 classes by the same groups.

Frames that follow each other are nearly the same picture, so a split that draws them singly tests
on what was trained on. `holdout` takes runs of frames instead; see `CamVid`.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from segpets.data.camvid.classes import CLASSES, NAMES, SEGNET, class_of
from segpets.data.camvid.layout import Layout, images_of, layout_of, lists_of
from segpets.data.decode import read_lossless
from segpets.data.filenames import homes, inventory, read_text
from segpets.data.holdout import parted
from segpets.data.mask_values import IGNORE, Meaning, holds
from segpets.data.pairing import Found, Pairs, gathered
from segpets.data.source import STAGES, Mask, Problem, Sample, Splits, check_class_count
from segpets.errors import FileError, UserError
from segpets.settings import Natural, checked

log = logging.getLogger(__name__)


_ENDINGS: Final = ("", "_L", "_P")
_COLOUR_FILES: Final = ("label_colors.txt", "class_dict.csv")
_BLOCK: Final = 25  # frames that stay together in folds, where there are ten times as many
_LOOKED_AT: Final = 3
"""So many masks of each stage tell whether the set holds numbers or colours."""

_FRAME: Final = re.compile(r"(.*?)[_-]?[A-Za-z]?(\d+)")
_COLOUR_FIRST: Final = re.compile(r"(\d+)[\s,;]+(\d+)[\s,;]+(\d+)[\s,;]+(\S.*)")
_NAME_FIRST: Final = re.compile(r"(\S.*?)[\s,;]+(\d+)[\s,;]+(\d+)[\s,;]+(\d+)")

_LONG: Final = 100


class CamVid:
    """Finds out the layout, reads lists and splits, and turns ids or colours into class ids.

    Whether masks hold ids or colours is what most of a few masks hold; another one is an error.

    Args:
        root: The folder with one of the layouts, or one above it.
        images: The folder of images within the root, where it has another name.
        masks: The folder of their masks.
        labels: `segnet11` makes the 11 classes and ignores void; `all32` keeps all, Void being
            one.
        classes: The classes' names, in the order of their ids; None are those of the data.
        split: `files` follows the folders and lists of the set: without val, a run of frames of
            each drive is taken from train; without test, val serves as test. `holdout` makes
            80/10/10: of each drive, such as 0001TP or Seq05VD, one run of successive frames is
            test and another one val, chosen by the seed. So only the frames at the ends of these
            runs are next to a training frame; but all stages see the same drives, as in the
            official split. None is `files` where the set has splits, else `holdout`.
        seed: Chooses the runs.

    Raises:
        UserError: The arguments contradict each other.
    """

    @checked("data")
    def __init__(
        self,
        *,
        root: str | Path,
        images: str | None = None,
        masks: str | None = None,
        labels: Literal["segnet11", "all32"] = "segnet11",
        classes: Any = None,
        split: Literal["holdout", "files"] | None = None,
        seed: Natural = 0,
    ) -> None:
        if classes is not None:
            check_class_count(classes, NAMES[labels], by=f"data.labels={labels}")
        if (images is None) != (masks is None):
            raise UserError("data.images and data.masks name a pair of folders: give both")
        self.root = Path(root).expanduser()
        self.labels, self.split, self.seed = labels, split, seed
        self._given: Layout = {"": (images, masks)} if images and masks else {}
        self.rules = f"CamVid as {labels}"
        self._read = False

    def splits(self) -> Splits:
        """Lists the samples of each stage; see `Source.splits`."""
        home, layout = self._located()
        pairs = Pairs(home, dict(layout.values()), endings=_ENDINGS)
        lists = lists_of(home)
        problems: list[Problem] = []
        has_splits = "train" in layout or bool({"train", "val"} & lists.keys())
        if self.split == "files" and not has_splits:
            raise UserError(
                f"data.split=files, but {home} has neither train/ with its masks nor train.txt or "
                "val.txt: use data.split=holdout"
            )
        if has_splits and self.split != "holdout":
            stages = self._by_the_set(pairs, images_of(pairs, layout, lists), problems)
        else:
            stages = self._held_out(pairs, problems)
        samples_of = [samples for samples in stages.values() if samples]
        self._find_out(home, layout, [s for samples in samples_of for s in _some(samples)])
        named = {name for samples in samples_of for name in (sample.name for sample in samples)}
        unused = pairs.unused(named | {problem.name for problem in problems})
        if unused:
            log.info("%d images with masks are in no split and are left out", len(unused))
        blocks = _blocks([*stages["train"], *stages["val"]])
        train, val = (
            [replace(one, group=blocks.get(one.name, "")) for one in stages[stage]]
            for stage in ("train", "val")
        )
        return Splits(
            train=train,
            val=val,
            test=stages.get("test", val),
            val_is_test="test" not in stages,
            problems=problems,
            unused=unused,
        )

    def mask(self, sample: Sample) -> Mask:
        """Reads a mask as class ids; see `Source.mask`."""
        if not self._read:
            self.splits()
        file = sample.mask
        image = read_lossless(file)
        kind = holds(image, self._colours)
        if kind == "numbers" and self._by_colour:
            raise FileError(
                file,
                "is a mask of numbers, but other masks of this set hold colours",
                "replace it by one with CamVid's colours, or exclude its image by data.exclude",
            )
        if kind == "colours" and not self._by_colour and image.mode not in ("P", "PA"):
            raise FileError(
                file,
                "is a mask of colours, but other masks of this set hold numbers",
                "replace it by one with class ids, or exclude its image by data.exclude",
            )
        by_colour = self._by_colour or kind == "colours"
        return (self._colours if by_colour else self._numbers).ids(image, file)

    def _by_the_set(
        self, pairs: Pairs, found: Mapping[str, Iterable[Found]], problems: list[Problem]
    ) -> dict[str, list[Sample]]:
        stages = gathered(pairs, found, problems)
        for stage, samples in stages.items():
            if not samples and not problems:
                raise UserError(f"{pairs.home} has no images for {stage}: add some to its list")
        if "val" not in stages:
            log.warning("%s has no val: a run of frames of each drive of train is val", pairs.home)
            stages["train"], stages["val"] = self._runs(stages["train"], 1 / 10, stream=1)
            if not stages["val"] and not problems:
                raise UserError(f"{pairs.home} has too few images to leave any for val: add some")
        if "test" not in stages:
            log.warning("%s has no test: the images of val serve as test, too", pairs.home)
        return stages

    def _held_out(self, pairs: Pairs, problems: list[Problem]) -> dict[str, list[Sample]]:
        every = {"all": (found for folder in pairs.masks for found in pairs.all(folder))}
        samples = gathered(pairs, every, problems)["all"]
        if len(samples) < len(STAGES) and not problems:
            raise UserError(
                f"{pairs.home} has {len(samples)} images with masks, but train, val and test need "
                "at least one each: add images"
            )
        rest, test = self._runs(samples, 1 / 10, stream=0)
        train, val = self._runs(rest, 1 / 9, stream=1)
        return {"train": train, "val": val, "test": test}

    def _located(self) -> tuple[Path, Layout]:
        if self._given:
            (pair,) = self._given.values()
            if absent := [self.root / f for f in pair if not os.path.isdir(self.root / f)]:
                raise UserError(
                    f"{absent[0]} is not a folder: data.root={self.root} {inventory(self.root)}"
                )
            return self.root, self._given
        found = homes(self.root, lambda folder: bool(layout_of(folder)))
        if not found:
            raise UserError(
                f"data.root={self.root} {inventory(self.root)}, but must hold train/ and "
                "trainannot/ or train_labels/, or 701_StillsRaw_full/ and LabeledApproved_full/, "
                "or be a folder above them. Other folders are named by data.images and data.masks"
            )
        if len(found) > 1:
            names = ", ".join(str(folder.relative_to(self.root)) for folder in found)
            raise UserError(f"data.root={self.root} holds {names}: give one of them as data.root")
        return found[0], layout_of(found[0])

    def _runs(
        self, samples: Sequence[Sample], fraction: float, *, stream: int
    ) -> tuple[list[Sample], list[Sample]]:
        """Holds out a run of successive frames of each drive, and keeps the other samples.

        Args:
            samples: What to split.
            fraction: The part of each drive to hold out, rounded; at least one frame in all.
            stream: A number; different ones give different choices by the same seed.
        """
        drives: dict[str, list[tuple[int, str]]] = {}
        for sample in samples:
            match = _FRAME.fullmatch(sample.image.stem)
            drive, number = (match[1], int(match[2])) if match else ("", 0)
            drives.setdefault(drive, []).append((number, sample.name))
        counts = {drive: round(fraction * len(frames)) for drive, frames in drives.items()}
        if not any(counts.values()) and len(samples) > 1:
            counts[max(sorted(drives), key=lambda drive: len(drives[drive]))] = 1
        held_out: set[str] = set()
        for index, drive in enumerate(sorted(drives)):
            frames, count = sorted(drives[drive]), counts[drive]
            random = np.random.default_rng([self.seed, stream, index])
            first = int(random.integers(0, len(frames) - count + 1))
            held_out |= {name for _, name in frames[first : first + count]}
        return parted(samples, held_out)

    def _find_out(self, home: Path, layout: Layout, samples: list[Sample]) -> None:
        """Finds out the meaning of colours and of numbers, and which of the two the set holds."""
        self._colours = self._meaning_of_colours(home)
        seen: Counter[str | None] = Counter()
        for sample in samples:
            try:
                seen[holds(read_lossless(sample.mask), self._colours)] += 1
            except FileError:  # reported when that mask is read
                continue
        usual = any(masks.endswith("annot") for _, masks in layout.values())
        usual = usual or _file(home, self.root, "codes.txt") is not None
        ties = seen["colours"] == seen["numbers"]
        self._by_colour = not usual if ties else seen["colours"] > seen["numbers"]
        self._numbers = self._meaning_of_numbers(home)
        self.rules = (
            f"CamVid as {self.labels} by {'colours' if self._by_colour else 'numbers'}; colours: "
            f"{self._colours.rules}; numbers: {self._numbers.rules}"
        )
        self._read = True

    def _meaning_of_colours(self, home: Path) -> Meaning:
        files = [_file(home, self.root, name) for name in _COLOUR_FILES]
        file = next((file for file in files if file), None)
        if file is None:
            named = {
                colour: class_of(name, self.labels, None) for name, (colour, _) in CLASSES.items()
            }
            if self.labels == "segnet11":  # the colours in which SegNet draws these two
                named |= {"60 40 222": "pavement", "255 69 0": "road"}
            return self._meaning(named, "CamVid's table of colours", "replace the mask")
        named = {}
        for number, line in enumerate(read_text(file, "data.root").splitlines(), start=1):
            line = line.strip()
            colour_first = _COLOUR_FIRST.fullmatch(line[:_LONG])
            name_first = None if colour_first else _NAME_FIRST.fullmatch(line[:_LONG])
            if colour_first:
                *rgb, name = colour_first.groups()
            elif name_first:
                name, *rgb = name_first.groups()
            elif not line or line.startswith("#") or number == 1:  # line 1 names the columns
                continue
            else:
                rgb, name = [], ""
            if not rgb or any(len(part) > 3 or int(part) > 255 for part in rgb):
                raise UserError(
                    f"{file}:{number} is {line[:_LONG]!r}, but must be red, green and blue up to "
                    "255 and a name, as in 64 128 64 Animal"
                )
            colour, meaning = (
                " ".join(str(int(part)) for part in rgb),
                class_of(name, self.labels, file),
            )
            if named.setdefault(colour, meaning) != meaning:
                raise UserError(f"{file}:{number} gives {colour} a second meaning: remove one")
        if not named:
            raise UserError(f"{file} names no colours: restore it, or remove it")
        return self._meaning(named, str(file), "add them there, or replace the mask")

    def _meaning_of_numbers(self, home: Path) -> Meaning:
        file = _file(home, self.root, "codes.txt")
        if file is not None:
            lines = [line.strip() for line in read_text(file, "data.root").splitlines()]
            codes = [class_of(name, self.labels, file) for name in lines if name]
            named = {255: IGNORE} | dict(enumerate(codes))
            return self._meaning(named, str(file), "add their names there, or replace the mask")
        if self.labels == "segnet11":
            named = dict(enumerate((*SEGNET, IGNORE))) | {255: IGNORE}
            return self._meaning(
                named,
                "SegNet's list of 11 classes",
                "replace the mask; or write the names of all numbers, from 0, into codes.txt",
            )
        if not self._by_colour:
            raise UserError(
                f"data.labels={self.labels}, but the masks in {home} hold SegNet's ids of 11 "
                "classes: use data.labels=segnet11; or where their ids are others, write their "
                "names, one a line from id 0, into codes.txt"
            )
        return self._meaning({255: IGNORE}, "CamVid", "replace the mask")

    def _meaning(self, named: Mapping[int, str] | Mapping[str, str], by: str, do: str) -> Meaning:
        return Meaning(
            classes=NAMES[self.labels],
            values=named,
            threshold=None,
            ignore_value=None,
            named_by=by,
            remedy=do,
        )


def _some(samples: Sequence[Sample]) -> list[Sample]:
    rows = np.linspace(0, len(samples) - 1, min(len(samples), _LOOKED_AT))
    return [samples[round(row)] for row in rows.tolist()]


def _file(home: Path, root: Path, name: str) -> Path | None:
    return next((path for path in (home / name, root / name) if path.is_file()), None)


def _blocks(samples: Sequence[Sample]) -> dict[str, str]:
    """Names blocks of successive frames of a drive, which no fold parts; by the samples' names."""
    drives: dict[str, list[tuple[int, str]]] = {}
    for sample in samples:
        if match := _FRAME.fullmatch(sample.image.stem):
            drives.setdefault(match[1], []).append((int(match[2]), sample.name))
    return {
        name: f"{drive} {place // max(1, min(_BLOCK, len(frames) // 10))}"
        for drive, frames in drives.items()
        for place, (_, name) in enumerate(sorted(frames))
    }
