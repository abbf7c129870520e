import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fixture_types import Command
from PIL import Image

from segpets.data import Folder
from segpets.data.source import Sample
from segpets.errors import FileError, UserError

CLASSES = ["background", "leaf"]


def draw(file: Path, values: object, *, dtype: type = np.uint8, mode: str | None = None) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(values, dtype=dtype))
    (image.convert(mode) if mode else image).save(file)
    return file


def pair(root: Path, image: str, mask: str | None = None) -> None:
    """An image of 4x2 pixels and its mask: the left half 0, the right half 1."""
    draw(root / "images" / image, np.full((2, 4, 3), 90))
    if mask:
        draw(root / "masks" / mask, [[0, 0, 1, 1]] * 2)


def folder(root: Path, **options: object) -> Folder:
    return Folder(**({"root": root, "classes": CLASSES} | options))  # type: ignore[arg-type]


def ids(root: Path, file: Path, **options: object) -> list[list[int]]:
    found: list[list[int]] = folder(root, **options).mask(Sample("x", file, file)).tolist()
    return found


def pairs_of(source: Folder) -> dict[str, str]:
    splits = source.splits()
    assert not splits.problems
    samples = [*splits.train, *splits.val, *splits.test]
    return {sample.image.name: sample.mask.name for sample in samples}


# matching


def test_images_find_masks_by_stem_whatever_the_suffix_and_the_sub_folder(tmp_path: Path) -> None:
    pair(tmp_path, "a.jpg", "a.png")
    pair(tmp_path, "B b.JPEG", "B b.tif")
    pair(tmp_path, "deep/\N{LATIN SMALL LETTER U WITH DIAERESIS}, [1].bmp", "deep/ü, [1].gif")
    pair(tmp_path, "other/a.webp", "other/a.bmp")
    (tmp_path / "images" / "Thumbs.db").touch()
    (tmp_path / "images" / ".hidden.png").touch()
    (tmp_path / "images" / "loop").symlink_to(tmp_path / "images")
    source = folder(tmp_path)
    splits = source.splits()
    samples = [*splits.train, *splits.val, *splits.test]
    assert not splits.problems
    assert {s.image.relative_to(tmp_path / "images").as_posix() for s in samples} == {
        "a.jpg",
        "B b.JPEG",
        "deep/ü, [1].bmp",
        "other/a.webp",
    }
    for sample in samples:
        assert sample.mask.stem == sample.image.stem
        assert sample.mask.parent.name.replace("masks", "images") == sample.image.parent.name
        assert sample.name.isascii() and not set(sample.name) & set(" ,[]/")
    assert len({sample.name for sample in samples}) == 4


def test_a_pattern_names_the_masks(tmp_path: Path) -> None:
    for stem in "abc":
        pair(tmp_path, f"{stem}.png", f"{stem}_mask.png")
    assert pairs_of(folder(tmp_path, mask_pattern="{stem}_mask"))["a.png"] == "a_mask.png"


def test_missing_and_doubtful_partners_are_listed(tmp_path: Path) -> None:
    for stem in "abc":
        pair(tmp_path, f"{stem}.png", f"{stem}.png")
    pair(tmp_path, "lonely.png")
    draw(tmp_path / "masks" / "orphan.png", [[0]])
    pair(tmp_path, "double.png", "double.png")
    draw(tmp_path / "masks" / "double.gif", [[0]])
    told = {p.name: str(p.error) for p in folder(tmp_path).splits().problems}
    assert told.keys() == {"lonely", "orphan", "double"}
    assert "lonely.png has no mask" in told["lonely"]
    assert "orphan.png is a mask without an image" in told["orphan"]
    assert "double.gif" in told["double"] and "double.png" in told["double"]


# what masks mean

