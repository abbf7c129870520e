import re
from pathlib import Path

import numpy as np
import pytest
from fixture_types import Command
from omegaconf import OmegaConf
from PIL import Image

from segpets.build.objects import build_data, build_source
from segpets.config import compose, conf_dir
from segpets.data import Voc
from segpets.data.folds import of_fold
from segpets.data.source import Sample, Splits
from segpets.errors import FileError, UserError

CLASSES = list(OmegaConf.load(conf_dir() / "data" / "voc.yaml").classes)
PERSON = CLASSES.index("person")
VOID = (224, 224, 192)


def voc_palette() -> list[int]:
    """The 256 colours as the development kit's VOClabelcolormap.m computes them."""
    palette = []
    for index in range(256):
        red = green = blue = 0
        bits = index
        for shift in range(7, -1, -1):
            red |= (bits & 1) << shift
            green |= (bits >> 1 & 1) << shift
            blue |= (bits >> 2 & 1) << shift
            bits >>= 3
        palette += [red, green, blue]
    return palette


def image(file: Path, *, height: int = 2, width: int = 4) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 90, 90)).save(file)
    return file


def mask(
    file: Path, values: object, *, palette: list[int] | None = None, mode: str | None = None
) -> Path:
    """Indices in a palette, which is VOC's if none is given; `mode` converts it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    drawn = Image.fromarray(np.array(values, dtype=np.uint8))
    drawn.putpalette(palette or voc_palette())
    (drawn.convert(mode) if mode else drawn).save(file)
    return file


def pixels(file: Path, values: object) -> Path:
    """Grey values or colours, as they are."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, dtype=np.uint8)).save(file)
    return file


def devkit(
    home: Path, lists: dict[str, list[str]], *, masks: str = "SegmentationClass", lone: str = ""
) -> Path:
    """A folder such as VOC2012 with all that its lists name, and an image without a mask."""
    for name, lines in lists.items():
        listing = home / "ImageSets" / "Segmentation" / f"{name}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text("".join(f"{line}\n" for line in lines))
        for line in lines:
            image(home / "JPEGImages" / f"{line}.jpg")
            mask(home / masks / f"{line}.png", [[0, 0, PERSON, 255]] * 2)
    if lone:
        image(home / "JPEGImages" / f"{lone}.jpg")
    return home


def official(home: Path) -> Path:
    names = [f"2007_{n:06}" for n in range(14)]
    return devkit(home, {"train": names[:10], "val": names[10:]}, lone="2008_000001")


def voc(root: Path, **options: object) -> Voc:
    return Voc(**({"root": root, "classes": CLASSES} | options))  # type: ignore[arg-type]


def ids(file: Path, **options: object) -> list[list[int]]:
    image(file.parents[1] / "JPEGImages" / f"{file.stem}.jpg")
    found = voc(file.parents[1], **options).mask(Sample("x", file, file))
    assert found.dtype == np.uint8
    rows: list[list[int]] = found.tolist()
    return rows


def names(splits: Splits) -> list[list[str]]:
    return [[s.name for s in part] for part in (splits.train, splits.val, splits.test)]


def refusal(source: Voc) -> str:
    with pytest.raises(UserError) as caught:
        source.splits()
    return str(caught.value)


def problems(source: Voc) -> list[str]:
    return [str(problem.error) for problem in source.splits().problems]


# masks


def test_the_21_classes_have_the_order_of_the_development_kit() -> None:
    assert len(CLASSES) == 21
    order = ["background", "aeroplane", "cow", "diningtable", "person", "tvmonitor"]
    assert [CLASSES.index(name) for name in order] == [0, 1, 10, 11, 15, 20]


@pytest.mark.parametrize("mode", [None, "RGB", "RGBA"])
def test_indices_and_their_colours_mean_the_same(tmp_path: Path, mode: str | None) -> None:
    every = [[*range(21), 255]]
    assert ids(mask(tmp_path / "m" / "x.png", every, mode=mode)) == every


