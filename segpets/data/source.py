"""What a data set tells of itself: the names of its images and how their masks are read."""

import hashlib
import itertools
import os
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from segpets.errors import FileError, UserError

Mask = NDArray[np.uint8]
Rows = NDArray[np.int64]

STAGES: Final = ("train", "val", "test")

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
    """

    name: str
    image: Path
    mask: Path
    attributes: dict[str, str] = field(default_factory=dict)
    mask_hash: str = ""


class Samples(Sequence[Sample]):
    """A list of samples in about 100 bytes each, so that 100,000 of them take 10 MB.

    Args:
        samples: The samples; their attributes have the same keys.
    """

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        text, ends = bytearray(), array("q", [0])
        folders: dict[Path, int] = {}
        keys: tuple[str, ...] = ()
        for sample in samples:
            keys = keys or tuple(sample.attributes)
            files = (sample.image, sample.mask)
            words = [sample.name, sample.mask_hash]
            for file in files:
                words += [str(folders.setdefault(file.parent, len(folders))), file.name]
            words += [sample.attributes[key] for key in keys]
            text += os.fsencode("\0".join(words))
            ends.append(len(text))
        self._text, self._ends = text, ends
        self._folders, self._keys = list(folders), keys
        self._rows: Rows = np.arange(len(ends) - 1)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "Samples": ...
    def __getitem__(self, index: int | slice) -> "Sample | Samples":
        if isinstance(index, slice):
            return self.select(self._rows[index], of_all=True)
        name, mask_hash, folder, image, mask_folder, mask, *values = self._words(index)
        return Sample(
            name=name,
            image=self._folders[int(folder)] / image,
            mask=self._folders[int(mask_folder)] / mask,
            attributes=dict(zip(self._keys, values, strict=True)),
            mask_hash=mask_hash,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as of any list

    @property
    def attributes(self) -> tuple[str, ...]:
        """The keys of what is known of the samples, such as breed and species."""
        return self._keys

    def name(self, index: int) -> str:
        """The name of one sample."""
        return self._words(index)[0]

    def names(self) -> Iterator[str]:
        """The names of all samples, in order."""
        return (self.name(index) for index in range(len(self)))

    def attribute(self, key: str) -> Iterator[str]:
        """One attribute of all samples, in order."""
        column = 6 + self._keys.index(key)
        return (self._words(index)[column] for index in range(len(self)))

    def select(self, rows: Iterable[int] | Rows, *, of_all: bool = False) -> "Samples":
        """The samples at some rows, in that order; the texts are shared.

        Args:
            rows: Indices of this list.
            of_all: The indices count what this list was selected from.
        """
        chosen = Samples.__new__(Samples)
        chosen.__dict__.update(self.__dict__)
        wanted = np.fromiter(rows, dtype=np.int64)
        chosen._rows = wanted if of_all else self._rows[wanted]
        return chosen

    @staticmethod
    def joined(lists: "Sequence[Samples]") -> "Samples":
        """One list after the other; what is selected from one list goes on to share its texts."""
        if any(samples._text is not lists[0]._text for samples in lists):
            return Samples(itertools.chain.from_iterable(lists))
        return lists[0].select(np.concatenate([samples._rows for samples in lists]), of_all=True)

    def _words(self, index: int) -> list[str]:
        row = self._rows[index]
        return os.fsdecode(bytes(self._text[self._ends[row] : self._ends[row + 1]])).split("\0")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a sample can't be used.

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
        train: What the weights are fitted to.
        val: What models are chosen by, unless `val_is_test`.
        test: What is reported.
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


class Source(Protocol):
    """A data set: a small class that lists samples and reads masks.

    Attributes:
        root: The folder that the data lies in; a cache of its pixels goes there, too.
        rules: Whatever else than the files decides over the class ids, as a text: what was read
            by other rules isn't taken from the cache.
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
            FileError: The file is no mask, or holds a value that means nothing.
        """
        ...


def packed(samples: Sequence[Sample]) -> Samples:
    """The samples as `Samples`, which they may be already."""
    return samples if isinstance(samples, Samples) else Samples(samples)


def refuse(errors: Sequence[FileError]) -> NoReturn:
    """Raises a UserError that names the first of several errors, and what lists the others."""
    others = f" {len(errors) - 1} more can't be used either." if errors[1:] else ""
    listed = "lists them all and writes a list" if others else "writes a list"
    raise UserError(
        f"{errors[0]}.{others} python -m segpets.browse doctor=true with the same data overrides "
        f"{listed} for data.exclude"
    ) from errors[0]


def check_seed(seed: object) -> None:
    """Refuses a `data.seed` that is no whole number of at least 0.

    Raises:
        UserError: It is none.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UserError(f"data.seed={seed} must be a whole number of at least 0")


def class_names(classes: object) -> list[str]:
    """The names in `data.classes`, in the order of their ids.

    Raises:
        UserError: They are no list, or two are the same.
    """
    wanted = "data.classes=[background,leaf] names them in the order of their ids"
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise UserError(f"data.classes={classes} must be a list: {wanted}")
    names = [str(name) for name in classes]
    if len(set(names)) < len(names) or not all(names):
        raise UserError(f"data.classes={names} has a name twice, or an empty one: {wanted}")
    return names


def check_class_count(classes: object, known: Sequence[str], *, by: str) -> None:
    """Refuses `data.classes` of another number than the data have; the names are the user's.

    Args:
        classes: What was given.
        known: What the data call their classes.
        by: What chose these, such as `data.labels=trimap`.

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

    What is safe already stays as it is. Of other texts only the safe characters stay, and a hash
    tells them apart.
    """
    if _SAFE_NAME.fullmatch(text):
        return text
    digest = hashlib.sha256(os.fsencode(text)).hexdigest()[:16]
    kept = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:100] or "image"
    return f"{kept}-{digest}"


def holdout(
    samples: Sequence[Sample], *, fraction: float, by: str | None, seed: int
) -> tuple[Samples, Samples]:
    """Splits samples in two, in the same proportion within each value of an attribute.

    Which samples are held out depends on the set of names, the fraction and the seed alone, not
    on their order.

    Args:
        samples: What to split.
        fraction: The part to hold out, within (0, 1); rounded for each value of the attribute,
            but at least one image is held out and at least one kept where there are two.
        by: The attribute, such as `breed`; None takes all samples as one group.
        seed: Another seed, another choice.

    Returns:
        The kept and the held-out samples, in the order of `samples`.
    """
    listed = packed(samples)
    groups: dict[str, list[int]] = {}
    for row, key in enumerate(listed.attribute(by) if by else [""] * len(listed)):
        groups.setdefault(key, []).append(row)
    held_out = np.zeros(len(listed), dtype=bool)
    for index, key in enumerate(sorted(groups)):
        rows = sorted(groups[key], key=listed.name)
        count = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
        chosen = np.random.default_rng([seed, index]).permutation(len(rows))[:count]
        held_out[[rows[i] for i in chosen]] = True
    return listed.select(np.flatnonzero(~held_out)), listed.select(np.flatnonzero(held_out))