MEANINGS: dict[str, tuple[object, type, dict[str, object], list[list[int]]]] = {
    "ids": ([[0, 1, 255]], np.uint8, {}, [[0, 1, 255]]),
    "values": (
        [[0, 255, 7]],
        np.uint8,
        {"values": {0: "background", "255": "leaf", 7: "ignore"}},
        [[0, 1, 255]],
    ),
    "threshold": ([[0, 1, 9]], np.uint8, {"threshold": 0}, [[0, 1, 1]]),
    "instances_of_16_bit": ([[0, 300, 65535]], np.uint16, {"threshold": 0}, [[0, 1, 1]]),
    "wide_values": (
        [[0, 1000]],
        np.uint16,
        {"values": {0: "background", 1000: "leaf"}},
        [[0, 1]],
    ),
    "ignored": ([[0, 1, 9]], np.uint8, {"ignore_value": 9}, [[0, 1, 255]]),
    "ignored_above_a_threshold": (
        [[0, 1, 9]],
        np.uint8,
        {"threshold": 0, "ignore_value": 9},
        [[0, 1, 255]],
    ),
}


@pytest.mark.parametrize("case", MEANINGS)
def test_values_become_class_ids(tmp_path: Path, case: str) -> None:
    values, dtype, options, expected = MEANINGS[case]
    assert ids(tmp_path, draw(tmp_path / "m.png", values, dtype=dtype), **options) == expected


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_grey_stored_as_colour_is_grey(tmp_path: Path, mode: str) -> None:
    assert ids(tmp_path, draw(tmp_path / "m.png", [[0, 1]], mode=mode)) == [[0, 1]]


def test_a_mask_of_one_bit_counts_as_ids_and_as_black_and_white(tmp_path: Path) -> None:
    file = draw(tmp_path / "m.png", [[0, 255]], mode="1")
    assert ids(tmp_path, file) == [[0, 1]]
    assert ids(tmp_path, file, values={0: "background", 255: "leaf"}) == [[0, 1]]


STRANGE: dict[str, tuple[Callable[[Path], Path], dict[str, object], str]] = {
    "black_and_white": (
        lambda f: draw(f / "m.png", [[0, 200]]),
        {},
        r"m\.png has the values 200 beside the ids 0 to 1.*data\.values=\{0: background, 200: leaf",
    ),
    "unnamed": (
        lambda f: draw(f / "m.png", [[0, 3]]),
        {"values": {0: "leaf"}},
        r"has the values 3 beside the values 0 of data\.values.*ignore",
    ),
    "colours": (
        lambda f: draw(f / "m.png", [[[255, 0, 0]]]),
        {},
        r"is a mask of colours.*greyscale or palette PNG",
    ),
    "lossy": (lambda f: draw(f / "m.jpg", [[0, 1]]), {}, r"lossy JPEG.*data\.threshold=127"),
    "depth": (lambda f: draw(f / "m.tiff", [[0.5]], dtype=np.float32), {}, "pixels of type F"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_what_a_mask_may_not_hold(tmp_path: Path, case: str) -> None:
    make, options, words = STRANGE[case]
    with pytest.raises(FileError, match=words):
        ids(tmp_path, make(tmp_path), **options)


def test_lossy_masks_with_a_threshold_are_used_and_noticed_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = draw(tmp_path / "m.jpg", [[0] * 8 + [255] * 8] * 16)
    source = folder(tmp_path, threshold=127)
    for _ in range(2):
        assert source.mask(Sample("m", file, file)).tolist() == [[0] * 8 + [1] * 8] * 16
    assert caplog.text.count("lossy JPEGs") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"values": {0: "leaf"}, "threshold": 0}, "exclude each other"),
        ({"values": {0: "laef"}}, "gives 0 to laef, which data.classes"),
        ({"values": {"a": "leaf"}}, "a must be a whole number"),
        ({"threshold": 0, "classes": ["a", "b", "c"]}, "data.classes names 3"),
        ({"mask_pattern": "mask"}, "must hold {stem}"),
        ({"split": "random"}, "choose holdout or files"),
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
        {"threshold": 0},
        {"threshold": 1},
        {"values": {0: "leaf"}},
        {"ignore_value": 3},
    ]
    assert len({folder(tmp_path, **options).rules for options in every}) == len(every)


# splits


def many(root: Path, count: int = 20) -> list[str]:
    names = [f"i{n:02}" for n in range(count)]
    for name in names:
        pair(root, f"{name}.png", f"{name}.png")
    return names


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


