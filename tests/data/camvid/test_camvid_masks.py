import re
from pathlib import Path

import numpy as np
import pytest
from made_camvid import (
    ALL,
    CLASS_DICT,
    COLOURS,
    GROUPS,
    SEGNET,
    SKY_AND_CAR,
    camvid,
    frame,
    ids,
    kaggle,
    original,
    refusal,
    save,
    segnet,
)
from PIL import Image

from segpets.data import SegmentationDataModule
from segpets.errors import FileError, UserError


def test_ids_of_segnet_are_classes_and_11_is_void(tmp_path: Path) -> None:
    segnet(tmp_path)
    file = save(tmp_path / "trainannot" / "0001TP_000000.png", [[*range(12), 255]])
    assert ids(camvid(tmp_path), file) == [[*range(11), 255, 255]]
    wide = save(tmp_path / "x.png", np.stack([[[*range(12)]]] * 3, axis=-1))
    assert ids(camvid(tmp_path), wide) == [[*range(11), 255]]
    assert SEGNET[0] == "sky" and SEGNET[8] == "car"


@pytest.mark.parametrize("label_file", [True, False])
def test_the_32_colours_are_grouped_to_the_11_classes(tmp_path: Path, label_file: bool) -> None:
    original(tmp_path, ["a_1", "a_2", "a_3"])
    if not label_file:
        (tmp_path / "label_colors.txt").unlink()
    source = camvid(tmp_path)
    expected = {raw: SEGNET.index(group) for group, raws in GROUPS.items() for raw in raws.split()}
    assert expected.keys() == COLOURS.keys() - {"Void"}
    for name, colour in COLOURS.items():
        file = save(tmp_path / "x.png", [[colour, COLOURS["Car"]]])
        assert ids(source, file) == [[expected.get(name, 255), SEGNET.index("car")]], name


def test_all_32_labels_can_be_classes(tmp_path: Path) -> None:
    kaggle(tmp_path)
    source = camvid(tmp_path, labels="all32")
    assert sorted(ALL) == sorted(COLOURS)
    file = save(tmp_path / "x.png", [[COLOURS[name] for name in ALL]])
    assert ids(source, file) == [[*range(32)]]


def test_numbers_mean_the_lines_of_codes_txt(tmp_path: Path) -> None:
    """As fast.ai converts the original: the 32 names by the alphabet, capitals first or not."""
    for n in range(3):
        frame(tmp_path / f"images/a_{n}.png", tmp_path / f"labels/a_{n}_P.png", [[0, 21, 30, 31]])
    (tmp_path / "codes.txt").write_text("\n".join(ALL) + "\n")
    file = tmp_path / "labels" / "a_0_P.png"
    expected = [SEGNET.index("pedestrian"), SEGNET.index("sky"), 255, SEGNET.index("building")]
    assert ids(camvid(tmp_path), file) == [expected]
    assert ids(camvid(tmp_path, labels="all32"), file) == [[0, 21, 30, 31]]
    assert ALL[0] == "Animal" and ALL[30] == "Void"


def test_a_palette_of_camvids_colours_counts_by_them(tmp_path: Path) -> None:
    original(tmp_path, ["a_1", "a_2", "a_3"])
    drawn = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8))
    drawn.putpalette([*COLOURS["Car"], *COLOURS["Void"], *COLOURS["Sky"]])
    drawn.save(tmp_path / "x.png")
    assert ids(camvid(tmp_path), tmp_path / "x.png") == [[SEGNET.index("car"), 255, 0]]


def test_a_frame_of_sky_and_void_alone_is_grey_and_still_holds_colours(tmp_path: Path) -> None:
    original(tmp_path, ["a_1", "a_2", "a_3"])
    file = save(tmp_path / "x.png", [[COLOURS["Sky"], COLOURS["Void"]]])
    assert ids(camvid(tmp_path), file) == [[0, 255]]


def test_black_is_sky_among_ids_and_void_among_colours(tmp_path: Path) -> None:
    black = save(tmp_path / "x.png", np.zeros((1, 2, 3)))
    assert ids(camvid(segnet(tmp_path / "a")), black) == [[0, 0]]
    assert ids(camvid(kaggle(tmp_path / "b")), black) == [[255, 255]]


def test_colours_among_ids_and_ids_among_colours(tmp_path: Path) -> None:
    source = camvid(segnet(tmp_path / "ids"))
    file = save(tmp_path / "ids" / "trainannot" / "0001TP_000001.png", [[*SKY_AND_CAR[0]] * 2])
    with pytest.raises(FileError) as caught:
        ids(source, file)
    assert str(caught.value) == (
        f"{file} is a mask of colours, but other masks of this set hold numbers: replace it by one "
        "with class ids, or exclude its image by data.exclude"
    )
    source = camvid(kaggle(tmp_path / "colours"))
    file = save(tmp_path / "colours" / "train_labels" / "0001TP_000000_L.png", [[0, 8]])
    with pytest.raises(FileError) as caught:
        ids(source, file)
    assert "is a mask of numbers, but other masks of this set hold colours" in str(caught.value)


