import re
from pathlib import Path

import numpy as np
import pytest
from fixture_types import Command
from made_voc import (
    PERSON,
    devkit,
    image,
    mask,
    names,
    official,
    problems,
    refusal,
    voc,
)

from segpets.data.folds import of_fold
from segpets.errors import UserError


@pytest.mark.parametrize(
    "below", ["", "VOC2012", "VOCdevkit/VOC2012", "TrainVal/VOCdevkit/VOC2011"]
)
def test_the_root_is_the_set_or_a_folder_above(tmp_path: Path, below: str) -> None:
    official(tmp_path / below)
    (tmp_path / ".hidden" / "JPEGImages").mkdir(parents=True)
    assert len(voc(tmp_path).splits().test) == 4


def test_the_year_chooses_between_two(tmp_path: Path) -> None:
    official(tmp_path / "VOCdevkit" / "VOC2012")
    devkit(tmp_path / "VOCdevkit" / "VOC2007", {"train": ["a", "b"], "val": ["c"]})
    told = refusal(voc(tmp_path))
    assert "holds VOCdevkit/VOC2007, VOCdevkit/VOC2012: choose one by data.year=2012" in told
    assert names(voc(tmp_path, year=2007).splits())[2] == ["c"]
    assert len(voc(tmp_path, year="2012").splits().test) == 4
    assert "but not data.year=2010" in refusal(voc(tmp_path, year=2010))
    assert "but not data.year=2007" in refusal(voc(tmp_path / "VOCdevkit" / "VOC2012", year=2007))


def test_a_folder_without_masks_beside_one_with_masks_is_passed_over(tmp_path: Path) -> None:
    """As Kaggle's copy has them."""
    official(tmp_path / "VOC2012_train_val" / "VOC2012_train_val")
    image(tmp_path / "VOC2012_test" / "VOC2012_test" / "JPEGImages" / "2008_000006.jpg")
    for year in (None, 2012):
        assert len(voc(tmp_path, year=year).splits().test) == 4


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    assert "none is not there, but must hold JPEGImages/" in refusal(voc(tmp_path / "none"))
    image(tmp_path / "JPEGImages" / "a.jpg")
    told = refusal(voc(tmp_path))
    assert "holds JPEGImages/, but no SegmentationClass/: name its folder of masks" in told
    (tmp_path / "SegmentationClass").mkdir()
    assert "SegmentationClass holds no pictures" in refusal(voc(tmp_path))


# splits


def test_holdout_splits_train_and_tests_on_official_val(tmp_path: Path) -> None:
    official(tmp_path)
    splits = voc(tmp_path).splits()
    train, val, test = names(splits)
    assert test == [f"2007_{n:06}" for n in range(10, 14)]
    assert (len(train), len(val)) == (9, 1)
    assert sorted(train + val) == [f"2007_{n:06}" for n in range(10)]
    assert not splits.problems and not splits.unused and not splits.val_is_test
    assert names(voc(tmp_path).splits()) == [train, val, test]
    assert names(voc(tmp_path, seed=1).splits()) != [train, val, test]


def test_files_take_the_lists_as_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    devkit(tmp_path, {"train": ["b", "a"], "val": ["c"], "test": ["d"], "other": ["e"]})
    splits = voc(tmp_path, split="files").splits()
    assert names(splits) == [["b", "a"], ["c"], ["d"]]
    assert not splits.val_is_test and not caplog.messages
    assert splits.unused == [tmp_path / "JPEGImages" / "e.jpg"]


@pytest.mark.parametrize("test_list", [True, False])
def test_where_test_has_no_masks_val_serves_as_test(
    tmp_path: Path, test_list: bool, caplog: pytest.LogCaptureFixture
) -> None:
    official(tmp_path)
    if test_list:
        image(tmp_path / "JPEGImages" / "2008_000006.jpg")
        (tmp_path / "ImageSets/Segmentation/test.txt").write_text("2008_000006\n2008_000008\n")
    splits = voc(tmp_path, split="files").splits()
    assert splits.val_is_test and list(splits.test) == list(splits.val)
    assert not splits.problems
    assert "those of val serve as test, too" in caplog.text


def test_a_test_list_with_some_masks_must_have_all(tmp_path: Path) -> None:
    devkit(tmp_path, {"train": ["a"], "val": ["b"], "test": ["c", "d"]})
    (tmp_path / "SegmentationClass" / "d.png").unlink()
    (told,) = problems(voc(tmp_path, split="files"))
    assert told.startswith(f"{tmp_path}/JPEGImages/d.jpg has no mask")


