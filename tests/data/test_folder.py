import logging
import re
import shutil
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixture_types import Command
from PIL import Image

from segpets.build.objects import build_source
from segpets.config import compose
from segpets.data import Folder, SegmentationDataModule
from segpets.data.source import Sample, leave_out
from segpets.errors import FileError, UserError
from segpets.train import train

CLASSES = ["background", "leaf"]
PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
SPECTRUM = [[[n >> 8, n & 255, 7]] for n in range(1200)]  # a pixel of each of so many colours


def draw(
    file: Path,
    values: object,
    *,
    dtype: str = "uint8",
    mode: str | None = None,
    palette: Sequence[int] = (),
    **options: Any,
) -> Path:
    """Writes a mask; `mode` converts it, `palette` makes its values indices."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(values, dtype=dtype))
    if palette:
        image.putpalette(palette)
    (image.convert(mode) if mode else image).save(file, **options)
    return file


def pair(root: Path, image: str, mask: str | None = None) -> None:
    """An image of 4x2 pixels and its mask: the left half 0, the right half 1."""
    draw(root / "images" / image, np.full((2, 4, 3), 90))
    if mask:
        draw(root / "masks" / mask, [[0, 0, 1, 1]] * 2)


def many(root: Path, count: int = 20) -> list[str]:
    names = [f"i{n:02}" for n in range(count)]
    for name in names:
        pair(root, f"{name}.png", f"{name}.png")
    return names


def folder(root: Path | None, **options: object) -> Folder:
    return Folder(**({"root": root, "classes": CLASSES} | options))  # type: ignore[arg-type]


def ids(file: Path, **options: object) -> list[list[int]]:
    found = folder(file.parent, **options).mask(Sample("x", file, file))
    assert found.dtype == np.uint8
    rows: list[list[int]] = found.tolist()
    return rows


def refusal(source: Folder) -> str:
    """Why nothing can be listed."""
    with pytest.raises(UserError) as caught:
        source.splits()
    return str(caught.value)


def partners(source: Folder) -> dict[str, str]:
    """Masks by images, relative to their folders; there are no problems."""
    splits = source.splits()
    assert [str(problem.error) for problem in splits.problems] == []
    return {
        s.image.relative_to(source.images).as_posix(): s.mask.relative_to(source.masks).as_posix()
        for s in (*splits.train, *splits.val, *splits.test)
    }


def problems(source: Folder) -> dict[str, str]:
    return {problem.name: str(problem.error) for problem in source.splits().problems}


# matching


def test_a_mask_has_the_stem_of_its_image_whatever_the_suffix_and_the_sub_folder(
    tmp_path: Path,
) -> None:
    expected = {
        "a.jpg": "a.png",
        "B b.JPEG": "B b.tif",
        "deep/ü, [1] {x}.bmp": "deep/ü, [1] {x}.gif",
        "deep/a.webp": "deep/a.bmp",
        "x.y.TIFF": "x.y.PNG",
    }
    for image, mask in expected.items():
        pair(tmp_path, image, mask)
    source = folder(tmp_path)
    assert partners(source) == expected
    splits = source.splits()
    names = [s.name for s in (*splits.train, *splits.val, *splits.test)]
    assert len(set(names)) == len(expected)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in names)


def test_sub_folders_never_share_a_name(tmp_path: Path) -> None:
    for stem in ("a/b", "a__b", "a-b", "a_b"):
        pair(tmp_path, f"{stem}.png", f"{stem}.png")
    splits = folder(tmp_path).splits()
    assert len({s.name for s in (*splits.train, *splits.val, *splits.test)}) == 4


def test_a_mask_in_another_sub_folder_is_found_by_its_stem_alone(tmp_path: Path) -> None:
    expected = {"red/a.png": "a.png", "red/b.png": "all/b.png", "blue/c.png": "blue/c.png"}
    for image, mask in expected.items():
        pair(tmp_path, image, mask)
    assert partners(folder(tmp_path)) == expected


def test_a_stem_alone_must_be_the_only_one(tmp_path: Path) -> None:
    many(tmp_path, 3)
    pair(tmp_path, "one/a.png", "x/a.png")
    draw(tmp_path / "masks/y/a.png", [[0]])
    pair(tmp_path, "one/b.png", "z/b.png")
    pair(tmp_path, "two/b.png")
    told = sorted(problems(folder(tmp_path)).values())
    images, masks = tmp_path / "images", tmp_path / "masks"
    assert len(told) == 3
    assert told[0].startswith(f"{images}/one/b.png and {images}/two/b.png are partners")
    assert told[1].startswith(f"{images}/one/b.png and {images}/two/b.png are partners")
    assert told[2].startswith(f"{masks}/x/a.png and {masks}/y/a.png are partners")


@pytest.mark.parametrize(
    ("pattern", "mask"),
    [
        ("{stem}_mask", "b 1_mask"),
        ("{stem}_L", "b 1_L"),
        ("mask_{stem}", "mask_b 1"),
        ("{stem}/{stem}", "b 1/b 1"),
    ],
)
def test_a_pattern_names_the_masks(tmp_path: Path, pattern: str, mask: str) -> None:
    for stem in ("a", "sub/b 1", "c"):
        head, _, last = stem.rpartition("/")
        pair(tmp_path, f"{stem}.png", f"{head}/{pattern.replace('{stem}', last)}.gif".lstrip("/"))
    assert partners(folder(tmp_path, mask_pattern=pattern))["sub/b 1.png"] == f"sub/{mask}.gif"


def test_a_pattern_tells_images_from_masks_in_one_folder(tmp_path: Path) -> None:
    for stem in "abc":
        draw(tmp_path / "all" / f"{stem}.png", np.zeros((2, 4, 3)))
        draw(tmp_path / "all" / f"{stem}_L.png", [[0]])
    options = {"images": tmp_path / "all", "masks": tmp_path / "all"}
    expected = {f"{stem}.png": f"{stem}_L.png" for stem in "abc"}
    assert partners(folder(None, mask_pattern="{stem}_L", **options)) == expected
    told = refusal(folder(None, **options))
    assert "are the same folder" in told
    assert "named {stem}_M after another" in refusal(
        folder(None, mask_pattern="{stem}_M", **options)
    )
    assert "data.mask_pattern" in told


def test_masks_in_a_folder_within_that_of_the_images(tmp_path: Path) -> None:
    for stem in "abc":
        draw(tmp_path / f"{stem}.png", np.zeros((2, 4, 3)))
        draw(tmp_path / "truth" / f"{stem}.png", [[0]])
    source = folder(None, images=tmp_path, masks=tmp_path / "truth")
    assert partners(source) == {f"{stem}.png": f"{stem}.png" for stem in "abc"}


def test_folders_are_looked_for_here_and_in_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(tmp_path / "my", 3)
    monkeypatch.chdir(tmp_path)
    here = folder(None, images="my/images", masks="my/masks")
    assert here.root == Path("my")
    assert partners(here) == partners(folder(Path("my"), images="images", masks="masks"))
    monkeypatch.chdir(tmp_path / "my")
    assert partners(folder(None)) == partners(folder(tmp_path / "my"))


def test_missing_and_doubtful_partners_are_listed_and_can_be_excluded(tmp_path: Path) -> None:
    many(tmp_path, 3)
    pair(tmp_path, "lonely.png")
    draw(tmp_path / "masks" / "orphan.png", [[0]])
    pair(tmp_path, "two masks.png", "two masks.png")
    draw(tmp_path / "masks" / "two masks.gif", [[0]])
    pair(tmp_path, "two_images.png", "two_images.png")
    draw(tmp_path / "images" / "two_images.jpg", np.zeros((2, 4, 3)))
    told = problems(folder(tmp_path))
    masks = next(name for name in told if name.startswith("two-masks"))
    assert told.keys() == {"lonely", "orphan", "two_images", masks}
    assert f"images/lonely.png has no mask {tmp_path}/masks/lonely.*: add it" in told["lonely"]
    assert "masks/orphan.png is a mask without an image" in told["orphan"]
    assert "two masks.gif" in told[masks] and "two masks.png" in told[masks]
    assert "two_images.jpg" in told["two_images"] and "two_images.png" in told["two_images"]

    def started(exclude: Path | None) -> SegmentationDataModule:
        module = SegmentationDataModule(
            source=folder(tmp_path),
            augment=lambda image, mask, seed: (image, mask),
            size=32,
            batch_size=1,
            num_workers=0,
            run_seed=0,
            cache="none",
            exclude=exclude,
        )
        module.setup()
        return module

    with pytest.raises(UserError, match="3 more can't be used either"):
        started(None)
    (tmp_path / "exclude.txt").write_text("\n".join(told))
    assert len(started(tmp_path / "exclude.txt").pixels) == 3


def test_a_name_in_the_list_may_hold_a_number_sign(tmp_path: Path) -> None:
    for name in ("#1.png", "c 2 # b.png", "c.png", "d.png", "e.png"):
        pair(tmp_path, name, name)
    splits = folder(tmp_path).splits()
    (tmp_path / "list.txt").write_text("#1.png\nc 2 # b.png\nc.png  # a comment\n# d.png\n")
    left = leave_out(splits, tmp_path / "list.txt")
    stages = (*left.train, *left.val, *left.test)
    assert sorted(sample.image.name for sample in stages) == ["d.png", "e.png"]


def test_what_is_no_picture_is_left_alone_or_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    many(tmp_path, 3)
    for clutter in ("Thumbs.db", ".DS_Store", "._i00.png", ".hidden/i09.png", "desktop.ini"):
        draw(tmp_path / "images" / "x.png", [[0]]).rename(tmp_path / "images" / "x.tmp")
        (tmp_path / "images" / clutter).parent.mkdir(exist_ok=True)
        (tmp_path / "images" / "x.tmp").rename(tmp_path / "images" / clutter)
    assert len(partners(folder(tmp_path))) == 3
    assert caplog.text == ""
    for name in ("notes.txt", "a.xml", "b.XML"):
        (tmp_path / "images" / name).touch()
    assert len(partners(folder(tmp_path))) == 3
    assert f"{tmp_path}/images: files of other kinds are left out: 2 .xml, 1 .txt" in caplog.text


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    many(tmp_path / "store", 3)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "sub").symlink_to(tmp_path / "store" / "images")
    (tmp_path / "images" / "again").symlink_to(tmp_path / "images")
    (tmp_path / "store" / "images" / "up").symlink_to(tmp_path)
    (tmp_path / "masks").symlink_to(tmp_path / "store" / "masks")
    found = partners(folder(tmp_path))
    assert found == {f"sub/i{n:02}.png": f"i{n:02}.png" for n in range(3)}


def test_names_match_in_either_spelling_of_an_accent(tmp_path: Path) -> None:
    for stem in "äöü":
        composed, apart = (unicodedata.normalize(form, stem) for form in ("NFC", "NFD"))
        pair(tmp_path, f"{composed}.png")
        draw(tmp_path / "masks" / f"{apart}.png", [[0, 0, 1, 1]] * 2)
    assert len(partners(folder(tmp_path))) == 3


def test_where_no_name_fits_the_pattern_is_guessed(tmp_path: Path) -> None:
    for n in range(1, 13):
        pair(tmp_path, f"{n}.jpg", f"{n}_mask.png")
    told = refusal(folder(tmp_path))
    assert "12 images, such as 1.jpg" in told
    assert "data.mask_pattern='\"{stem}_mask\"'" in told
    shutil.rmtree(tmp_path / "masks")
    draw(tmp_path / "masks" / "other.png", [[0]])
    assert "data.mask_pattern, or data.pairs" in refusal(folder(tmp_path))


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ([], "is not there, but must hold images/ and masks/"),
        (["Pictures/a.png", "labels/a.png"], "holds Pictures/, labels/, but must hold images/"),
        (["images/a.png"], r"data\.masks: .*masks is not a folder"),
        (["images/a.svg", "masks/a.png"], r"data\.images: .* holds no pictures but 1 \.svg"),
        (["images/a.png", "masks/a.dcm"], r"data\.masks: .* holds no pictures but 1 \.dcm"),
        (["images/a.png", "masks/a.png"], r"1 images with masks, but train, val and test need"),
    ],
)
def test_a_root_with_nothing_to_list(tmp_path: Path, there: list[str], words: str) -> None:
    for name in there:
        (tmp_path / "my" / name).parent.mkdir(parents=True)
        (tmp_path / "my" / name).touch()
    assert re.search(words, refusal(folder(tmp_path / "my")))


# what masks mean

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


# splits


def stages(source: Folder) -> list[list[str]]:
    splits = source.splits()
    return [[s.name for s in part] for part in (splits.train, splits.val, splits.test)]


def test_holdout_is_80_10_10_by_seed(tmp_path: Path) -> None:
    names = many(tmp_path)
    train, val, test = stages(folder(tmp_path))
    assert [len(part) for part in (train, val, test)] == [16, 2, 2]
    assert sorted(train + val + test) == names
    assert stages(folder(tmp_path)) == [train, val, test]
    assert stages(folder(tmp_path, seed=1)) != [train, val, test]


def test_three_images_are_enough_for_a_holdout(tmp_path: Path) -> None:
    many(tmp_path, 3)
    assert [len(part) for part in stages(folder(tmp_path))] == [1, 1, 1]


def test_lists_name_the_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    many(tmp_path, 8)
    pair(tmp_path, "sub/my i00.png", "sub/my i00.png")
    lines = ["i00", "i01.png", "# a comment", "", " images/i02.png ", "sub/my i00", "my i00.png"]
    (tmp_path / "train.txt").write_text("\N{ZERO WIDTH NO-BREAK SPACE}" + "\r\n".join(lines[:-1]))
    (tmp_path / "val.txt").write_text(f"i03\n{tmp_path}/images/i04.png\n")
    (tmp_path / "test.txt").write_text("i05")
    source = folder(tmp_path, split="files")
    splits = source.splits()
    assert [s.image.stem for s in splits.train] == ["i00", "i01", "i02", "my i00"]
    assert [s.image.stem for s in splits.val] == ["i03", "i04"]
    assert [s.image.stem for s in splits.test] == ["i05"]
    assert not splits.problems and not splits.val_is_test
    assert [file.stem for file in splits.unused] == ["i06", "i07"]
    assert "2 images are in no split and are left out" in caplog.text

    (tmp_path / "my.lst").write_text("my i00\n")
    files = {"train": "my.lst", "val": str(tmp_path / "val.txt")}
    splits = folder(tmp_path, split="files", files=files).splits()
    assert [s.image.name for s in splits.train] == ["my i00.png"]
    assert splits.val_is_test and list(splits.test) == list(splits.val)
    assert "those of val serve as test" in caplog.text


def test_a_list_that_names_what_isnt_there(tmp_path: Path) -> None:
    many(tmp_path, 4)
    pair(tmp_path, "lonely.png")
    for sub in "ab":
        pair(tmp_path, f"{sub}/twin.png", f"{sub}/twin.png")
    (tmp_path / "train.txt").write_text("i00\ntwin\nlonely.png\n")
    (tmp_path / "val.txt").write_text("i01\n\n../i77.png\n")
    told = sorted(problems(folder(tmp_path, split="files")).values())
    assert len(told) == 3
    assert told[0].startswith(f"{tmp_path}/images/lonely.png has no mask")
    assert told[1].startswith(f"{tmp_path}/train.txt names twin in line 2, which fits several")
    assert told[2].startswith(f"{tmp_path}/val.txt names ../i77.png in line 3, which isn't there")


def test_lists_that_contradict_each_other_or_are_missing(tmp_path: Path) -> None:
    many(tmp_path, 4)
    source = folder(tmp_path, split="files")
    assert f"data.files.train: {tmp_path}/train.txt is missing" in refusal(source)
    (tmp_path / "train.txt").write_text("i00\ni01\n")
    assert f"data.files.val: {tmp_path}/val.txt is missing" in refusal(source)
    (tmp_path / "val.txt").write_text("i02\ni01.png\n")
    assert problems(source)["i01"].startswith(
        f"{tmp_path}/val.txt names i01.png in line 2, as train.txt:2 does: remove one of the lines"
    )
    files = {stage: f"{stage}.txt" for stage in ("train", "val", "test")}
    (tmp_path / "val.txt").write_text("i02\n")
    named = folder(tmp_path, split="files", files=files)
    assert "data.files.test: test.txt is missing" in refusal(named)


# tables


def table(root: Path, text: str, **options: object) -> Folder:
    (root / "pairs.csv").write_text(text, encoding="utf-8")
    return folder(None, pairs=root / "pairs.csv", **options)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_names_pairs_and_splits(tmp_path: Path, delimiter: str) -> None:
    many(tmp_path, 5)
    pair(tmp_path, "é, (1).png", "é, (1)_L.png")
    lines = [
        ["\N{ZERO WIDTH NO-BREAK SPACE}Image", " mask", "notes", "split"],
        ["images/i00.png", "masks/i01.png", "", "train"],
        [r"images\i01.png", r"masks\i00.png", "", "Val"],
        ["", "", "", ""],
        [f"{tmp_path}/images/i02.png", "./masks/i02.png", "an old one", ""],
        ['"images/é, (1).png"', '"masks/é, (1)_L.png"', '"two\nlines"', "train"],
    ]
    text = "\r\n".join(delimiter.join(line) for line in lines)
    splits = table(tmp_path, text, split="files").splits()
    assert not splits.problems
    assert [(s.image.name, s.mask.name) for s in splits.train] == [
        ("i00.png", "i01.png"),
        ("é, (1).png", "é, (1)_L.png"),
    ]
    assert [(s.image.name, s.mask.name) for s in splits.val] == [("i01.png", "i00.png")]
    assert splits.val_is_test
    assert len(stages(table(tmp_path, text))[0]) == 2  # holdout takes all four


def test_paths_of_a_table_lie_in_its_folder_or_in_the_root(tmp_path: Path) -> None:
    many(tmp_path / "my", 3)
    (tmp_path / "lists").mkdir()
    rows = [f"images/i{n:02}.png,masks/i{n:02}.png" for n in range(3)]
    (tmp_path / "lists" / "pairs.csv").write_text("image,mask\n" + "\n".join(rows))
    source = folder(tmp_path / "my", pairs=tmp_path / "lists" / "pairs.csv")
    assert not source.splits().problems
    assert source.root == tmp_path / "my"
    (tmp_path / "my" / "pairs.csv").write_text((tmp_path / "lists" / "pairs.csv").read_text())
    assert stages(folder(tmp_path / "my", pairs="pairs.csv")) == stages(source)


def test_lines_of_a_table_that_name_no_pair(tmp_path: Path) -> None:
    many(tmp_path, 3)
    (tmp_path.parent / "secret.png").touch()
    rows = [f"images/i{n:02}.png,masks/i{n:02}.png" for n in range(3)]
    rows += [
        "../secret.png,masks/i00.png",
        "images/i07.png,masks/i08.png",
        "images/i09.png,",
        "images/../images/i00.png,masks/i01.png",
    ]
    source = table(tmp_path, "image,mask\n" + "\n".join(rows))
    told = [str(problem.error) for problem in source.splits().problems]
    assert len(stages(source)[0]) == 1
    where = tmp_path / "pairs.csv"
    assert [message.partition(": ")[0] for message in told] == [
        f"{where} names ../secret.png in line 5, which lies outside of its folder and of data.root",
        f"{tmp_path}/images/i07.png is missing, though line 6 of {where} names it",
        f"{tmp_path}/masks/i08.png is missing, though line 6 of {where} names it",
        f"{where} has no mask in line 7",
        f"{where} names images/../images/i00.png in the lines 2 and 8",
    ]


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("image,label\na,b\n", {}, "has the columns image, label, but not mask: its first line"),
        ("image mask\na b\n", {}, "has the columns image mask, but not image and mask"),
        ("", {}, "has the columns (none), but not image and mask"),
        ("image,mask\na,b\n", {"split": "files"}, "but not split: its first line must be image,"),
        ("image,mask\n", {}, "has no image with a mask: add some"),
        ("image,mask\na.png,b.png\n", {}, "The first problem: "),
        ("image,mask\na,b.png,c.png\n", {}, "pairs.csv:2 has 3 fields, but the first line names 2"),
        (
            "image,mask,split\nimages/i00.png,masks/i00.png,training\n",
            {"split": "files"},
            "has the split training: its column split may hold train, val and test",
        ),
    ],
)
def test_a_table_that_is_none(
    tmp_path: Path, text: str, options: dict[str, object], words: str
) -> None:
    many(tmp_path, 1)
    assert words in refusal(table(tmp_path, text, **options))


def test_a_table_that_cannot_be_read(tmp_path: Path) -> None:
    assert "none.csv is missing" in refusal(folder(None, pairs=tmp_path / "none.csv"))
    source = table(tmp_path, "")
    (tmp_path / "pairs.csv").write_text("image,mask\n", encoding="utf-16")
    assert "pairs.csv can't be read" in refusal(source)
    assert "save it as UTF-8" in refusal(source)


# the command

TINY = ["data.size=32", "model.widths=[4,8]", "debug=smoke"]


def plot(root: Path, *, background: object, leaf: object, mask: str) -> None:
    """12 images of different sizes, whose masks are noise of two values."""
    noise = np.random.default_rng(0)
    for n in range(12):
        height, width = noise.integers(20, 60, 2)
        draw(root / f"images/{n}.jpg", noise.integers(0, 256, (height, width, 3)))
        chosen = noise.integers(0, 2, (height, width))
        draw(root / "masks" / mask.format(n), np.array([background, leaf])[chosen])


def test_one_line_trains_on_images_of_different_sizes(command: Command, tmp_path: Path) -> None:
    plot(tmp_path / "my", background=0, leaf=1, mask="{}.png")
    done = command("data=folder", "data.root=my", "data.classes=[background,leaf]", *TINY)
    assert done.returncode == 0, done.stdout
    assert "10 train, 1 val, 1 test images" in done.stdout
    assert "leaf" in done.stdout


def test_what_a_refusal_advises_can_be_pasted_and_works(tmp_path: Path) -> None:
    plot(tmp_path / "my", background=[0, 0, 0], leaf=[0, 255, 0], mask="{}_mask.png")
    words = ["data=folder", f"data.root={tmp_path}/my", "data.classes=[background,leaf]", *TINY]
    for key in ("data.mask_pattern", "data.values"):
        with pytest.raises(UserError) as refused:
            train(compose([*words, f"hydra.run.dir={tmp_path}/{key}"]))
        advised = re.search(rf"{key}=('\".*?\"'|{{.*?}})", str(refused.value))
        assert advised, refused.value
        words.append(advised[0].replace("'", ""))  # which the shell would take
    assert words[-2:] == [
        'data.mask_pattern="{stem}_mask"',
        "data.values={0 0 0: background, 0 255 0: leaf}",
    ]
    assert "test/iou/leaf" in train(compose([*words, f"hydra.run.dir={tmp_path}/run"])).metrics


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data.values={0: background, 9: ignore, 255: leaf}"], [0, 255, 1]),
        (["data.values={0: background, 9: null, 255: leaf}"], [0, 255, 1]),
        (["data.threshold=9"], [0, 0, 1]),
        (["data.threshold=0", "data.ignore_value=[255]"], [0, 1, 255]),
    ],
)
def test_meanings_on_the_command_line(
    tmp_path: Path, words: list[str], expected: list[int]
) -> None:
    file = draw(tmp_path / "mask.png", [[0, 9, 255]])
    cfg = compose(["data=folder", "data.classes=[background,leaf]", *words])
    source = build_source(cfg.data)
    assert source.mask(Sample("mask", file, file)).tolist() == [expected]


def test_missing_classes_are_asked_for(command: Command) -> None:
    done = command("data=folder", *TINY)
    assert done.returncode == 1
    assert "data.classes has no value: give one, as in data.classes=" in done.stdout
    assert "Traceback" not in done.stdout
    shown = command("data=folder", "--cfg", "job")
    assert shown.returncode == 0
    assert "_target_: segpets.data.Folder" in shown.stdout