def test_a_training_names_the_file_of_the_other_kind(tmp_path: Path) -> None:
    segnet(tmp_path)
    file = save(tmp_path / "valannot" / "0016E5_000002.png", [SKY_AND_CAR[0] * 2])
    module = SegmentationDataModule(
        source=camvid(tmp_path),
        augment=lambda image, mask, seed: (image, mask),
        size=32,
        batch_size=1,
        num_workers=0,
        run_seed=0,
        cache="none",
    )
    with pytest.raises(UserError, match=re.escape(f"{file} is a mask of colours")):
        module.setup()


@pytest.mark.parametrize("annot", ["trainannot", "train_labels"])
def test_the_masks_tell_what_they_hold_whatever_their_folder_is_called(
    tmp_path: Path, annot: str
) -> None:
    """CVAT exports colours into trainannot; others convert train_labels to ids."""
    values: object = SKY_AND_CAR if annot == "trainannot" else [[0, 8]]
    for n in range(4):
        frame(tmp_path / f"train/a_{n}.png", tmp_path / annot / f"a_{n}.png", values)
    assert ids(camvid(tmp_path), tmp_path / annot / "a_0.png") == [[0, 8]]


def test_ids_of_segnet_cannot_be_told_apart_into_32(tmp_path: Path) -> None:
    told = refusal(camvid(segnet(tmp_path), labels="all32"))
    assert "hold SegNet's ids of 11 classes: use data.labels=segnet11" in told


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([[0, 12, 17]], "has the values [12, 17], which SegNet's list of 11 classes doesn't name"),
        ([[255, 254]], "write the names of all numbers, from 0, into codes.txt"),
    ],
)
def test_numbers_that_no_class_names(tmp_path: Path, values: object, words: str) -> None:
    source = camvid(segnet(tmp_path))
    with pytest.raises(FileError, match=re.escape(words)):
        ids(source, save(tmp_path / "x.png", values))


def test_colours_that_no_class_names(tmp_path: Path) -> None:
    kaggle(tmp_path)
    file = save(tmp_path / "x.png", [[COLOURS["Car"], [1, 2, 3]]])
    with pytest.raises(FileError, match=r"has the values \[1 2 3\], which .*class_dict.csv does"):
        ids(camvid(tmp_path), file)
    (tmp_path / "class_dict.csv").unlink()
    with pytest.raises(FileError, match="which CamVid's table of colours doesn't name: replace"):
        ids(camvid(tmp_path), file)


def test_a_lossy_mask(tmp_path: Path) -> None:
    segnet(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png", format="JPEG")
    with pytest.raises(FileError, match="is a mask stored as lossy JPEG"):
        ids(camvid(tmp_path), tmp_path / "x.png")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("class_dict.csv", "name,r,g,b\nCar,64,0\n", "class_dict.csv:2 is 'Car,64,0', but must be"),
        ("class_dict.csv", "name,r,g,b\nCar,64,0,256", "must be red, green and blue up to 255"),
        ("class_dict.csv", "name,r,g,b\nLeaf,1,2,3", "'Leaf', which is no class of CamVid"),
        ("class_dict.csv", "name,r,g,b\nCar,1,2,3\nSky,1,2,3", ":3 gives 1 2 3 a second meaning"),
        ("class_dict.csv", "name,r,g,b\n", "names no colours"),
        ("class_dict.csv", "name,r,g,b\n" + "9" * 5000, "must be red, green and blue up to 255"),
        ("label_colors.txt", "1 2 3 Leaf", "'Leaf', which is no class of CamVid"),
        ("codes.txt", "Sky\nLeaf\n", "'Leaf', which is no class of CamVid"),
    ],
)
def test_label_files_that_are_none(tmp_path: Path, name: str, text: str, words: str) -> None:
    kaggle(tmp_path)
    (tmp_path / name).write_text(text)
    assert words in refusal(camvid(tmp_path))


def test_label_files_of_the_11_classes(tmp_path: Path) -> None:
    kaggle(tmp_path)
    text = "name,r,g,b\nSky,128,128,128\nPole,1,2,3\nPavement,60,40,222\nCar,64,0,128\n"
    text += "Unlabelled,0,0,0"
    (tmp_path / "class_dict.csv").write_text(text)
    file = save(tmp_path / "x.png", [[[1, 2, 3], [60, 40, 222], [0, 0, 0]]])
    assert ids(camvid(tmp_path), file) == [[2, 4, 255]]
    assert "so data.labels=all32 can't be had" in refusal(camvid(tmp_path, labels="all32"))


def test_the_rules_name_what_decides_over_ids(tmp_path: Path) -> None:
    kaggle(tmp_path)
    rules = set()
    for options in ({}, {"labels": "all32"}):
        source = camvid(tmp_path, **options)
        source.splits()
        rules.add(source.rules)
    (tmp_path / "class_dict.csv").write_text(CLASS_DICT.replace("Car,64", "Car,65"))
    source = camvid(tmp_path)
    source.splits()
    assert len(rules | {source.rules}) == 3
