"""Cityscapes, on small files in its true layout."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fixture_types import Command
from PIL import Image

from segpets.build.objects import build_source
from segpets.config import compose
from segpets.data import Cityscapes
from segpets.data.folds import of_fold
from segpets.data.source import Sample
from segpets.errors import FileError, UserError

CLASSES = list(compose(["data=cityscapes"]).data.classes)

# Name, id and train id of each label, copied by hand from cityscapesScripts' labels.py.
LABELS = """
unlabeled 0 255 | ego vehicle 1 255 | rectification border 2 255 | out of roi 3 255
static 4 255 | dynamic 5 255 | ground 6 255 | road 7 0
sidewalk 8 1 | parking 9 255 | rail track 10 255 | building 11 2
wall 12 3 | fence 13 4 | guard rail 14 255 | bridge 15 255
tunnel 16 255 | pole 17 5 | polegroup 18 255 | traffic light 19 6
traffic sign 20 7 | vegetation 21 8 | terrain 22 9 | sky 23 10
person 24 11 | rider 25 12 | car 26 13 | truck 27 14
bus 28 15 | caravan 29 255 | trailer 30 255 | train 31 16
motorcycle 32 17 | bicycle 33 18
"""
MEANINGS = {
    int(id_): (name, int(train_id))
    for name, id_, train_id in re.findall(r"([a-z][a-z ]*) (\d+) (\d+)", LABELS)
}


def save(file: Path, pixels: object, mode: str = "L") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    dtype = "uint16" if mode == "I;16" else "uint8"
    Image.fromarray(np.array(pixels, dtype=dtype)).save(file)
    return file


def frame(
    root: Path,
    part: str,
    stem: str,
    ids: object = ((7, 26), (0, 33)),
    *,
    kinds: Sequence[str] = ("labelIds.png", "instanceIds.png", "color.png", "polygons.json"),
) -> None:
    """An image with all that gtFine holds of it."""
    city = stem.split("_")[0]
    values = np.array(ids, dtype=np.uint8)
    save(root / "leftImg8bit" / part / city / f"{stem}_leftImg8bit.png", np.stack([values] * 3, -1))
    where = root / "gtFine" / part / city
    where.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        file = where / f"{stem}_gtFine_{kind}"
        if kind == "polygons.json":
            file.write_text('{"imgHeight": 2, "imgWidth": 2, "objects": []}')
        elif kind == "instanceIds.png":
            save(file, values.astype(np.uint16) * 1000, "I;16")
        elif kind == "color.png":
            save(file, np.stack([values] * 4, -1))
        else:
            save(file, values)


def whole(root: Path, cities: dict[str, int]) -> Path:
    """A data set of cities with so many train images each, two val images and a test image."""
    for city, count in cities.items():
        for number in range(count):
            frame(root, "train", f"{city}_{number:06}_000019")
    for number in (294, 576):
        frame(root, "val", f"frankfurt_000000_{number:06}")
    frame(root, "test", "berlin_000000_000019", ((0, 1), (2, 3)))
    return root


def source(root: Path, **options: object) -> Cityscapes:
    return Cityscapes(**({"root": root, "classes": CLASSES} | options))  # type: ignore[arg-type]


def names(samples: Sequence[Sample]) -> list[str]:
    return [sample.name for sample in samples]


def refusal(root: Path, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        source(root, **options).splits()
    return str(caught.value)


def test_label_ids_become_the_train_ids_of_the_official_table(tmp_path: Path) -> None:
    assert sorted(MEANINGS) == list(range(34))
    values = [*range(34), 255]
    expected = [MEANINGS[value][1] for value in range(34)] + [255]
    file = save(tmp_path / "a_000000_000019_gtFine_labelIds.png", [values])
    ids = source(tmp_path).mask(Sample("a", file, file))
    assert ids.dtype == np.uint8
    assert ids.tolist() == [expected]
    by_train_id = sorted((t, name) for name, t in MEANINGS.values() if t != 255)
    assert [name for _, name in by_train_id] == CLASSES


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        (
            "labelIds",
            [7, 34, 200],
            r"has the values \[34, 200\], but labelIds are 0 to 33, and 255",
        ),
        (
            "labelTrainIds",
            [0, 19],
            r"has the values \[19\], but labelTrainIds are 0 to 18, and 255",
        ),
        ("labelIds", [[7, 7, 7], [8, 8, 8]], "pixels of type RGB"),
    ],
)
def test_values_that_are_no_labels_are_refused(
    tmp_path: Path, file: str, values: list[object], words: str
) -> None:
    path = save(tmp_path / f"a_gtFine_{file}.png", [values])
    with pytest.raises(FileError, match=words):
        source(tmp_path).mask(Sample("a", path, path))


def test_train_and_val_as_they_are(tmp_path: Path) -> None:
    splits = source(whole(tmp_path, {"aachen": 2, "ulm": 1}), split="files").splits()
    expected = ["aachen_000000_000019", "aachen_000001_000019", "ulm_000000_000019"]
    assert names(splits.train) == expected
    assert names(splits.val) == ["frankfurt_000000_000294", "frankfurt_000000_000576"]
    assert splits.val_is_test and list(splits.test) == list(splits.val)
    assert not splits.problems
    first = splits.train[0]
    assert first.image == tmp_path / f"leftImg8bit/train/aachen/{first.name}_leftImg8bit.png"
    assert first.mask == tmp_path / f"gtFine/train/aachen/{first.name}_gtFine_labelIds.png"
    assert first.attributes == {"city": "aachen"}


def test_holdout_keeps_cities_whole_and_tests_on_val(tmp_path: Path) -> None:
    cities = {f"city{letter}": 3 for letter in "abcdefghij"}
    whole(tmp_path, cities)
    seen = set()
    for seed in range(4):
        splits = source(tmp_path, seed=seed).splits()
        train = {name.split("_")[0] for name in names(splits.train)}
        val = {name.split("_")[0] for name in names(splits.val)}
        assert (len(train), len(val), len(splits.val)) == (9, 1, 3)
        assert not train & val
        assert names(splits.test) == ["frankfurt_000000_000294", "frankfurt_000000_000576"]
        assert not splits.val_is_test
        again = source(tmp_path, seed=seed).splits()
        assert names(again.val) == names(splits.val)
        seen |= val
    assert len(seen) > 1


def test_holdout_keeps_sequences_whole_where_a_city_is_too_much(tmp_path: Path) -> None:
    whole(tmp_path, {})
    for sequence in range(10):
        for number in range(4):
            frame(tmp_path, "train", f"ulm_{sequence:06}_{number:06}")
    splits = source(tmp_path).splits()
    assert len(splits.val) == 4
    assert len({name.rpartition("_")[0] for name in names(splits.val)}) == 1


def test_two_images_of_one_sequence_are_enough_and_one_isnt(tmp_path: Path) -> None:
    whole(tmp_path, {})
    frame(tmp_path, "train", "ulm_000000_000001")
    assert "data.split=files" in refusal(tmp_path)
    frame(tmp_path, "train", "ulm_000000_000002")
    splits = source(tmp_path).splits()
    assert (len(splits.train), len(splits.val)) == (1, 1)


@pytest.mark.parametrize("part", ["train", "val"])
def test_one_part_alone_is_split(
    tmp_path: Path, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(20):
        frame(tmp_path, part, f"ulm_{number:06}_000019")
    splits = source(tmp_path).splits()
    assert [len(s) for s in (splits.train, splits.val, splits.test)] == [16, 2, 2]
    assert len({*names(splits.train), *names(splits.val), *names(splits.test)}) == 20
    assert f"has only {part}: a tenth of it is test" in caplog.text


def test_the_folders_of_the_archives_are_found(tmp_path: Path) -> None:
    whole(tmp_path / "a", {"ulm": 2})
    for name in ("leftImg8bit", "gtFine"):
        target = tmp_path / f"{name}_trainvaltest" / name
        target.parent.mkdir()
        shutil.move(tmp_path / "a" / name, target)
    assert len(source(tmp_path, split="files").splits().train) == 2


def test_train_ids_are_read_where_there_are_no_label_ids(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for part, stem in (("train", "ulm_000000_000001"), ("val", "lindau_000000_000019")):
        frame(tmp_path, part, stem, [[0, 18, 255]], kinds=["labelTrainIds.png", "color.png"])
    dataset = source(tmp_path, split="files")
    assert dataset.mask(dataset.splits().train[0]).tolist() == [[0, 18, 255]]
    assert "has no labelIds: its labelTrainIds are read" in caplog.text


def test_label_ids_win_over_train_ids(tmp_path: Path) -> None:
    for part, stem in (("train", "ulm_000000_000001"), ("val", "lindau_000000_000019")):
        frame(tmp_path, part, stem, [[7, 33]], kinds=["labelIds.png"])
        folder = tmp_path / "gtFine" / part / stem.split("_")[0]
        save(folder / f"{stem}_gtFine_labelTrainIds.png", [[0, 18]])
    dataset = source(tmp_path, split="files")
    assert dataset.splits().train[0].mask.name.endswith("_labelIds.png")


def test_a_folder_without_label_ids_says_what_it_holds(tmp_path: Path) -> None:
    for part, stem in (("train", "ulm_000000_000001"), ("val", "lindau_000000_000019")):
        frame(tmp_path, part, stem, kinds=["polygons.json", "color.png"])
    message = refusal(tmp_path)
    assert f"{tmp_path}/gtFine has no masks of label ids, *_gtFine_labelIds.png" in message
    assert "2 color.png, 2 polygons.json: unpack gtFine_trainvaltest.zip anew" in message
    assert "csCreateTrainIdLabelImgs" in message


def test_missing_partners_are_problems(tmp_path: Path) -> None:
    whole(tmp_path, {"aachen": 3})
    train = tmp_path / "gtFine" / "train" / "aachen"
    (train / "aachen_000000_000019_gtFine_labelIds.png").unlink()
    images = tmp_path / "leftImg8bit" / "train" / "aachen"
    (images / "aachen_000001_000019_leftImg8bit.png").unlink()
    (images / "._aachen_000002_000019_leftImg8bit.png").write_bytes(b"of a Mac")
    splits = source(tmp_path, split="files").splits()
    assert names(splits.train) == ["aachen_000002_000019"]
    told = {problem.name: str(problem.error) for problem in splits.problems}
    assert (
        f"has no mask {train}/aachen_000000_000019_gtFine_labelIds" in told["aachen_000000_000019"]
    )
    assert "is a mask without an image" in told["aachen_000001_000019"]


def test_what_cant_be_listed(tmp_path: Path) -> None:
    assert f"{tmp_path}/leftImg8bit is not a folder: data.root={tmp_path}" in refusal(tmp_path)
    whole(tmp_path, {"aachen": 1})
    frame(tmp_path, "val", "aachen_000000_000019")
    assert "aachen_000000_000019 lies in train and in val" in refusal(tmp_path)
    shutil.rmtree(tmp_path / "leftImg8bit" / "val")
    told = refusal(tmp_path, split="files")
    assert f"{tmp_path}/leftImg8bit/val has no images with masks in {tmp_path}/gtFine/val" in told
    assert "can't be used: " in told and "is a mask without an image" in told
    assert "too few images with masks" in refusal(tmp_path)
    assert "data.split=city is unknown" in refusal(tmp_path, split="city")
    assert "must name the 19 classes" in refusal(tmp_path, classes=["road"])


def test_the_config_gives_the_source_its_classes() -> None:
    cfg = compose(["data=cityscapes", "data.root=nowhere", "data.split=files", "data.seed=3"])
    built = build_source(cfg.data)
    assert isinstance(built, Cityscapes)
    assert (built.root, built.split, built.seed) == (Path("nowhere"), "files", 3)


@pytest.mark.slow
def test_a_training_by_the_command_line(command: Command, tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    for part, stem in (
        *(("train", f"ulm_{n:06}_000019") for n in range(5)),
        ("val", "lindau_000000_000019"),
    ):
        frame(tmp_path / "cs", part, stem, noise.choice([0, 7, 8, 26], (32, 64)))
    done = command(
        *("data=cityscapes", "data.root=cs", "data.size=32", "data.batch_size=2"),
        *("model.widths=[4,8]", "trainer=cpu", "trainer.precision=32", "trainer.max_epochs=1"),
    )
    assert done.returncode == 0, done.stdout
    assert "4 train, 1 val, 1 test images" in done.stdout
    assert "traffic light" in done.stdout
    (tmp_path / "cs/leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png").unlink()
    refused = command("data=cityscapes", "data.root=cs")
    assert refused.returncode == 1
    assert "is a mask without an image: restore it" in refused.stdout
    assert "Traceback" not in refused.stdout


def test_folds_part_no_sequence(tmp_path: Path) -> None:
    for sequence in range(8):
        for number in range(4):
            frame(tmp_path, "train", f"ulm_{sequence:06}_{number:06}")
    frame(tmp_path, "val", "frankfurt_000000_000294")
    splits = source(tmp_path).splits()
    for fold in range(3):
        dealt = of_fold(splits, folds=3, fold=fold, seed=0, by=None)
        train, val = ({s.name.rpartition("_")[0] for s in p} for p in (dealt.train, dealt.val))
        assert val and not train & val
