"""Lines at the start of a training, for what nobody would notice else."""

import numpy as np
import pytest
from numpy.typing import NDArray

from segpets.data.decoded import FACTS, held
from segpets.data.notices import notices
from segpets.data.picture import Rules

CLASSES = ["background", "leaf", "drone"]


def facts(*masks: tuple[list[int], list[int]], size: tuple[int, int] = (64, 64)) -> NDArray:
    """What is noted of pictures whose masks hold some classes before, and some after resizing."""
    rows = np.zeros(len(masks), dtype=FACTS)
    rows["height"], rows["width"] = size
    for row, (before, after) in zip(rows, masks, strict=True):
        row["before"] = held(np.array([before], dtype=np.uint8))
        row["after"] = held(np.array([after], dtype=np.uint8))
    return rows


def said(noted: NDArray, *, rules: Rules | None = None, **options: object) -> list[str]:
    rows = {"train": np.arange(len(noted) - 2), "val": np.array([-2]), "test": np.array([-1])}
    rules = rules or Rules((64, 64))
    found = notices(noted, rows, classes=CLASSES, rules=rules, **options)  # type: ignore[arg-type]
    return [str(notice) for notice in found]


ALL = ([0, 1, 2], [0, 1, 2])


def test_a_sound_set_says_nothing() -> None:
    assert said(facts(*4 * [ALL])) == []


def test_a_class_that_a_split_lacks_is_named_with_the_split() -> None:
    few = ([0, 1], [0, 1])
    assert said(facts(ALL, few, few)) == [
        "No mask of val or test holds drone: its score says nothing there, and once predicted, it "
        "counts 0 in the means"
    ]
    assert said(facts(few, few, few)) == [
        "No mask holds drone: its score says nothing, and once predicted, it counts 0 in the means"
    ]
    none = ([0], [0])
    assert said(facts(none, none, none)) == [
        "No mask holds leaf, drone: their scores say nothing, and once predicted, they count 0 in "
        "the means"
    ]


def test_a_class_in_fewer_images_than_there_are_folds_is_named() -> None:
    few = ([0, 1], [0, 1])
    assert said(facts(ALL, few, few, ALL, ALL), folds=3) == [  # the last one is of test
        "drone is in 2 of the masks of train and val, but there are 3 folds: its score says "
        "nothing in some of them, and their means are over other classes: choose fewer folds"
    ]
    assert said(facts(ALL, few, few, ALL, ALL), folds=2) == []


def test_objects_that_are_too_small_are_counted_by_class() -> None:
    lost = ([0, 1, 2], [0, 1])
    assert said(facts(ALL, lost, lost, ALL, ALL)) == [
        "2 of 5 masks lose drone at 64x64, whose objects are too small: a larger data.size, or "
        "data.fit=none with crops, keeps them"
    ]


def test_pictures_that_were_changed_are_counted() -> None:
    noted = facts(*4 * [ALL])
    noted["turned"] = [0, 1, 2, 2]
    noted["lost_alpha"] = [1, 0, 0, 1]
    noted["clipped"] = [0, 1000, 0, 24]
    assert said(noted) == [
        "1 of 4 pictures were turned as their EXIF orientation says",
        "2 of 4 pictures were turned as their EXIF orientation says, though the sizes of their "
        "masks fit either way: if the masks lie as the pixels are stored, say data.exif=ignore",
        "2 of 4 pictures have a fourth channel, which was taken for transparency and left out: "
        "data.channels=4 uses it",
        "1,024 values of 2 of 4 pictures lie outside of data.range: they are clipped to it",
    ]


@pytest.mark.parametrize(
    ("size", "bent"), [((64, 64), False), ((100, 150), False), ((512, 1024), True)]
)
def test_pictures_that_lose_their_shape_are_counted(size: tuple[int, int], bent: bool) -> None:
    lines = said(facts(*4 * [ALL], size=size))
    assert [("stretched to 64x64" in line) for line in lines] == ([True] if bent else [])
    assert said(facts(*4 * [ALL], size=size), rules=Rules((64, 64), fit="letterbox")) == []


def test_pictures_smaller_than_the_crop_are_counted() -> None:
    noted = facts(*4 * [ALL], size=(100, 200))
    rules = Rules((64, 64), fit="none")
    assert said(noted, rules=rules, crop=(100, 200)) == []
    assert said(noted, rules=rules, crop=(100, 201)) == [
        "4 of 4 pictures are smaller than data.crop=100x201: they are padded, and the padding is "
        "ignored"
    ]
