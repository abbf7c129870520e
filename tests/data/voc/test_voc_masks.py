import re
from pathlib import Path

import numpy as np
import pytest
from made_voc import (
    CLASSES,
    PERSON,
    VOID,
    ids,
    mask,
    official,
    pixels,
    refusal,
    voc,
    voc_palette,
)
from PIL import Image

from segpets.build.objects import build_data, build_source
from segpets.config import compose
from segpets.errors import FileError, UserError


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
