"""What the doctor finds in files and splits."""

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from pet_folder import PetFolder
from PIL import Image

from segpets.browse.finding import Finding, as_csv, exclusions
from segpets.browse.shares import Share, extremes, frequencies, groups
from segpets.browse.survey import Survey, survey
from segpets.data import Folder, OxfordPets, Splits
from segpets.data.reader import Reader
from segpets.data.source import leave_out

CLASSES = ["pet", "background", "border"]


def examined(pets: PetFolder, *, folds: bool = False, **options: str) -> Survey:
    source = OxfordPets(root=pets.root, **options)
    reader = Reader((32, 32))
    return survey(source.splits(), source, classes=CLASSES, reader=reader, folds=folds)


def told(found: Survey) -> list[tuple[bool, str, str]]:
    return [(f.serious, Path(f.file).name, f.problem) for f in found.findings]


def test_a_sound_set_has_no_findings(pets: PetFolder) -> None:
    found = examined(pets)
    assert found.findings == []
    assert {stage: len(rows) for stage, rows in found.stages.items()} == {
        "train": 9,
        "val": 3,
        "test": 6,
    }


def test_every_kind_of_broken_file_is_found_at_once(pets: PetFolder) -> None:
    pets.image("beagle_1").write_bytes(pets.image("beagle_1").read_bytes()[:200])
    pets.image("beagle_2").write_text("<html>404</html>")
    pets.image("beagle_3").unlink()
    pets.trimap("beagle_4").unlink()
    Image.new("L", (7, 9), 2).save(pets.trimap("Maine_Coon_1"))
    mask = np.asarray(Image.open(pets.trimap("Maine_Coon_2"))).copy()
    mask[3, 3] = 77
    Image.fromarray(mask).save(pets.trimap("Maine_Coon_2"))
    found = examined(pets)
    assert all(finding.serious for finding in found.findings)
    by_name = {f.name: (Path(f.file).name, f.problem) for f in found.findings}
    assert by_name.keys() == {f"beagle_{n}" for n in (1, 2, 3, 4)} | {
        "Maine_Coon_1",
        "Maine_Coon_2",
    }
    assert by_name["beagle_1"][1].startswith("can't be opened")
    assert by_name["beagle_2"] == ("beagle_2.jpg", "is not an image that can be read")
    assert "is missing" in by_name["beagle_3"][1]
    assert by_name["beagle_4"][0] == "beagle_4.png"
    assert "48x40" in by_name["Maine_Coon_1"][1] and "7x9" in by_name["Maine_Coon_1"][1]
    assert "77" in by_name["Maine_Coon_2"][1]


def test_what_is_excluded_is_not_found_again(pets: PetFolder, tmp_path: Path) -> None:
    pets.image("beagle_2").write_text("no image")
    pets.trimap("beagle_4").unlink()
    shutil.copy(pets.image("beagle_201"), pets.image("Abyssinian_1"))
    found = examined(pets)
    assert len(found.findings) == 3
    (tmp_path / "exclude.txt").write_text(exclusions(found.findings))
    source = OxfordPets(root=pets.root)
    splits = leave_out(source.splits(), tmp_path / "exclude.txt")
    assert survey(splits, source, classes=CLASSES, reader=Reader((32, 32))).findings == []
    named = {s.name for s in [*splits.train, *splits.val, *splits.test]}
    assert "beagle_201" in named, "the test image stays"
    assert "Abyssinian_1" not in named


def test_files_named_as_another_format_are_warned_of(pets: PetFolder) -> None:
    with Image.open(pets.image("beagle_1")) as image:
        image.save(pets.image("beagle_1"), "GIF")
    found = examined(pets)
    assert told(found) == [(False, "beagle_1.jpg", "is GIF, though named .jpg")]


def test_masks_of_a_single_class_are_warned_of(pets: PetFolder) -> None:
    Image.new("L", (48, 40), 2).save(pets.trimap("beagle_1"))
    found = examined(pets)
    assert told(found) == [(False, "beagle_1.png", "holds only background")]
    # One of 18 may be no error; so it is offered, not chosen.
    assert exclusions(found.findings).splitlines()[-1] == "# beagle_1  # holds only background"


def test_rare_masks_of_a_single_class_are_taken_for_errors(tmp_path: Path) -> None:
    pets = PetFolder(tmp_path / "many", trainval=33, test=2)  # 105 images
    Image.new("L", (48, 40), 2).save(pets.trimap("beagle_1"))
    found = examined(pets)
    assert told(found) == [(False, "beagle_1.png", "holds only background")]
    assert exclusions(found.findings).splitlines()[-1] == "beagle_1  # holds only background"


def test_masks_without_any_class(pets: PetFolder) -> None:
    Image.new("L", (48, 40), 3).save(pets.trimap("beagle_1"))
    found = examined(pets, labels="border_ignored")
    empty, absent = [(f.file, f.problem) for f in found.findings]
    assert empty == (str(pets.trimap("beagle_1")), "holds no class at all, only ignored pixels")
    assert absent == (str(pets.root), "No mask holds border")


def test_the_same_image_in_two_splits_is_a_leak(pets: PetFolder) -> None:
    shutil.copy(pets.image("beagle_201"), pets.image("beagle_1"))
    (finding,) = examined(pets).findings
    assert finding.serious
    assert finding.name == "beagle_1"
    assert "is the same image as beagle_201 of test" in finding.problem


def test_a_copy_in_another_format_is_a_leak_too(pets: PetFolder) -> None:
    with Image.open(pets.image("beagle_201")) as image:
        image.save(pets.root / "copy.png")
    (pets.root / "copy.png").rename(pets.image("beagle_1"))
    problems = [f.problem for f in examined(pets).findings if f.serious]
    assert len(problems) == 1
    assert "is the same image as beagle_201 of test" in problems[0]


