"""Pascal VOC segmentation, the SBD-augmented variant, and sets of the same form.

M. Everingham et al., "The Pascal Visual Object Classes Challenge: A Retrospective", IJCV 2015. 21
classes with the background; the border of objects is void. B. Hariharan et al., "Semantic Contours
from Inverse Detectors", ICCV 2011, whose masks are SegmentationClassAug (10,582 of train).

    JPEGImages/<name>.jpg
    SegmentationClass/<name>.png             palette, grey, or the palette's colours as RGB
    ImageSets/Segmentation/{train,val,trainval,test}.txt           a name a line
    labelmap.txt     # label:color_rgb:parts:actions, where CVAT or Datumaro wrote the set
"""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from segpets.data.decode import read_lossless
from segpets.data.filenames import homes, inventory, read_text
from segpets.data.holdout import holdout, in_three
from segpets.data.mask_values import IGNORE, Meaning, holds
from segpets.data.pairing import Pairs, gathered
from segpets.data.source import STAGES, Mask, Problem, Sample, Splits
from segpets.data.stages import grouped_stages, warned
from segpets.errors import UserError
from segpets.labels import IGNORE_INDEX
from segpets.settings import Natural, checked

log = logging.getLogger(__name__)

IMAGES: Final = "JPEGImages"
LISTS: Final = "ImageSets/Segmentation"
VOID: Final = (224, 224, 192)
"""The colour of index 255."""

_VOID_NAMES = {"ignore", "ignored", "void", "unlabeled", "unlabelled"}
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


