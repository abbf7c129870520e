"""Which images are in which stage, by chance, lists or a table."""

import logging
from pathlib import Path

import pytest
from made_folder import folder, many, pair, problems, refusal

from segpets.data import Folder
from segpets.errors import UserError


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


def test_the_column_split_of_a_table_is_followed_where_it_names_train_and_val(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    names = many(tmp_path, 6)
    words = ["train", "val", "test", "train", "train", "val"]
    lines = [f"images/{n}.png,masks/{n}.png,{word}" for n, word in zip(names, words, strict=True)]
    text = "\n".join(["image,mask,split", *lines])
    assert stages(table(tmp_path, text)) == stages(table(tmp_path, text, split="files"))
    assert [len(part) for part in stages(table(tmp_path, text))] == [3, 2, 1]
    assert "The column split of" in caplog.text and "makes the splits" in caplog.text
    drawn = stages(table(tmp_path, text, split="holdout"))
    assert [len(part) for part in drawn] == [4, 1, 1]
    folds = text.replace("train", "a").replace("val", "b").replace("test", "c")
    assert [len(part) for part in stages(table(tmp_path, folds))] == [4, 1, 1]
    assert "holds a, b, c, but not train and val: it isn't used" in caplog.text


@pytest.mark.parametrize(
    "options", [{"bands": ["a", "b"]}, {"masks_per_image": "by_name"}], ids=str
)
def test_a_table_names_one_file_each(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(UserError, match="names one image and one mask a line"):
        table(tmp_path, "image,mask", **options)