def test_the_colours_of_the_development_kit() -> None:
    palette = voc_palette()
    assert palette[3 * PERSON : 3 * PERSON + 3] == [192, 128, 128]
    assert palette[-3:] == list(VOID)


def test_grey_masks_hold_ids_whether_stored_as_one_channel_or_as_three(tmp_path: Path) -> None:
    every = np.array([[*range(21), 255]])
    assert ids(pixels(tmp_path / "m" / "x.png", every)) == every.tolist()
    assert ids(pixels(tmp_path / "m" / "y.png", np.stack([every] * 3, axis=-1))) == every.tolist()


def test_a_car_alone_is_grey_and_still_a_colour(tmp_path: Path) -> None:
    file = pixels(tmp_path / "m" / "x.png", [[[0, 0, 0], [128, 128, 128]]])
    assert ids(file) == [[0, CLASSES.index("car")]]


def test_a_palette_that_a_program_has_sorted_anew_counts_by_its_colours(tmp_path: Path) -> None:
    palette = [*VOID, 192, 128, 128, 0, 0, 0]
    assert ids(mask(tmp_path / "m" / "x.png", [[0, 1, 2]], palette=palette)) == [[255, PERSON, 0]]


@pytest.mark.parametrize("palette", [[7, 8, 9] * 256, [9, 0, 0, 0, 9, 0], list(range(256)) * 3])
def test_indices_in_another_palette_are_ids(tmp_path: Path, palette: list[int]) -> None:
    assert ids(mask(tmp_path / "m" / "x.png", [[0, 1, 1]], palette=palette)) == [[0, 1, 1]]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([[0, 21]], "has the values [21], but 21 classes have the ids 0 to 20"),
        (
            [[[0, 0, 0], [1, 2, 3]]],
            "has the values [1 2 3], which VOC's map of 21 colours doesn't name: replace the",
        ),
        ([[[0, 0, 0], [224, 224, 224]]], "has the values [224], but 21 classes"),
    ],
)
def test_values_that_no_class_names(tmp_path: Path, values: object, words: str) -> None:
    file = pixels(tmp_path / "m" / "x.png", values)
    with pytest.raises(FileError, match=re.escape(words)):
        ids(file)


def test_a_lossy_mask_is_refused_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "m" / "x.png"
    file.parent.mkdir()
    Image.new("L", (8, 8)).save(file, format="JPEG")
    with pytest.raises(FileError, match="stored as lossy JPEG, which invents values: store it as"):
        ids(file)


def test_classes_of_ones_own_take_the_first_colours_of_the_map(tmp_path: Path) -> None:
    own = {"classes": ["background", "leaf"]}
    file = mask(tmp_path / "m" / "x.png", [[0, 1, 255]], mode="RGB")
    assert ids(file, **own) == [[0, 1, 255]]
    assert ids(mask(tmp_path / "m" / "y.png", [[0, 255]]), **own) == [[0, 255]]
    with pytest.raises(FileError, match="which VOC's map of 2 colours doesn't name"):
        ids(mask(tmp_path / "m" / "z.png", [[0, 2]], mode="RGB"), **own)


def test_values_of_ones_own_replace_all_rules(tmp_path: Path) -> None:
    file = mask(tmp_path / "m" / "x.png", [[0, 1, 2]])
    (tmp_path / "labelmap.txt").write_text("other:1,1,1::\nset:2,2,2::\n")
    own = {"classes": ["background", "leaf"]}
    numbers = {0: "background", 1: "ignore", 2: "leaf"}
    assert ids(file, values=numbers, **own) == [[0, 255, 1]]
    colours = {"0 0 0": "leaf", "128 0 0": "background", "0 128 0": None}
    assert ids(file, values=colours, **own) == [[1, 0, 255]]
    file = pixels(tmp_path / "m" / "y.png", [[0, 1, 7]])
    assert ids(file, classes=["a", "b"], values={0: "a", 1: "b"}, ignore_value=7) == [[0, 1, 255]]


LABELMAP = (
    "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:250,50,83:hand,foot:\n"
    "my car:1,2,3::\nvoid:9,9,9::\n"
)


