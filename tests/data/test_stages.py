"""Folders as people have them: splits by their names, groups, several masks, bands and pages."""

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from segpets.data import Folder, Sample
from segpets.data.decoded import read_sample
from segpets.data.holdout import holdout, in_three
from segpets.data.reader import Reader
from segpets.data.source import Splits
from segpets.errors import UserError

CLASSES = ["background", "leaf"]


def draw(root: Path, *paths: str, value: int = 1) -> None:
    """Pictures of 6x4; those whose path speaks of masks hold a class id."""
    for index, path in enumerate(paths):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        mask = "mask" in path or "label" in path
        Image.new("L", (6, 4), value if mask else 40 + index).save(file)


def pairs(root: Path, *stems: str, images: str = "images", masks: str = "masks") -> None:
    draw(root, *(f"{images}/{stem}.png" for stem in stems))
    draw(root, *(f"{masks}/{stem}.png" for stem in stems))


def folder(root: Path, **options: Any) -> Folder:
    return Folder(**{"classes": CLASSES, "root": root} | options)


def names(samples: Sequence[Sample]) -> list[str]:
    return sorted(sample.image.stem for sample in samples)


def split(splits: Splits) -> tuple[list[str], list[str], list[str]]:
    return names(splits.train), names(splits.val), names(splits.test)


# splits by folders


@pytest.mark.parametrize("words", [("train", "val", "test"), ("Training", "valid", "testing")])
def test_folders_of_images_are_the_splits(
    tmp_path: Path, words: Sequence[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stems = zip(words, (("a", "b", "c"), ("d",), ("e", "f")), strict=True)
    pairs(tmp_path, *(f"{word}/{one}" for word, every in stems for one in every))
    splits = folder(tmp_path).splits()
    assert split(splits) == (["a", "b", "c"], ["d"], ["e", "f"])
    assert not splits.val_is_test
    assert "images are its splits: 3 train, 1 val, 2 test; data.split=holdout over" in caplog.text
    pooled = folder(tmp_path, split="holdout").splits()
    assert sorted(itertools.chain(*split(pooled))) == list("abcdef")


def test_each_stage_may_have_folders_of_its_own(tmp_path: Path) -> None:
    for stage, stems in (("train", "abc"), ("val", "d"), ("test", "e")):
        pairs(tmp_path / stage, *stems, masks="labels")
    splits = folder(tmp_path).splits()
    assert split(splits) == (["a", "b", "c"], ["d"], ["e"])
    assert splits.train[0].mask == tmp_path / "train" / "labels" / "a.png"


def test_side_by_side_with_a_pattern(tmp_path: Path) -> None:
    for stage, stems in (("train", "abc"), ("valid", "d"), ("test", "e")):
        draw(tmp_path / stage, *(f"{stem}.png" for stem in stems))
        draw(tmp_path / stage, *(f"{stem}_mask.png" for stem in stems))
    source = folder(tmp_path, images=tmp_path, masks=tmp_path, mask_pattern="{stem}_mask")
    assert split(source.splits()) == (["a", "b", "c"], ["d"], ["e"])


def test_without_val_a_tenth_of_train_and_without_test_val(tmp_path: Path) -> None:
    pairs(tmp_path, *(f"train/{i:02d}" for i in range(20)), "test/x")
    train, val, test = split(folder(tmp_path).splits())
    assert (len(train), len(val), test) == (18, 2, ["x"])
    other = tmp_path / "other"
    pairs(other, *(f"train/{i:02d}" for i in range(20)), "val/x")
    splits = folder(other).splits()
    assert (len(splits.train), names(splits.test), splits.val_is_test) == (20, ["x"], True)


def test_a_folder_named_train_alone_splits_nothing(tmp_path: Path) -> None:
    pairs(tmp_path, *(f"train/{i:02d}" for i in range(10)))
    assert [len(part) for part in split(folder(tmp_path).splits())] == [8, 1, 1]
    with pytest.raises(UserError, match=r"data\.split=folders, but .* has no folders train/ and"):
        folder(tmp_path, split="folders").splits()


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    pairs(tmp_path, "train/a", "train/b", "test/c")
    (tmp_path / "images" / "val").mkdir()
    with pytest.raises(UserError, match=r"images/val holds no images, but its name makes it a spl"):
        folder(tmp_path).splits()


# groups


def test_a_group_is_on_one_side_of_every_split(tmp_path: Path) -> None:
    pairs(tmp_path, *(f"p{patient}_{i}" for patient in range(12) for i in range(5)))
    splits = folder(tmp_path, group=r"^p(\d+)_").splits()
    sides = [{name.partition("_")[0] for name in part} for part in split(splits)]
    assert all(sides)
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert sum(map(len, sides)) == 12
    again = folder(tmp_path, group=r"^p(\d+)_").splits()
    assert split(again) == split(splits)
    other = folder(tmp_path, group=r"^p(\d+)_", seed=1).splits()
    assert split(other) != split(splits)


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5])
def test_groups_of_different_sizes_come_near_to_the_fraction(fraction: float) -> None:
    sizes = [1, 2, 3, 5, 8, 13, 21, 4, 4, 4]
    file = Path("a")
    samples = [
        Sample(f"{group}-{i}", file, file, group=str(group))
        for group, size in enumerate(sizes)
        for i in range(size)
    ]
    for seed in range(20):
        kept, held = holdout(samples, fraction=fraction, seed=seed)
        assert {s.group for s in kept}.isdisjoint(s.group for s in held)
        assert kept and held
        assert abs(len(held) - fraction * len(samples)) <= 21