def test_lists_name_the_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    many(tmp_path, 6)
    (tmp_path / "train.txt").write_text("i00\ni01.png\n# a comment\n\n")
    (tmp_path / "val.txt").write_text("i02\ni77\n")
    splits = folder(tmp_path, split="files").splits()
    assert [s.name for s in splits.train] == ["i00", "i01"]
    assert [s.name for s in splits.test] == ["i02"]
    assert splits.val_is_test
    (problem,) = splits.problems
    assert "val.txt line 2 names i77, which isn't there" in str(problem.error)
    assert "3 images are in no split" in caplog.text
    (tmp_path / "test.txt").write_text("i00\n")
    with pytest.raises(UserError, match=r"test\.txt:1: i00 stands in train\.txt already"):
        folder(tmp_path, split="files").splits()


def test_a_table_names_pairs_and_splits(tmp_path: Path) -> None:
    many(tmp_path, 3)
    table = tmp_path / "pairs.csv"
    rows = [f"images/i{n:02}.png;masks/i{n:02}.png;{s}" for n, s in enumerate(("train", "val", ""))]
    table.write_text("\N{ZERO WIDTH NO-BREAK SPACE}Image;mask;split\n" + "\n".join(rows))
    splits = folder(tmp_path, pairs=table, split="files").splits()
    assert [s.mask.name for s in splits.train] == ["i00.png"]
    assert [s.image.name for s in splits.val] == ["i01.png"]
    assert splits.val_is_test


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,label\na,b\n", "has the columns image, label, but not mask"),
        ("", "has the columns none, but not image and mask"),
        ("image,mask\n../../etc/passwd,b\n", "leaves its folder"),
        ("image,mask\na.png,\n", "pairs.csv:2: a path is empty"),
    ],
)
def test_a_table_that_is_none(tmp_path: Path, text: str, words: str) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text(text)
    with pytest.raises(UserError) as caught:
        folder(tmp_path, pairs=table).splits()
    assert words in str(caught.value)


def test_a_table_that_names_absent_files(tmp_path: Path) -> None:
    many(tmp_path, 3)
    table = tmp_path / "pairs.csv"
    rows = [f"images/i{n:02}.png,masks/i{n:02}.png" for n in range(4)]
    table.write_text("image,mask\n" + "\n".join(rows))
    problems = folder(tmp_path, pairs=table).splits().problems
    assert [problem.error.file.parent.name for problem in problems] == ["images", "masks"]
    assert f"{table}:5 names it" in problems[0].error.problem


@pytest.mark.parametrize("count", [0, 2])
def test_too_few_images(tmp_path: Path, count: int) -> None:
    many(tmp_path, count)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir(exist_ok=True)
    with pytest.raises(UserError, match="no image with a mask" if count == 0 else "at least 3"):
        folder(tmp_path).splits()


def test_a_root_without_the_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"images is not a folder.*data\.images and data\.masks"):
        folder(tmp_path).splits()


# the command

TINY = ["data.size=32", "model.widths=[4,8]", "debug=smoke"]


def test_one_line_trains_on_images_of_different_sizes(command: Command, tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    for n in range(12):
        height, width = noise.integers(20, 60, 2)
        draw(tmp_path / f"my/images/{n}.jpg", noise.integers(0, 256, (height, width, 3)))
        draw(tmp_path / f"my/masks/{n}_mask.png", noise.choice([0, 255], (height, width)))
    done = command(
        "data=folder",
        "data.root=my",
        "data.classes=[background,leaf]",
        "data.values={0: background, 255: leaf}",
        'data.mask_pattern="{stem}_mask"',
        *TINY,
    )
    assert done.returncode == 0, done.stdout
    assert "10 train, 1 val, 1 test images" in done.stdout
    assert "leaf" in done.stdout


def test_missing_classes_are_asked_for(command: Command) -> None:
    done = command("data=folder", *TINY)
    assert done.returncode == 1
    assert "data.classes has no value: give one, as in data.classes=" in done.stdout
    assert "Traceback" not in done.stdout
