"""What the values of a mask mean."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_folder import PALETTE, SPECTRUM, draw, folder, ids
from PIL import Image

from segpets.data.source import Sample
from segpets.errors import FileError, UserError

BLACK_AND_WHITE = {0: "background", 255: "leaf"}
THREE: dict[str, object] = {"classes": ["background", "leaf", "stem"]}

MEANINGS: dict[str, tuple[object, dict[str, Any], dict[str, object], list[int]]] = {
    "ids": ([0, 1, 255], {}, {}, [0, 1, 255]),
    "void_said_by_name": ([0, 255], {}, {"ignore_value": 255}, [0, 255]),
    "void_of_three": ([0, 255], {}, THREE, [0, 255]),
    "a_class_ignored": ([0, 1, 2], {}, THREE | {"ignore_value": 1}, [0, 255, 2]),
    "several_ignored": ([0, 8, 9, 1], {}, {"ignore_value": [8, 9]}, [0, 255, 255, 1]),
    "values": (
        [0, 255, 7, 8],
        {},
        {"values": {0: "background", "255": "leaf", 7: "ignore", 8: None}},
        [0, 1, 255, 255],
    ),
    "several_of_a_class": (
        [3, 4, 0],
        {},
        {"values": {3: "leaf", 4: "leaf", 0: "background"}},
        [1, 1, 0],
    ),
    "values_and_more_ignored": (
        [0, 255, 9],
        {},
        {"values": BLACK_AND_WHITE, "ignore_value": 9},
        [0, 1, 255],
    ),
    "threshold": ([0, 1, 9], {}, {"threshold": 0}, [0, 1, 1]),
    "threshold_keeps_what_equals_it": ([126, 127, 128], {}, {"threshold": 127}, [0, 0, 1]),
    "threshold_and_ignored": ([0, 1, 9], {}, {"threshold": 0, "ignore_value": 9}, [0, 1, 255]),
    "16_bit": ([0, 300, 65535], {"dtype": "uint16"}, {"threshold": 0}, [0, 1, 1]),
    "16_bit_ids": ([0, 1, 255], {"dtype": "uint16"}, {}, [0, 1, 255]),
    "16_bit_values": (
        [0, 1000, 65535],
        {"dtype": "uint16"},
        {"values": {0: "background", 1000: "leaf", 65535: "ignore"}},
        [0, 1, 255],
    ),
    "32_bit": (
        [0, 70000, 9],
        {"dtype": "int32"},
        {"threshold": 0, "ignore_value": 70000},
        [0, 255, 1],
    ),
    "32_bit_values": (
        [0, 70000, -1],
        {"dtype": "int32"},
        {"values": {0: "background", 70000: "leaf", "-1": "ignore"}},
        [0, 1, 255],
    ),
    "palette": ([0, 1, 2], {"palette": PALETTE}, THREE, [0, 1, 2]),
    "palette_indices": (
        [0, 3],
        {"palette": PALETTE},
        {"values": {0: "background", 3: "leaf"}},
        [0, 1],
    ),
    "palette_black_white": ([0, 1, 1], {"palette": [0, 0, 0, 255, 255, 255]}, {}, [0, 1, 1]),
    "palette_of_greys_by_values": (
        [0, 1],
        {"palette": [0, 0, 0, 255, 255, 255]},
        {"values": BLACK_AND_WHITE},
        [0, 1],
    ),
    "palette_of_greys_by_threshold": (
        [0, 1],
        {"palette": [255, 255, 255, 0, 0, 0]},
        {"threshold": 127},
        [1, 0],
    ),
    "palette_ramp": (
        [0, 1, 2],
        {"palette": [0, 0, 0, 99, 99, 99, 200, 200, 200]},
        THREE,
        [0, 1, 2],
    ),
    "palette_of_ids": ([0, 1], {"palette": [2, 2, 2, 0, 0, 0]}, THREE, [2, 0]),
    "palette_by_colour": (
        [0, 1, 2],
        {"palette": PALETTE},
        {"values": {"#000000": "background", "128 0 0": "leaf", "0, 128, 0": None}},
        [0, 1, 255],
    ),
    "colours": (
        [[9, 8, 7], [255, 0, 16], [1, 2, 3]],
        {},
        {"values": {"#090807": "background", "#FF0010": "leaf"}, "ignore_value": "1 2 3"},
        [0, 1, 255],
    ),
    "grey_by_colour": (
        [0, 255],
        {},
        {"values": {"#000000": "background", "#ffffff": "leaf"}},
        [0, 1],
    ),
    "bit": ([0, 255], {"mode": "1"}, {}, [0, 1]),
    "bit_values": ([0, 255], {"mode": "1"}, {"values": BLACK_AND_WHITE}, [0, 1]),
    "bit_values_0_1": ([0, 255], {"mode": "1"}, {"values": {1: "background", 0: "leaf"}}, [1, 0]),
    "bit_threshold": ([0, 255], {"mode": "1"}, {"threshold": 127}, [0, 1]),
    "grey_as_rgb": ([0, 1, 255], {"mode": "RGB"}, {}, [0, 1, 255]),
    "grey_as_rgba": ([0, 1], {"mode": "RGBA"}, {}, [0, 1]),
    "grey_as_la": ([0, 1], {"mode": "LA"}, {}, [0, 1]),
}


@pytest.mark.parametrize("case", MEANINGS)
def test_values_become_class_ids(tmp_path: Path, case: str) -> None:
    values, drawing, options, expected = MEANINGS[case]
    suffix = "tif" if case.startswith("32_bit") else "png"
    file = draw(tmp_path / f"mask.{suffix}", [values], **drawing)
    assert ids(file, **options) == [expected]


@pytest.mark.parametrize("suffix", ["png", "tif", "gif", "bmp", "webp"])
@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([0, 1, 2], THREE, [0, 1, 2]),
        ([2, 2, 2], THREE, [2, 2, 2]),  # as the first colour of a GIF's palette
        ([0, 255, 128], {"values": BLACK_AND_WHITE | {128: "ignore"}}, [0, 1, 255]),
        ([255, 255, 255], {"values": BLACK_AND_WHITE}, [1, 1, 1]),
        ([0, 255, 200], {"threshold": 127}, [0, 1, 1]),
    ],
)
def test_every_format_keeps_the_values(
    tmp_path: Path, suffix: str, values: list[int], options: dict[str, object], expected: list[int]
) -> None:
    lossless: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    assert ids(draw(tmp_path / f"m.{suffix}", [values], **lossless), **options) == [expected]


def test_wide_masks_of_either_byte_order(tmp_path: Path) -> None:
    file = draw(tmp_path / "m.tif", [[0, 1000]], dtype=">u2")
    with Image.open(file) as image:
        assert image.mode == "I;16B"
    assert ids(file, threshold=999) == [[0, 1]]


def text(file: Path) -> Path:
    file.write_text("<html>")
    return file


STRANGE: dict[str, tuple[Callable[[Path], Path], dict[str, object], str]] = {
    "black_and_white": (
        lambda f: draw(f / "m.png", [[0, 255]]),
        {},
        r"m\.png has the value 255, but not 1, the id of leaf: .*"
        r"'data\.values=\{0: background, 255: leaf\}' or data\.threshold=0; .*ignore_value=255",
    ),
    "white": (lambda f: draw(f / "m.png", [[255, 255]]), {}, r"data\.values=\{0: background, 255"),
    "white_gif": (lambda f: draw(f / "m.gif", [[255, 255]]), {}, r"has the value 255, but not 1"),
    "white_palette": (
        lambda f: draw(f / "m.png", [[0]], palette=[255, 255, 255, 0, 0, 0]),
        {},
        r"has the value 255, but not 1",
    ),
    "not_ids": (
        lambda f: draw(f / "m.png", [[0, 1, 200]]),
        {},
        r"m\.png has the values \[200\], but 2 classes have the ids 0 to 1, .*"
        r"'data\.values=\{0: background, 200: leaf\}', .*data\.threshold=0, .*data\.ignore_value",
    ),
    "instances": (
        lambda f: draw(f / "m.png", [[*range(20)]]),
        {},
        r"values \[2, 3, 4, 5, 6, 7, 8, 9 and 10 more\].*data\.threshold=0",
    ),
    "too_few_classes": (
        lambda f: draw(f / "m.png", [[0, 3]]),
        THREE,
        r"has the values \[3\], but 3 classes .*name more classes in data\.classes",
    ),
    "16_bit": (
        lambda f: draw(f / "m.png", [[0, 256]], dtype="uint16"),
        {},
        r"has the values \[256\]",
    ),
    "not_named": (
        lambda f: draw(f / "m.png", [[0, 3]]),
        {"values": {0: "leaf"}},
        r"m\.png has the values \[3\], which data\.values doesn't name: .* or ignore",
    ),
    "void_not_named": (
        lambda f: draw(f / "m.png", [[0, 255]]),
        {"values": {0: "leaf"}},
        r"has the values \[255\], which data\.values doesn't name",
    ),
    "colour_not_named": (
        lambda f: draw(f / "m.png", [[[255, 0, 0], [0, 0, 0]]]),
        {"values": {"0 0 0": "leaf"}},
        r"has the values \[255 0 0\], which data\.values doesn't name",
    ),
    "colours": (
        lambda f: draw(f / "m.png", [[[255, 0, 0], [0, 0, 0]]]),
        {},
        r"m\.png is a mask of 2 colours, such as 255 0 0, not of numbers: .*"
        r"'data\.values=\{0 0 0: background, 255 0 0: leaf\}', or store .*palette PNG",
    ),
    "a_photograph": (
        lambda f: draw(f / "m.png", SPECTRUM[:257]),
        {},
        r"m\.png looks like a picture, not a mask \(257 colours\): is data\.masks the right",
    ),
    "a_photograph_by_values": (
        lambda f: draw(f / "m.png", SPECTRUM),
        {"values": {"0 0 0": "background", "255 0 0": "leaf"}},
        r"m\.png looks like a picture, not a mask \(1,200 colours\): is data\.masks the",
    ),
    "a_photograph_by_threshold": (
        lambda f: draw(f / "m.png", SPECTRUM),
        {"threshold": 127},
        r"looks like a picture",
    ),
    "many_colours": (
        lambda f: draw(f / "m.png", SPECTRUM[:256]),
        {"values": {"0 0 0": "background", "255 0 0": "leaf"}},
        r"has the values \[0 0 7, .* and 248 more\], which data\.values doesn't name",
    ),
    "a_photograph_as_jpeg": (
        lambda f: draw(f / "m.jpg", SPECTRUM),
        {},
        r"lossy JPEG.*if it is a photograph, correct data\.masks",
    ),
    "a_gif_whose_indices_are_renumbered": (
        lambda f: draw(f / "m.gif", [[0, 2]], palette=PALETTE),
        THREE,
        r"m\.gif is a mask of 2 colours, such as 0 128 0, .*\{0 0 0: background, 0 128 0: stem\}",
    ),
    "numbers_among_colours": (
        lambda f: draw(f / "m.png", [[0, 999]], dtype="uint16"),
        {"values": {"#000000": "leaf"}},
        r"pixels of type I;16, but data\.values names colours",
    ),
    "shape_in_the_transparency": (
        lambda f: draw(f / "m.png", [[[9, 9, 9, 0], [9, 9, 9, 255]]]),
        {"threshold": 0},
        r"only the transparency differs",
    ),
    "jpeg": (
        lambda f: draw(f / "m.jpg", [[0, 1]]),
        {},
        r"m\.jpg is a mask stored as lossy JPEG.*store it as PNG.*data\.threshold=127",
    ),
    "jpeg_by_values": (
        lambda f: draw(f / "m.png", [[0, 255]], format="JPEG"),
        {"values": BLACK_AND_WHITE},
        r"m\.png is a mask stored as lossy JPEG",
    ),
    "jpeg_in_tiff": (
        lambda f: draw(f / "m.tif", [[0, 255]], compression="jpeg"),
        {},
        r"lossy JPEG in TIFF",
    ),
    "webp": (lambda f: draw(f / "m.webp", [[0, 255]], lossless=False), {}, r"lossy WebP"),
    "depth": (
        lambda f: draw(f / "m.tif", [[0.5]], dtype="float32"),
        {"threshold": 0},
        r"pixels of type F: store it as a greyscale PNG",
    ),
    "text": (lambda f: text(f / "m.png"), {}, "is not an image that can be read"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_what_a_mask_may_not_hold(tmp_path: Path, case: str) -> None:
    make, options, words = STRANGE[case]
    with pytest.raises(FileError) as caught:
        ids(make(tmp_path), **options)
    assert re.search(words, str(caught.value)), caught.value


def test_lossy_masks_are_read_by_a_threshold_and_noticed_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leaf = np.zeros((40, 40), dtype=np.uint8)
    leaf[10:30, 15:25] = 255
    for n in range(3):
        draw(tmp_path / "images" / f"{n}.png", np.zeros((40, 40, 3)))
        draw(tmp_path / "masks" / f"{n}.jpg", leaf, mode="RGB" if n else None, quality=75)
    source = folder(tmp_path, threshold=127)
    splits = source.splits()
    for sample in (*splits.train, *splits.val, *splits.test):
        assert np.array_equal(source.mask(sample), leaf // 255)
    (told,) = caplog.messages
    assert told == "3 of 3 masks are stored as lossy JPEG, and read by data.threshold=127"


def test_a_threshold_that_takes_the_noise_of_a_jpeg_for_a_class_is_advised_against(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = draw(tmp_path / "m.png", [[0] * 8 + [255] * 8] * 16, format="JPEG")
    source = folder(tmp_path, threshold=0)
    for _ in range(2):
        source.mask(Sample("m", file, file))
    (told,) = caplog.messages
    assert f"Masks such as {file} are stored as lossy JPEG" in told
    assert "for masks of 0 and 255 say 127" in told


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classes": "leaf"}, "data.classes=leaf must be a list: data.classes=[background,leaf]"),
        ({"classes": None}, "data.classes=None must be a list"),
        ({"classes": ["leaf"]}, "the background being one"),
        ({"classes": [*map(str, range(255))]}, "must name 2 to 254 classes"),
        ({"classes": ["leaf", "leaf"]}, "has a name twice"),
        ({"values": {0: "leaf"}, "threshold": 0}, "exclude each other"),
        ({"values": {0: "laef"}}, "gives 0 to laef, which isn't one of data.classes=[background,"),
        ({"values": {"a": "leaf"}}, "has a, which is neither a whole number nor a colour"),
        ({"values": {0.5: "leaf"}}, "has 0.5, which is neither"),
        ({"values": {"0 0 256": "leaf"}}, "has 0 0 256, which is neither"),
        ({"values": {0: "leaf", "0": "background"}}, "gives 0 two meanings"),
        ({"values": {0: "leaf", "#000001": "background"}}, "both name numbers, or both colours"),
        ({"values": [0, 255]}, "'data.values={0: background, 255: leaf}'"),
        ({"values": {0: "leaf"}, "ignore_value": 0}, "ignores 0, to which data.values gives"),
        ({"ignore_value": "void"}, "data.ignore_value has void, which is neither"),
        ({"ignore_value": "#ff0000"}, "both name numbers, or both colours"),
        ({"threshold": "high"}, "data.threshold=high must be a number"),
        ({"threshold": 0, **THREE}, "makes two classes, but data.classes names 3"),
        ({"mask_pattern": "mask"}, "data.mask_pattern=mask must hold {stem}"),
        ({"mask_pattern": "{stem}_L.png"}, "'data.mask_pattern=\"{stem}_L\"'"),
        ({"split": "random"}, "data.split=random is unknown: choose holdout, folders or files"),
        ({"seed": -1}, "data.seed=-1 must be a whole number"),
        ({"files": {"train": "a", "val": "b"}}, "say data.split=files, too"),
        ({"files": {"train": "a"}, "split": "files"}, "must name a list for train and for val"),
        ({"pairs": "a.csv", "mask_pattern": "{stem}_L"}, "leave out data.images"),
        ({"pairs": "a.csv", "images": "a"}, "leave out data.images"),
    ],
)
def test_options_that_contradict_each_other(
    tmp_path: Path, options: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        folder(tmp_path, **options)
    assert words in str(caught.value)


def test_the_rules_name_what_decides_over_ids(tmp_path: Path) -> None:
    every: list[dict[str, object]] = [
        {},
        THREE,
        {"threshold": 0},
        {"threshold": 1},
        {"threshold": 1, "ignore_value": 3},
        {"values": {0: "leaf"}},
        {"values": {0: "background"}},
        {"values": {"#000000": "leaf"}},
        {"ignore_value": 3},
        {"ignore_value": 255},
        {"ignore_value": [3, 4]},
    ]
    assert len({folder(tmp_path, **options).rules for options in every}) == len(every)
    assert (
        folder(tmp_path, values={0: "leaf"}).rules == folder(tmp_path, values={"0": "leaf"}).rules
    )


@pytest.mark.parametrize("join", ["by_name", "union"])
def test_the_order_of_classes_is_part_of_the_rules_for_several_masks(
    tmp_path: Path, join: str
) -> None:
    """By which a cache tells whether what it holds is still meant."""
    one, other = (
        folder(tmp_path, classes=["background", *rest], masks_per_image=join).rules
        for rest in (["leaf", "stem"], ["stem", "leaf"])
    )
    assert one != other


SHAPE = np.array([[0, 0, 255, 255]], dtype=np.uint8)


@pytest.mark.parametrize(
    ("colour", "alpha", "expected"),
    [
        (np.full_like(SHAPE, 255), SHAPE, [0, 0, 1, 1]),  # white, and clear in its left half
        (np.zeros_like(SHAPE), SHAPE, [0, 0, 1, 1]),  # black, and clear there
        (SHAPE, np.full_like(SHAPE, 255), [0, 0, 1, 1]),
        (255 - SHAPE, SHAPE, [0, 0, 1, 1]),  # what is clear isn't marked
        (np.array([[0, 200, 0, 200]], dtype=np.uint8), SHAPE, [0, 0, 0, 1]),
    ],
)
def test_a_mask_of_one_class_marks_what_is_neither_black_nor_transparent(
    tmp_path: Path, colour: np.ndarray, alpha: np.ndarray, expected: list[int]
) -> None:
    file = tmp_path / "x_leaf.png"
    Image.fromarray(np.stack([colour, colour, colour, alpha], axis=-1)).save(file)
    found = folder(tmp_path, masks_per_image="by_name").mask(Sample("x", file, file))
    assert found.tolist() == [expected]


def test_a_mask_of_one_colour_is_not_read_by_colours(tmp_path: Path) -> None:
    file = tmp_path / "m.png"
    red = np.zeros((1, 4, 4), dtype=np.uint8)
    red[..., 0], red[..., 3] = 255, SHAPE
    Image.fromarray(red).save(file)
    with pytest.raises(FileError, match="only the transparency differs"):
        ids(file, values={"0 0 0": "background", "255 0 0": "leaf"})