def test_groups_that_folders_part_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs(tmp_path, "train/p1_a", "train/p2_a", "val/p1_b", "test/p3_a")
    folder(tmp_path, group=r"(p\d+)").splits()
    assert "1 groups of data.group have images in several splits, for example p1" in caplog.text


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ("zzz", "matches nothing, for example not in p0"),
        ("p", "puts all 5 images in one group, 'p'"),
        ("(", "is no regular expression"),
    ],
)
def test_a_pattern_that_groups_nothing_is_refused(tmp_path: Path, group: str, words: str) -> None:
    pairs(tmp_path, *(f"p{i}" for i in range(5)))
    with pytest.raises(UserError, match=words):
        folder(tmp_path, group=group).splits()


# masks


def several(root: Path) -> None:
    """Three images, the first with two masks: its left and its right half, which meet in one."""
    pairs(root, *"abcd")
    left, right = np.zeros((4, 6), np.uint8), np.zeros((4, 6), np.uint8)
    left[:, :3], right[:, 2:] = 1, 2
    Image.fromarray(left).save(root / "masks" / "a.png")
    Image.fromarray(right).save(root / "masks" / "a_1.png")


def test_two_masks_of_an_image_are_refused_by_name_or_joined(tmp_path: Path) -> None:
    several(tmp_path)
    classes = ["background", "left", "right"]
    (problem,) = folder(tmp_path, classes=classes).splits().problems
    assert "a.png has 2 masks: a.png, a_1.png" in str(problem.error)
    source = folder(tmp_path, classes=classes, masks_per_image="union")
    splits = source.splits()
    (sample,) = [s for part in splits.stages().values() for s in part if s.name == "a"]
    assert source.mask(sample).tolist() == [[1, 1, 2, 2, 2, 2]] * 4  # the later lies above
    assert source.rules != folder(tmp_path, classes=classes).rules


def test_masks_named_by_their_class(tmp_path: Path) -> None:
    draw(tmp_path, *(f"images/{stem}.png" for stem in "abcd"))
    for stem in "abcd":
        leaf, stem_mask = np.zeros((4, 6), np.uint8), np.zeros((4, 6), np.uint8)
        leaf[:2], stem_mask[1:3] = 255, 255
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(leaf).save(tmp_path / "masks" / f"{stem}_Leaf.png")
        Image.fromarray(stem_mask).save(tmp_path / "masks" / f"{stem}_stem.png")
    options: dict[str, Any] = {
        "classes": ["background", "leaf", "stem"],
        "masks_per_image": "by_name",
    }
    source = folder(tmp_path, **options)
    sample = source.splits().train[0]
    assert source.mask(sample)[:, 0].tolist() == [1, 2, 2, 0]
    (tmp_path / "masks" / "a_root.png").write_bytes((tmp_path / "masks/a_stem.png").read_bytes())
    (problem,) = folder(tmp_path, **options).splits().problems
    assert "a_root.png names none of data.classes" in str(problem.error)


def test_the_second_mask_is_no_image_where_both_lie_in_one_folder(tmp_path: Path) -> None:
    draw(tmp_path, *(f"x/{s} (1).png" for s in "abcd"))
    draw(tmp_path, *(f"x/{s} (1)_mask.png" for s in "abcd"), "x/a (1)_mask_1.png")
    where = {"images": tmp_path / "x", "masks": tmp_path / "x", "mask_pattern": "{stem}_mask"}
    (problem,) = folder(tmp_path, **where).splits().problems
    assert "a (1).png has 2 masks: a (1)_mask.png, a (1)_mask_1.png" in str(problem.error)
    splits = folder(tmp_path, masks_per_image="union", **where).splits()
    assert sum(len(part) for part in splits.stages().values()) == 4