class Voc:
    """Reads lists and masks in the layout of Pascal VOC.

    Masks are read by their indices (or grey values), 255 being void, and by their colours where
    they hold colours: those of the VOC colour map, or of a `labelmap.txt`.

    Args:
        root: VOC2012 itself, VOCdevkit, or a folder above.
        classes: The classes' names, in the order of their ids.
        masks: The folder of masks. A list that names masks goes first.
        year: Chooses VOC2007 or VOC2012 where the root holds both.
        values: What the values of masks mean, in place of all that is above; see `Meaning`.
        ignore_value: A further value that is ignored, or several.
        split: `holdout` splits train 90/10 by the seed into train and val, and tests on the
            official val, because the masks of the official test images aren't public; without
            lists of train and val it makes 80/10/10. `files` takes train, val and test as they
            are; where no image of test has a mask, val serves as test.
        lists: The lists of train, val and test: names within ImageSets/Segmentation, or files.
        group: A regular expression that names what no split may part; see `Folder`.
        seed: Chooses the images that `holdout` holds out.

    Raises:
        UserError: The arguments contradict each other.
    """

    @checked("data")
    def __init__(
        self,
        *,
        root: str | Path,
        classes: Any,
        masks: str = "SegmentationClass",
        year: int | str | None = None,
        values: Any = None,
        ignore_value: int | str | Sequence[int | str] | None = None,
        split: Literal["holdout", "files"] = "holdout",
        lists: Any = None,
        group: str | None = None,
        seed: Natural = 0,
    ) -> None:
        lists = {stage: stage for stage in STAGES} if lists is None else lists
        if not isinstance(lists, Mapping) or set(lists) != set(STAGES):
            raise UserError(
                f"data.lists={lists} must name the lists of train, val and test, as in "
                "data.lists.train=trainaug"
            )
        self.root = Path(root).expanduser()
        self.masks, self.year, self.split, self.seed = str(masks), year, split, seed
        self.group = group
        self.lists = {stage: str(lists[stage]) for stage in STAGES}
        self._by_values = values is not None
        ignored = _list_of(ignore_value) + ([] if self._by_values else [IGNORE_INDEX])
        self._numbers = Meaning(
            classes=classes, values=values, threshold=None, ignore_value=ignored
        )
        self.classes = self._numbers.classes
        self._colours = self._numbers if self._by_values else _by_colour_map(self.classes)
        self._home: Path | None = None
        self.rules = self._rules()

    def splits(self) -> Splits:
        """Lists the samples of each stage; see `Source.splits`."""
        home = self._located()
        if not (home / self.masks).is_dir():
            raise UserError(
                f"data.masks={self.masks}: {home} {inventory(home)}, but no {self.masks}/: name "
                "its folder of masks, as in data.masks=SegmentationClassAug"
            )
        for stage, name in self.lists.items():
            if name != stage:  # requested, so not left out silently
                self._check_there(stage)
        pairs, problems = Pairs(home, {IMAGES: self.masks}), list[Problem]()
        if self.split == "files":
            return self._by_files(pairs, problems)
        lists = {stage: self._list(stage) for stage in ("train", "val")}
        if all(path.is_file() for path in lists.values()):
            stages = gathered(
                pairs, {s: pairs.listed(path, IMAGES) for s, path in lists.items()}, problems
            )
            self._check_some(stages, problems)
            stages = grouped_stages(stages, self.group, home)
            train, val = holdout(stages["train"], fraction=0.1, seed=self.seed)
            return warned(self._made(pairs, train, val, stages["val"], problems))
        names = (self.lists["train"], "trainval", "default")  # the last one is CVAT's
        listed = [path for path in map(self._named, names) if path.is_file()]
        what = f"what {listed[0]} lists" if listed else f"what has a mask in {home / self.masks}"
        log.info("Without lists of train and val, %s is split 80/10/10", what)
        if listed:
            images = pairs.listed(listed[0], IMAGES)
        else:  # an image without a mask is not annotated
            images = pairs.all(IMAGES, lone=False)
        samples = gathered(pairs, {"all": images}, problems)["all"]
        samples = grouped_stages({"all": samples}, self.group, home)["all"]
        place = listed[0] if listed else home
        train, val, test = in_three(samples, seed=self.seed, place=place, problems=problems)
        return self._made(pairs, train, val, test, problems)

    def mask(self, sample: Sample) -> Mask:
        """Reads a mask as class ids; see `Source.mask`."""
        self._located()
        image = read_lossless(sample.mask)
        by_colour = not self._by_values and holds(image, self._colours) == "colours"
        return (self._colours if by_colour else self._numbers).ids(image, sample.mask)

    def _by_files(self, pairs: Pairs, problems: list[Problem]) -> Splits:
        lists = {stage: self._list(stage) for stage in STAGES}
        for stage in ("train", "val"):
            self._check_there(stage)
        test = lists["test"]
        if not test.is_file() or not any(
            isinstance(found.result, Sample) for found in pairs.listed(test, IMAGES)
        ):
            log.warning("No image of %s has a mask: those of val serve as test, too", test)
            del lists["test"]
        stages = gathered(
            pairs, {stage: pairs.listed(path, IMAGES) for stage, path in lists.items()}, problems
        )
        self._check_some(stages, problems)
        stages = grouped_stages(stages, self.group, pairs.home)
        no_test = "test" not in stages
        test_samples = stages["val" if no_test else "test"]
        train, val = stages["train"], stages["val"]
        return warned(self._made(pairs, train, val, test_samples, problems, val_is_test=no_test))

    def _made(
        self,
        pairs: Pairs,
        train: list[Sample],
        val: list[Sample],
        test: list[Sample],
        problems: list[Problem],
        *,
        val_is_test: bool = False,
    ) -> Splits:
        for stage, samples in zip(STAGES, (train, val, test), strict=True):
            if not samples and not problems:
                raise UserError(
                    f"{pairs.home} has too few images to leave any for {stage}: add some"
                )
        named = {sample.name for sample in (*train, *val, *test)}
        unused = pairs.unused(named | {problem.name for problem in problems})
        if unused:
            log.info("%d images with masks are in no split and are left out", len(unused))
        return Splits(
            train=train,
            val=val,
            test=test,
            val_is_test=val_is_test,
            problems=problems,
            unused=unused,
        )

    def _check_there(self, stage: str) -> None:
        if not (path := self._list(stage)).is_file():
            raise UserError(
                f"{path} is missing: restore it, or name another list by data.lists.{stage}"
                + ("; data.split=holdout needs none" if self.split == "files" else "")
            )

    def _check_some(self, stages: Mapping[str, list[Sample]], problems: list[Problem]) -> None:
        for stage, samples in stages.items():
            if not samples and not problems:
                raise UserError(f"{self._list(stage)} lists no images: the split would be empty")

    def _list(self, stage: str) -> Path:
        return self._named(self.lists[stage])

    def _named(self, name: str) -> Path:
        """Finds a list by its name or path; if there is none, the place where it should be."""
        places = self._located() / LISTS
        here = Path(name).expanduser()
        paths = [path for path in (places / f"{name}.txt", places / name, here) if path.is_file()]
        return paths[0] if paths else places / f"{name.removesuffix('.txt')}.txt"

    def _located(self) -> Path:
        if self._home is None:
            self._home = self._only_home()
            labels = self._home / "labelmap.txt"
            if not self._by_values and labels.is_file():
                self._numbers, self._colours = _by_labelmap(labels, self.classes)
                self.rules = self._rules()
        return self._home

    def _only_home(self) -> Path:
        folders = homes(
            self.root, lambda f: all(os.path.isdir(f / n) for n in (IMAGES, self.masks))
        )
        folders = folders or homes(self.root, lambda folder: os.path.isdir(folder / IMAGES))
        if not folders:
            raise UserError(
                f"data.root={self.root} {inventory(self.root)}, but must hold {IMAGES}/, "
                f"{self.masks}/ and {LISTS}/ as VOC2012 does, or be a folder above it"
            )
        fits = [f for f in folders if self.year is None or str(self.year) in f.name]
        if len(folders) == 1:  # which may have any name, but not that of another year
            fits = fits or [f for f in folders if not re.fullmatch(r"VOC\d{4}", f.name)]
        if len(fits) != 1:
            names = ", ".join(str(folder.relative_to(self.root)) for folder in folders)
            raise UserError(
                f"data.root={self.root} holds {names}"
                + (f", but not data.year={self.year}" if self.year is not None and not fits else "")
                + ": choose one by data.year=2012, or give it as data.root"
            )
        return fits[0]

    def _rules(self) -> str:
        return f"numbers: {self._numbers.rules}; colours: {self._colours.rules}"