def test_the_same_image_twice_in_one_split_is_no_leak(pets: PetFolder) -> None:
    shutil.copy(pets.image("beagle_201"), pets.image("beagle_202"))
    (finding,) = examined(pets).findings
    assert not finding.serious
    assert finding.problem == "of test is the same image as beagle_202 of test"
    assert examined(pets, folds=True).findings == [finding], "which no fold parts"


def test_the_same_image_twice_is_a_leak_between_folds(pets: PetFolder) -> None:
    train = examined(pets).stages["train"]
    one, other = (examined(pets).samples[row].name for row in train[:2])
    shutil.copy(pets.image(one), pets.image(other))
    (finding,) = examined(pets).findings
    assert not finding.serious and "twice in train" in finding.remedy
    (finding,) = examined(pets, folds=True).findings
    assert finding.serious and finding.name == one
    assert "with data.folds, a model may learn by one" in finding.remedy
    assert exclusions([finding]).splitlines()[-1].startswith(f"{one}  # of train is the same")


def test_val_that_is_test_by_design_is_no_leak(pets: PetFolder) -> None:
    assert examined(pets, split="article").findings == []


def test_overlapping_lists_and_images_in_none(pets: PetFolder) -> None:
    pets.list("test", [pets.line(n) for n in [*pets.names("test"), "beagle_1"]])
    pets.list("trainval", [pets.line(n) for n in pets.names("trainval") if n != "beagle_2"])
    assert told(examined(pets)) == [
        (True, "test.txt", "lists beagle_1, as trainval.txt does"),
        (False, "beagle_2.jpg", "is in no split"),
    ]


def test_an_empty_split_is_found() -> None:
    class Empty:
        root = Path("here")
        rules = ""

        def splits(self) -> Splits:
            return Splits([], [], [])

        def mask(self, sample: object) -> np.ndarray:
            raise AssertionError

    source = Empty()
    found = survey(source.splits(), source, classes=["a", "b"], reader=Reader((32, 32)))
    assert [f.problem for f in found.findings] == [
        f"gives no usable image to the {stage} split" for stage in ("train", "val", "test")
    ]
    assert extremes(found) == {}
    assert frequencies(found, ["a", "b"])["a"]["train"] == Share(0.0, 0.0)


def test_pixels_are_counted_in_the_masks_as_they_are_stored(pets: PetFolder) -> None:
    for name in pets.names("test"):
        mask = np.full((40, 48), 2, dtype=np.uint8)
        mask[:10, :12] = 1  # 120 of 1,920
        if name.startswith("beagle"):
            mask[10:20, :12] = 3
        Image.fromarray(mask).save(pets.trimap(name))
    shares = frequencies(examined(pets), CLASSES)
    assert shares["pet"]["test"] == Share(120 / 1920, 1.0)
    assert shares["border"]["test"] == Share(120 / 1920 / 3, 1 / 3)
    assert list(shares) == CLASSES


def test_images_are_counted_by_breed_and_species(pets: PetFolder) -> None:
    counted = groups(examined(pets))
    assert counted["species"] == {
        "cat": {"train": 6, "val": 2, "test": 4},
        "dog": {"train": 3, "val": 1, "test": 2},
    }
    assert counted["breed"]["Maine_Coon"] == {"train": 3, "val": 1, "test": 2}


def test_the_smallest_and_the_largest_image(pets: PetFolder) -> None:
    for name, size in (("beagle_1", (64, 48)), ("beagle_2", (30, 20))):
        for file in (pets.image(name), pets.trimap(name)):
            with Image.open(file) as image:
                image.resize(size, Image.Resampling.NEAREST).save(file)
    assert extremes(examined(pets)) == {
        "smallest": "30x20 (beagle_2)",
        "median": "48x40 (Maine_Coon_201)",
        "largest": "64x48 (beagle_1)",
    }


@pytest.mark.parametrize("text", ['a,"b"', "line\nbreak", "é"])
def test_the_table_can_be_read_back(text: str) -> None:
    finding = Finding(True, text, f"has {text}", "mend it", "a")
    rows = list(csv.DictReader(io.StringIO(as_csv([finding]))))
    assert rows == [
        {
            "severity": "error",
            "file": text,
            "problem": f"has {text}",
            "remedy": "mend it",
            "name": "a",
        }
    ]
    assert len(exclusions([finding]).splitlines()) == 3


def test_a_link_to_nowhere_is_found_whatever_its_suffix(tmp_path: Path) -> None:
    """As git-annex and DVC leave them where the content isn't fetched."""
    for place in ("images", "masks"):
        (tmp_path / place).mkdir()
        for n in range(5):
            Image.new("L", (6, 6), n % 2).save(tmp_path / place / f"i{n}.tif")
    (tmp_path / "images" / "i3.tif").unlink()
    (tmp_path / "images" / "i3.tif").symlink_to("/nowhere/i3.tif")
    source = Folder(root=tmp_path, classes=["background", "leaf"])
    reader = Reader((32, 32))
    found = survey(source.splits(), source, classes=["background", "leaf"], reader=reader)
    assert [f.problem for f in found.findings if "i3" in f.file]


def test_a_list_of_what_is_left_out_may_begin_with_a_byte_order_mark(
    pets: PetFolder, tmp_path: Path
) -> None:
    splits = OxfordPets(root=pets.root).splits()
    name = splits.train[0].name
    (tmp_path / "ex.txt").write_bytes(b"\xef\xbb\xbf" + name.encode() + b"\n")
    left = leave_out(splits, tmp_path / "ex.txt")
    assert len(left.train) == len(splits.train) - 1