def test_names_with_two_suffixes(tmp_path: Path) -> None:
    draw(tmp_path, *(f"images/{s}.jpeg" for s in "abcd"))
    draw(tmp_path, *(f"masks/{s}.jpeg.png" for s in "abcd"))
    splits = folder(tmp_path).splits()
    assert sorted(itertools.chain(*split(splits))) == [*"abcd"]
    assert splits.train[0].mask.name.endswith(".jpeg.png")


def test_pairs_that_no_pattern_can_name_are_told_of_the_table(tmp_path: Path) -> None:
    draw(tmp_path, *(f"x/{i}_sat.png" for i in range(3)), *(f"x/{i}_mask.png" for i in range(3)))
    for pattern in ("{stem}", "{stem}_mask"):
        with pytest.raises(UserError, match=r"data\.pairs=FILE\.csv with the columns image,mask"):
            where = {"images": tmp_path / "x", "masks": tmp_path / "x", "mask_pattern": pattern}
            folder(tmp_path, **where).splits()


def test_masks_of_numpy(tmp_path: Path) -> None:
    draw(tmp_path, *(f"images/{s}.png" for s in "abcd"))
    (tmp_path / "masks").mkdir()
    for index, stem in enumerate("abcd"):
        np.save(tmp_path / "masks" / f"{stem}.npy", np.full((4, 6), index % 2, dtype=np.int64))
    source = folder(tmp_path)
    splits = source.splits()
    found = {s.name: source.mask(s).max() for part in splits.stages().values() for s in part}
    assert found == {"a": 0, "b": 1, "c": 0, "d": 1}


# bands and pages


@pytest.mark.parametrize("bands", [["{stem}_B2", "{stem}_B3"], ["red", "nir"]])
def test_each_band_in_a_file_of_its_own(tmp_path: Path, bands: list[str]) -> None:
    for stem in "abcd":
        for band in bands:
            path = band.format(stem=stem) if "{" in band else f"{band}/{stem}"
            draw(tmp_path, f"images/{path}.png")
    draw(tmp_path, *(f"masks/{stem}.png" for stem in "abcd"))
    splits = folder(tmp_path, bands=bands).splits()
    every = [s for part in splits.stages().values() for s in part]
    assert sorted(s.name for s in every) == [*"abcd"]
    assert all(len(s.files) == 2 and s.files[0] != s.files[1] for s in every)
    every[0].bands[0].unlink()
    (problem,) = folder(tmp_path, bands=bands).splits().problems
    assert "has no band" in str(problem.error)


def test_bands_that_fit_nothing(tmp_path: Path) -> None:
    pairs(tmp_path, *"abcd")
    with pytest.raises(UserError, match=r"data\.bands=.* fits no file in .*images"):
        folder(tmp_path, bands=["{stem}_B2", "{stem}_B3"]).splits()


def test_each_page_is_an_image_and_all_of_a_file_stay_together(tmp_path: Path) -> None:
    for place, values in (("images", 50), ("masks", 0)):
        (tmp_path / place).mkdir()
        for index in range(10):
            with tifffile.TiffWriter(tmp_path / place / f"v{index}.tif") as writer:
                for page in range(3):
                    pixels = np.full((4, 6), values + page % 2, np.uint8)
                    writer.write(pixels, photometric="minisblack")
    source = folder(tmp_path, pages="each")
    splits = source.splits()
    assert [len(part) for part in splits.stages().values()] == [24, 3, 3]
    assert len({sample.image for sample in splits.val}) == 1
    ids = {s.name: source.mask(s).max() for s in splits.val}
    assert sorted(ids.values()) == [0, 0, 1]


def test_a_mask_of_fewer_pages_is_a_problem(tmp_path: Path) -> None:
    pairs(tmp_path, *"abcd")
    with tifffile.TiffWriter(tmp_path / "images" / "a.tif") as writer:
        for _ in range(3):
            writer.write(np.zeros((4, 6), np.uint8), photometric="minisblack")
    (tmp_path / "images" / "a.png").unlink()
    (problem,) = folder(tmp_path, pages="each").splits().problems
    assert "a.tif has 3 pages, but its mask" in str(problem.error)


# what a review found