def test_lists_of_pairs_and_columns_and_paths(tmp_path: Path) -> None:
    devkit(tmp_path, {"trainaug": [*"abcdef", "my g 1"], "val": ["v"]}, masks="Aug")
    mask(tmp_path / "SegmentationClass" / "f.png", [[0]])
    listing = tmp_path / "ImageSets" / "Segmentation" / "trainaug.txt"
    listing.write_text(
        "\N{ZERO WIDTH NO-BREAK SPACE}/JPEGImages/a.jpg /Aug/a.png\r\n\n# a comment\n"
        "b  1\nc -1\n"
        "d.jpg\n"
        "VOCdevkit\\VOC2012\\JPEGImages\\e.jpg\n"
        "JPEGImages/f.jpg SegmentationClass/f.png\n"
        '"my g 1"'
    )
    source = voc(tmp_path, masks="Aug", split="files", lists=lists(train="trainaug"))
    splits = source.splits()
    assert not splits.problems
    assert [s.image.stem for s in splits.train] == [*"abcdef", "my g 1"]
    assert {s.mask.parent.name for s in splits.train[:5]} == {"Aug"}
    assert splits.train[5].mask == tmp_path / "SegmentationClass" / "f.png"
    listing.write_text("/JPEGImages/a.jpg /Aug/a.png\n" * 1)
    for name in ("trainaug.txt", str(listing)):
        source = voc(tmp_path, masks="Aug", split="files", lists=lists(train=name))
        assert names(source.splits())[0] == ["a"]


def lists(**others: str) -> dict[str, str]:
    return {"train": "train", "val": "val", "test": "test"} | others


def test_without_lists_what_is_annotated_is_split_80_10_10(tmp_path: Path) -> None:
    """As labelme's labelme2voc.py leaves it; with default.txt, as CVAT does."""
    for n in range(20):
        image(tmp_path / "JPEGImages" / f"i{n}.jpg")
        mask(tmp_path / "SegmentationClass" / f"i{n}.png", [[0, 1, 1, 255]] * 2)
    image(tmp_path / "JPEGImages" / "not_annotated.jpg")
    source = voc(tmp_path, classes=["background", "leaf"])
    assert [len(part) for part in names(source.splits())] == [16, 2, 2]
    assert not source.splits().problems
    mask(tmp_path / "SegmentationClass" / "orphan.png", [[0]])
    (told,) = problems(source)
    assert "SegmentationClass/orphan.png is a mask without an image" in told
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    listed = "\n".join(f"i{n}" for n in range(10))
    (tmp_path / "ImageSets" / "Segmentation" / "default.txt").write_text(listed)
    splits = source.splits()
    assert [len(part) for part in names(splits)] == [8, 1, 1]
    assert len(splits.unused) == 10 and not splits.problems


def test_lists_that_name_what_is_absent_or_lies_elsewhere(tmp_path: Path) -> None:
    official(tmp_path)
    (tmp_path.parent / "secret.jpg").touch()
    listing = tmp_path / "ImageSets" / "Segmentation" / "train.txt"
    named = ["2007_000000", "2007_000099", "../../secret", "/etc/passwd", "2007_000001", "x" * 999]
    listing.write_text("\n".join(named))
    (tmp_path / "SegmentationClass" / "2007_000001.png").unlink()
    splits = voc(tmp_path).splits()
    told = [str(problem.error) for problem in splits.problems]
    images = tmp_path / "JPEGImages"
    assert told[:4] == [
        f"{images}/2007_000099.* is missing, though {listing}:2 names it: restore it, or remove "
        "the line",
        f"{listing} names ../../secret in line 3, which leaves its folder: correct the name, or "
        "remove the line",
        f"{images}/passwd.* is missing, though {listing}:4 names it: restore it, or remove the "
        "line",
        f"{images}/2007_000001.jpg has no mask {tmp_path}/SegmentationClass/2007_000001.*, though "
        f"{listing}:5 names it: add it, or exclude the image by data.exclude",
    ]
    assert len(told) == 5
    assert splits.problems[0].name == "2007_000099"
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,140}", p.name) for p in splits.problems)
    assert names(splits)[0] == ["2007_000000"]