def test_a_labelmap_names_colours_and_numbers(tmp_path: Path) -> None:
    (tmp_path / "labelmap.txt").write_text(LABELMAP)
    own = {"classes": ["my car", "background", "road"]}
    rgb = [[[0, 0, 0], [250, 50, 83], [1, 2, 3], [9, 9, 9]]]
    assert ids(pixels(tmp_path / "m" / "x.png", rgb), **own) == [[1, 2, 0, 255]]
    assert ids(pixels(tmp_path / "m" / "y.png", [[0, 1, 2, 3, 255]]), **own) == [
        [1, 2, 0, 255, 255]
    ]
    stray = pixels(tmp_path / "m" / "z.png", [[[250, 50, 84]]])
    with pytest.raises(FileError, match=r"labelmap.txt doesn't name: add them there"):
        ids(stray, **own)


def test_a_label_without_a_colour_has_that_of_the_map(tmp_path: Path) -> None:
    (tmp_path / "labelmap.txt").write_text("background\nroad:::\n")
    file = pixels(tmp_path / "m" / "x.png", [[[0, 0, 0], [128, 0, 0]]])
    assert ids(file, classes=["road", "background"]) == [[1, 0]]


def test_what_a_labelmap_advises_can_be_pasted(tmp_path: Path) -> None:
    (tmp_path / "labelmap.txt").write_text(LABELMAP)
    told = refusal(voc(official(tmp_path)))
    assert "labelmap.txt names 3 classes that aren't those of data.classes: say" in told
    advised = re.search('"(.*?)"', told)
    assert advised
    cfg = compose(["data=voc", advised[1], f"data.root={tmp_path}"])
    assert list(cfg.data.classes) == ["background", "road", "my car"]
    assert build_source(cfg.data).splits().test


@pytest.mark.parametrize(
    "line", ["road:1,2::", "road:1,2,256::", "background:1,1,1::", ":1,1,1::", "a:1,1,9999"]
)
def test_a_labelmap_that_is_none(tmp_path: Path, line: str) -> None:
    (tmp_path / "labelmap.txt").write_text(f"background:0,0,0::\n{line}\n")
    told = refusal(voc(official(tmp_path), classes=["background", "road"]))
    assert f"{tmp_path}/labelmap.txt has the line {line!r}" in told


# places


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


def test_the_rules_name_what_decides_over_ids(tmp_path: Path) -> None:
    home = official(tmp_path)
    two = {"classes": ["background", "road"]}
    every = [voc(home), voc(home, **two), voc(home, ignore_value=3), voc(home, values={0: "cat"})]
    (home / "labelmap.txt").write_text("background:0,0,0::\nroad:1,2,3::\n")
    mapped = voc(home, **two)
    mapped.splits()
    assert len({source.rules for source in [*every, mapped]}) == 5


def test_what_advice_a_training_gives_can_be_followed(tmp_path: Path) -> None:
    home = official(tmp_path / "VOC2012")
    masks = home / "SegmentationClass"
    mask(masks / "2007_000001.png", [[0, 1, 2]])
    pixels(masks / "2007_000002.png", [[0, 99, 0, 0]] * 2)
    (masks / "2007_000003.png").write_bytes(b"no picture")

    def told(*words: str) -> str:
        base = ["data=voc", f"data.root={home}", "data.cache=none", "data.batch_size=1"]
        cfg = compose([*base, *words])
        try:
            build_data(cfg).setup()
        except UserError as error:
            return str(error)
        return ""

    first = told()
    assert f"{home}/JPEGImages/2007_000001.jpg has 4x2 pixels, but its mask" in first
    assert "2 more can't be used either" in first
    exclude = tmp_path / "exclude.txt"
    exclude.write_text("2007_000001\n2007_000003.jpg\n")
    second = told(f"data.exclude={exclude}")
    assert "2007_000002.png has the values [99], but 21 classes have the ids 0 to 20" in second
    assert "data.ignore_value" in second
    assert told(f"data.exclude={exclude}", "data.ignore_value=99") == ""


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
