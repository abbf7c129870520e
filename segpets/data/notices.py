"""Notices of what happened to pictures and masks on their way to the net, a line each."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segpets.data.decoded import classes_held
from segpets.data.geometry import Size, by
from segpets.data.picture import Rules
from segpets.data.source import STAGES, Rows

BENT: Final = 1.9
"""A change of a picture's shape, as a factor, from which on it is worth a line."""


class Notice(NamedTuple):
    """Something that a training may suffer from, as a sentence, and what to do about it."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}" if self.remedy else self.what


def notices(
    facts: NDArray[np.void],
    rows: dict[str, Rows],
    *,
    classes: Sequence[str],
    rules: Rules,
    crop: Size | None = None,
    folds: int | None = None,
) -> Iterator[Notice]:
    """Yields what a training may suffer from.

    Args:
        facts: What was noted of each sample; see `segpets.data.decoded.FACTS`.
        rows: The rows of each stage's samples.
        classes: Names, in the order of their ids.
        rules: The rules by which pictures become what a net sees.
        crop: Height and width of what is cut out for training, if anything is.
        folds: Into how many train and val are dealt, if they are.
    """
    before = classes_held(facts["before"])[:, : len(classes)]
    after = classes_held(facts["after"])[:, : len(classes)]
    yield from _absent(after, rows, classes)
    if folds is not None:
        pool = np.concatenate([rows["train"], rows["val"]])
        yield from _rare(after[pool].sum(axis=0), classes, folds)
    size = "that size" if rules.fit == "none" else by(rules.size)
    yield from _vanished(before, after, classes, size)
    yield from _treated(facts)
    yield from _bent(facts, rules)
    small = (facts["height"] < crop[0]) | (facts["width"] < crop[1]) if crop else np.array([])
    if crop is not None and rules.fit == "none" and small.any():
        yield Notice(
            f"{_count(small)} of {len(facts)} pictures are smaller than data.crop={by(crop)}",
            "they are padded, and the padding is ignored",
        )


def _absent(
    after: NDArray[np.bool_], rows: dict[str, Rows], classes: Sequence[str]
) -> Iterator[Notice]:
    lost: dict[tuple[int, ...], list[str]] = {}
    for stage in STAGES:
        chosen = rows[stage]
        missing = tuple(np.flatnonzero(~after[chosen].any(axis=0)).tolist())
        if len(chosen) and missing:
            lost.setdefault(missing, []).append(stage)
    for missing, stages in lost.items():
        names = ", ".join(classes[index] for index in missing)
        where = "" if len(stages) == len(STAGES) else f" of {' or '.join(stages)}"
        several = len(missing) > 1
        scores = "their scores say" if several else "its score says"
        counts = "they count" if several else "it counts"
        there = " there" if where else ""
        yield Notice(
            f"No mask{where} holds {names}",
            f"{scores} nothing{there}, and once predicted, {counts} 0 in the means",
        )


def _rare(masks: NDArray[np.int64], classes: Sequence[str], folds: int) -> Iterator[Notice]:
    for name, count in zip(classes, masks.tolist(), strict=True):
        if 0 < count < folds:
            yield Notice(
                f"{name} is in {count} of the masks of train and val, but there are {folds} folds",
                "its score says nothing in some of them, and their means are over other classes: "
                "choose fewer folds",
            )


def _vanished(
    before: NDArray[np.bool_], after: NDArray[np.bool_], classes: Sequence[str], size: str
) -> Iterator[Notice]:
    for index, name in enumerate(classes):
        held = before[:, index]
        gone = held & ~after[:, index]
        if gone.any():
            yield Notice(
                f"{_count(gone)} of {_count(held)} masks lose {name} at {size}, whose objects are "
                "too small",
                "a larger data.size, or data.fit=none with crops, keeps them",
            )


def _treated(facts: NDArray[np.void]) -> Iterator[Notice]:
    total = len(facts)
    if turned := int((facts["turned"] == 1).sum()):
        yield Notice(f"{turned} of {total} pictures were turned as their EXIF orientation says", "")
    if undecided := int((facts["turned"] == 2).sum()):
        yield Notice(
            f"{undecided} of {total} pictures were turned as their EXIF orientation says, though "
            "the sizes of their masks fit either way",
            "if the masks lie as the pixels are stored, say data.exif=ignore",
        )
    if lost := int((facts["lost_alpha"] > 0).sum()):
        yield Notice(
            f"{lost} of {total} pictures have a fourth channel, which was taken for transparency "
            "and left out",
            "data.channels=4 uses it",
        )
    if clipped := int(facts["clipped"].sum()):
        files = int((facts["clipped"] > 0).sum())
        yield Notice(
            f"{clipped:,} values of {files} of {total} pictures lie outside of data.range",
            "they are clipped to it",
        )


def _bent(facts: NDArray[np.void], rules: Rules) -> Iterator[Notice]:
    if rules.fit != "stretch" or not len(facts):
        return
    shape = facts["width"] / np.maximum(facts["height"], 1)
    change = shape / (rules.size[1] / rules.size[0])
    bent = np.maximum(change, 1 / np.maximum(change, 1e-9)) >= BENT
    if bent.any():
        yield Notice(
            f"{_count(bent)} of {len(facts)} pictures are stretched to {by(rules.size)}, which "
            f"changes their shape by a factor of {BENT:g} or more",
            "data.size=[height,width] or data.fit=letterbox keeps it",
        )


def _count(mask: NDArray[np.bool_]) -> int:
    return int(mask.sum())