def test_an_image_of_two_lists_is_in_no_split(tmp_path: Path) -> None:
    home = official(tmp_path)
    listing = home / "ImageSets" / "Segmentation" / "val.txt"
    listing.write_text("2007_000010\n2007_000003\n2007_000010\n")
    splits = voc(tmp_path).splits()
    assert [problem.name for problem in splits.problems] == ["2007_000003", "2007_000010"]
    assert str(splits.problems[0].error) == (
        f"{listing} names 2007_000003 (val.txt:2), as train.txt:4 does: remove one of them, as an "
        "image belongs to one split, once"
    )
    train, val, test = names(splits)
    assert "2007_000003" not in train + val + test and not test


def test_two_masks_of_one_image(tmp_path: Path) -> None:
    official(tmp_path)
    mask(tmp_path / "SegmentationClass" / "2007_000002.gif", [[0]])
    (told,) = problems(voc(tmp_path))
    assert "2007_000002.gif and " in told and "2007_000002.png are partners" in told


@pytest.mark.parametrize("text", ["", "# nothing\n\n"])
def test_an_empty_list(tmp_path: Path, text: str) -> None:
    official(tmp_path)
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text(text)
    assert "val.txt lists no images: the split would be empty" in refusal(voc(tmp_path))


def test_one_image_cannot_be_two_splits(tmp_path: Path) -> None:
    devkit(tmp_path, {"train": ["a"], "val": ["b"]})
    assert "has too few images to leave any for val: add some" in refusal(voc(tmp_path))
    assert names(voc(tmp_path, split="files").splits()) == [["a"], ["b"], ["b"]]


def test_lists_that_cannot_be_read(tmp_path: Path) -> None:
    official(tmp_path)
    for stage in ("train", "val", "test"):
        told = refusal(voc(tmp_path, lists=lists(**{stage: "trainagu"})))
        assert "Segmentation/trainagu.txt is missing: restore it, or name another list by" in told
        assert told.endswith(f"data.lists.{stage}")
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").rename(tmp_path / "val.lst")
    assert "val.txt is missing" in refusal(voc(tmp_path, split="files"))
    assert len(voc(tmp_path, lists=lists(val=str(tmp_path / "val.lst"))).splits().test) == 4
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_bytes(b"\xff\xfe\x00")
    assert "val.txt can't be read" in refusal(voc(tmp_path))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "article"}, "data.split=article is unknown: choose holdout or files"),
        ({"seed": -1}, "data.seed=-1 must be a whole number"),
        ({"lists": {"train": "a"}}, "must name the lists of train, val and test"),
        ({"lists": "train"}, "must name the lists of train, val and test"),
        ({"values": {0: "cat", 1: "lion"}}, "gives 1 to lion"),
    ],
)
def test_options_that_contradict_each_other(
    tmp_path: Path, options: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        voc(tmp_path, **options)
    assert words in str(caught.value)


@pytest.mark.slow
def test_one_line_trains(command: Command, tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    home = tmp_path / "VOCdevkit" / "VOC2012"
    devkit(home, {"train": [f"t{n}" for n in range(10)], "val": ["v0", "v1"]})
    for file in (home / "JPEGImages").iterdir():
        height, width = noise.integers(20, 60, 2)
        image(file, height=int(height), width=int(width))
        chosen = noise.choice([0, PERSON, 255], (height, width))
        mask(home / "SegmentationClass" / f"{file.stem}.png", chosen)
    words = ["data=voc", "data.root=VOCdevkit", "data.size=32", "model.widths=[4,8]", "debug=smoke"]
    done = command(*words)
    assert done.returncode == 0, done.stdout
    assert "9 train, 1 val, 2 test images" in done.stdout
    assert "person" in done.stdout


def test_folds_of_listed_splits_keep_groups_together(tmp_path: Path) -> None:
    people = [f"p{n}_{k}" for n in range(6) for k in range(5)]
    devkit(tmp_path, {"train": people[:20], "val": people[20:25], "test": people[25:]})
    splits = voc(tmp_path, split="files", group=r"(p\d+)_").splits()
    for fold in range(3):
        dealt = of_fold(splits, folds=3, fold=fold, seed=0, by=None)
        train, val = ({s.name.split("_")[0] for s in part} for part in (dealt.train, dealt.val))
        assert val and not train & val
    with pytest.raises(UserError, match="is no regular expression"):
        voc(tmp_path, split="files", group="((").splits()
