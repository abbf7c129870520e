"""A data set as its class describes it: the samples of each stage, and how masks are read."""

import hashlib
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from segpets.errors import FileError, UserError
from segpets.reading import in_one_line, read_text

Mask = NDArray[np.uint8]
Rows = NDArray[np.int64]
"""Places in a list of samples."""

STAGES: Final = ("train", "val", "test")

log = logging.getLogger(__name__)

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")


@dataclass(frozen=True, slots=True)
class Sample:
    """One image and its mask.

    Attributes:
        name: Unique within the data set; letters, digits, `.`, `_` and `-` only.
        image: The image's file.
        mask: The mask's file; for a mask that is no file of its own, the file that describes it.
        attributes: What else is known, such as breed and species; the same keys for all samples.
        mask_hash: Names the content of a mask that is no file of its own; else empty.
        bands: The files of the further bands, where each has its own; `image` is the first.
        masks: Further masks, which are joined with `mask`.
        page: The page of its files, where each page is a sample.
        group: What it must not be parted from by a split, such as a patient; empty if nothing.
    """

    name: str
    image: Path
    mask: Path
    attributes: dict[str, str] = field(default_factory=dict)
    mask_hash: str = ""
    bands: tuple[Path, ...] = ()
    masks: tuple[Path, ...] = ()
    page: int | None = None
    group: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of its image, one for each band if there are several."""
        return self.image, *self.bands


@dataclass(frozen=True, slots=True)
class Problem:
    """A sample that can't be used, and why.

    Attributes:
        name: The sample's name, as `data.exclude` would list it.
        error: The file, what is wrong with it, and what to do.
    """

    name: str
    error: FileError


@dataclass(frozen=True, slots=True)
class Splits:
    """The samples of each stage.

    Attributes:
        train: The samples that the weights are fitted to.
        val: The samples that models are chosen by, unless `val_is_test`.
        test: The samples that reported metrics are of.
        augment_val: Whether validation images are augmented like training images.
        val_is_test: Whether val holds the test images. Then no epoch may be chosen by val.
        problems: What was named but can't be used, and is in no stage; a training refuses to
            start until they are mended or excluded.
        unused: Files of images with masks that no split names. A training leaves them alone; the
            doctor shows them.
    """

    train: Sequence[Sample]
    val: Sequence[Sample]
    test: Sequence[Sample]
    augment_val: bool = False
    val_is_test: bool = False
    problems: Sequence[Problem] = ()
    unused: Sequence[Path] = ()

    def __getitem__(self, stage: str) -> Sequence[Sample]:
        """Returns the samples of `train`, `val` or `test`."""
        return self.stages()[stage]

    def stages(self) -> dict[str, Sequence[Sample]]:
        """Returns the samples by stage."""
        return {"train": self.train, "val": self.val, "test": self.test}


class Source(Protocol):
    """A data set: a small class that lists samples and reads masks.

    Attributes:
        root: The folder that the data lies in; a cache of its pixels goes there, too.
        rules: Whatever besides the files determines the class ids, as a text: pixels read
            by other rules aren't taken from the cache.

    It may also say `splits_by_names = True`: names and seed alone decide which stage an image is
    of. Else the protocol of its runs holds a hash of the names of each stage, as lists may change.
    """

    root: Path
    rules: str

    def splits(self) -> Splits:
        """Lists the samples of each stage, and those that can't be used.

        Raises:
            UserError: The data set can't be listed at all.
        """
        ...

    def mask(self, sample: Sample) -> Mask:
        """Reads a mask as class ids, (H, W), with 255 = ignore, at the size of its image.

        Raises:
            FileError: The file isn't a mask, or holds a value that means nothing.
        """
        ...


def refuse(errors: Sequence[FileError]) -> NoReturn:
    """Raises a UserError that names the first of several errors, and what lists the others."""
    others = f" {len(errors) - 1} more can't be used either." if errors[1:] else ""
    listed = "lists them all and writes a list" if others else "writes a list"
    raise UserError(
        f"{errors[0]}.{others} python -m segpets.browse doctor=true with the same data overrides "
        f"{listed} for data.exclude"
    ) from errors[0]


def class_names(classes: object) -> list[str]:
    """Reads the names in `data.classes`, in the order of their ids.

    Raises:
        UserError: They aren't a list, or two are the same.
    """
    wanted = "data.classes=[background,leaf] names them in the order of their ids"
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise UserError(f"data.classes={classes} must be a list: {wanted}")
    names = [str(name) for name in classes]
    if len(set(names)) < len(names) or not all(names):
        raise UserError(f"data.classes={names} has a name twice, or an empty one: {wanted}")
    if steering := [name for name in names if in_one_line(name) != name]:
        raise UserError(
            f"data.classes names {steering[0]!r}, with characters that end lines or steer a "
            f"terminal: {wanted}"
        )
    return names


def check_class_count(classes: object, known: Sequence[str], *, by: str) -> None:
    """Refuses `data.classes` if the data have another number; the names are the user's choice.

    Raises:
        UserError: There are more or fewer, or they are no list of different names.
    """
    names = class_names(classes)
    if len(names) != len(known):
        raise UserError(
            f"data.classes=[{','.join(names)}] are {len(names)}, but {by} gives {len(known)}: "
            f"{', '.join(known)}. Give as many names, in this order, or leave data.classes out"
        )


def sample_name(text: str) -> str:
    """Turns a path within a data set, without its suffix, into a sample's name.

    A safe text stays as it is. Other texts keep only their safe characters, and a hash
    distinguishes them.
    """
    if _SAFE_NAME.fullmatch(text):
        return text
    digest = hashlib.sha256(os.fsencode(text)).hexdigest()[:16]
    kept = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:100] or "image"
    return f"{kept}-{digest}"


def leave_out(splits: Splits, exclude: Path | None) -> Splits:
    """Leaves out the samples that a file names, with their problems.

    A line holds a sample's name, or the name of its image's file; `#` begins a comment, unless
    the whole line is such a name.

    Raises:
        UserError: The file can't be read.
    """
    if exclude is None:
        return splits
    try:
        lines = read_text(exclude, encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(
            f"data.exclude={exclude} can't be read ({error}): give a text file with the name of "
            "one image a line"
        ) from error
    known = {n for stage in STAGES for one in splits[stage] for n in (one.name, one.image.name)}
    known |= {n for one in splits.problems for n in (one.name, one.error.file.name)}
    whole = (line.strip() for line in lines)
    named = {n if n in known else n.partition("#")[0].strip() for n in whole} - {""}
    matched: set[str] = set()

    def kept(samples: Sequence[Sample]) -> list[Sample]:
        rest = []
        for sample in samples:
            if hit := named & {sample.name, sample.image.name}:
                matched.update(hit)
            else:
                rest.append(sample)
        return rest

    train, val, test = kept(splits.train), kept(splits.val), kept(splits.test)
    problems = []
    for problem in splits.problems:
        if hit := named & {problem.name, problem.error.file.name}:
            matched.update(hit)
        else:
            problems.append(problem)
    if unknown := sorted(named - matched):
        log.warning(
            "data.exclude=%s names %d images that the data set hasn't, for example %s",
            exclude,
            len(unknown),
            unknown[0],
        )
    return replace(splits, train=train, val=val, test=test, problems=problems)


def merged(splits: Splits) -> tuple[list[Sample], dict[str, Rows]]:
    """Merges samples that may occur in several stages.

    Returns:
        Each sample once, sorted by name, and for each stage the rows of its samples.
    """
    by_name = {s.name: s for samples in reversed(splits.stages().values()) for s in samples}
    names = sorted(by_name)
    places = {name: row for row, name in enumerate(names)}
    rows = {
        stage: np.array([places[sample.name] for sample in samples], dtype=np.int64)
        for stage, samples in splits.stages().items()
    }
    return [by_name[name] for name in names], rows