def test_the_background_may_be_any_class(tmp_path: Path) -> None:
    draw(tmp_path, *(f"images/{stem}.png" for stem in "abcd"))
    (tmp_path / "masks").mkdir()
    for stem in "abcd":
        for name, rows in (("", slice(1)), ("_1", slice(2, 3))):
            mask = np.zeros((4, 6), np.uint8)
            mask[rows] = 255
            Image.fromarray(mask).save(tmp_path / "masks" / f"{stem}{name}.png")
    values = {0: "background", 255: "leaf"}
    for classes in (["background", "leaf"], ["leaf", "background"]):
        source = folder(tmp_path, classes=classes, values=values, masks_per_image="union")
        ids = source.mask(source.splits().train[0])
        leaf = classes.index("leaf")
        assert (ids[:, 0] == leaf).tolist() == [True, False, True, False]
    with pytest.raises(UserError, match=r"needs one of data\.classes to be called background"):
        folder(tmp_path, classes=["a", "b"], masks_per_image="union")


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "RGBA", "LA", "P"])
def test_masks_of_a_class_count_where_they_show_something(tmp_path: Path, mode: str) -> None:
    draw(tmp_path, *(f"images/{stem}.png" for stem in "abcd"))
    (tmp_path / "masks").mkdir()
    shown = Image.new("L", (6, 4))
    shown.paste(255, (0, 0, 2, 4))
    for stem in "abcd":
        shown.convert(mode).save(tmp_path / "masks" / f"{stem}_leaf.png")
    source = folder(tmp_path, masks_per_image="by_name")
    assert source.mask(source.splits().train[0]).sum(axis=0).tolist() == [4, 4, 0, 0, 0, 0]


def test_single_pictures_beside_stacks_are_groups_of_their_own() -> None:
    file = Path("a")
    singles = [Sample(f"s{i}", file, file) for i in range(90)]
    stacked = [Sample(f"v-{i}", file, file, group="v") for i in range(10)]
    kept, held = holdout([*singles, *stacked], fraction=0.1, seed=0)
    assert 8 <= len(held) <= 12
    assert any(sample.name.startswith("s") for sample in held)
    assert len({s.name.startswith("v") for s in held if s.group}) <= 1
    assert len(kept) + len(held) == 100


def test_too_few_groups_are_said(tmp_path: Path) -> None:
    pairs(tmp_path, "p1_a", "p1_b", "p2_a", "p2_b")
    with pytest.raises(UserError, match="has 4 images in 2 groups, which no split may part"):
        folder(tmp_path, group=r"^(p\d)").splits()


def test_a_pattern_that_could_take_for_ever_is_refused(tmp_path: Path) -> None:
    pairs(tmp_path, *"abcd")
    with pytest.raises(UserError, match="repeats what repeats"):
        folder(tmp_path, group="(a+)+!").splits()


def test_masks_lie_as_they_are_stored_if_exif_is_ignored(tmp_path: Path) -> None:
    for place in ("images", "masks"):
        (tmp_path / place).mkdir()
        for stem in "abcd":
            pixels = np.zeros((4, 6), np.uint8)
            pixels[0, 0] = 1
            tags = [(274, "H", 1, 3, False)]
            file = tmp_path / place / f"{stem}.tif"
            tifffile.imwrite(file, pixels, photometric="minisblack", extratags=tags)
    for exif, corner in (("ignore", (0, 0)), ("auto", (3, 5))):
        source = folder(tmp_path, exif=exif)
        reader = Reader((32, 32), fit="none", channels=1, exif=exif)  # type: ignore[arg-type]
        decoded = read_sample(source.splits().train[0], source, reader)
        seen = decoded.geometry.inside(torch.from_numpy(decoded.image))[0].numpy()
        for found in (decoded.whole_mask, seen):
            assert np.argwhere(found == 1).tolist() == [[*corner]]


@pytest.mark.parametrize("seed", range(6))
def test_uneven_groups_leave_something_for_each_stage(seed: int) -> None:
    sizes = {"a": 100, "b": 3, "c": 2}
    samples = [
        Sample(f"{group}{n}", Path("i"), Path("m"), group=group)
        for group, count in sizes.items()
        for n in range(count)
    ]
    parts = in_three(samples, seed=seed, place="here")
    assert all(parts) and sum(map(len, parts)) == 105
    assert len(parts[0]) == 100


def test_a_list_names_all_pages_of_its_file(tmp_path: Path) -> None:
    for index in range(6):
        for place in ("images", "masks"):
            file = tmp_path / place / f"v{index}.tif"
            file.parent.mkdir(exist_ok=True)
            tifffile.imwrite(file, np.ones((3, 4, 6), np.uint8), photometric="minisblack")
    (tmp_path / "train.txt").write_text("v0\nv1\nv2\n")
    (tmp_path / "val.txt").write_text("v3\nv4\n")
    source = Folder(root=tmp_path, classes=CLASSES, pages="each", split="files")
    splits = source.splits()
    assert not splits.problems
    assert [len(splits.train), len(splits.val), len(splits.test)] == [9, 6, 6]
    assert [s.name for s in splits.val[:3]] == ["v3-page1", "v3-page2", "v3-page3"]