def colour_map(count: int) -> list[tuple[int, int, int]]:
    """Makes the first colours of VOC's map, RGB: an index's bits, three by three, from the top.

    From the development kit's VOClabelcolormap.m: bits 0, 3, 6 of an index are the bits 7, 6, 5 of
    red, bits 1, 4, 7 those of green, bits 2 and 5 those of blue.
    """

    def channel(index: int, first: int) -> int:
        return sum((index >> (first + 3 * step) & 1) << (7 - step) for step in range(3))

    return [(channel(i, 0), channel(i, 1), channel(i, 2)) for i in range(count)]


def _by_colour_map(classes: Sequence[str]) -> Meaning:
    colours = zip(colour_map(len(classes)), classes, strict=True)
    return Meaning(
        classes=classes,
        values={_text(colour): name for colour, name in colours} | {_text(VOID): IGNORE},
        threshold=None,
        ignore_value=None,
        named_by=f"VOC's map of {len(classes)} colours",
        remedy="replace the mask, or say what all colours mean, as in data.values="
        f"'{{{_text(VOID)}: {IGNORE}, 0 0 0: {classes[0]}}}'",
    )


def _by_labelmap(file: Path, classes: Sequence[str]) -> tuple[Meaning, Meaning]:
    """Reads the meaning of numbers and of colours from a labelmap.txt.

    Raises:
        UserError: It can't be read, or names other classes.
    """
    labels: dict[str, tuple[int, int, int]] = {}
    lines = read_text(file, "data.root").splitlines()
    entries = [line.strip() for line in lines if line.strip() and line.lstrip()[0] != "#"]
    for index, line in enumerate(entries):
        name, colour, *_ = [part.strip() for part in line.split(":")] + [""]
        rgb = re.findall(r"\d+", colour) if colour else colour_map(index + 1)[index]
        parts = [int(part) for part in rgb if len(str(part)) < 4]
        if not name or name in labels or len(parts) != 3 or max(parts) > 255:
            raise UserError(
                f"{file} has the line {line!r}, but each must be another label:red,green,blue:: "
                "with numbers up to 255"
            )
        labels[name] = (parts[0], parts[1], parts[2])
    void = {n for n in labels if n not in classes and n.strip("_").lower() in _VOID_NAMES}
    if set(classes) != labels.keys() - void:
        wanted = ",".join(n if _WORD.fullmatch(n) else f"'{n}'" for n in labels if n not in void)
        raise UserError(
            f"{file} names {len(labels) - len(void)} classes that aren't those of data.classes: "
            f'say "data.classes=[{wanted}]", or say what masks hold by data.values'
        )
    colours: dict[str, str] = {}
    for name, rgb_of_it in labels.items():
        text, meaning = _text(rgb_of_it), IGNORE if name in void else name
        if colours.setdefault(text, meaning) != meaning:
            raise UserError(f"{file} gives the colour {text} to {colours[text]} and to {name}")
    numbers = {index: IGNORE if name in void else name for index, name in enumerate(labels)}
    remedy = "add them there, or replace the mask"

    def meaning_of(values: Mapping[Any, str], ignored: list[int] | None) -> Meaning:
        return Meaning(
            classes=classes,
            values=values,
            threshold=None,
            ignore_value=ignored,
            named_by=str(file),
            remedy=remedy,
        )

    return meaning_of(numbers, [IGNORE_INDEX]), meaning_of(colours, None)


def _list_of(value: int | str | Sequence[int | str] | None) -> list[int | str]:
    if value is None:
        return []
    return [value] if isinstance(value, int | str) else list(value)


def _text(colour: tuple[int, int, int]) -> str:
    return " ".join(map(str, colour))
