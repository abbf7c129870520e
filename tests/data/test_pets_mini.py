"""The images that lie in the package, and the script that chose them."""

import runpy
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pet_folder import SPECIES, PetFolder
from PIL import Image

import segpets
from segpets.data import OxfordPets

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "scripts" / "make_pets_mini.py"
OFFICIAL = REPOSITORY.parent / "shared" / "data" / "oxford-iiit-pet-128"
PETS_MINI = Path(segpets.__file__).parent / "data" / "pets_mini"


def files(root: Path) -> dict[str, bytes]:
    """The data set's files: not its licence and description."""
    found = [file for file in root.rglob("*") if file.is_file() and file.parent != root]
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in found}


@pytest.fixture
def select(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Path], None]:
    """select(source, target) is what the script does on the command line."""

    def run(source: Path, target: Path) -> None:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(source), str(target)])
        runpy.run_path(str(SCRIPT), run_name="__main__")

    return run


def test_pets_mini_has_each_of_37_breeds_in_equal_parts() -> None:
    splits = OxfordPets(root=PETS_MINI).splits()
    counts = {
        stage: Counter(sample.attributes["breed"] for sample in getattr(splits, stage))
        for stage in ("train", "val", "test")
    }
    for stage, count in {"train": 18, "val": 2, "test": 8}.items():
        assert len(counts[stage]) == 37
        assert set(counts[stage].values()) == {count}
    species = {s.attributes["breed"]: s.attributes["species"] for s in splits.train}
    assert Counter(species.values()) == {"cat": 12, "dog": 25}


def test_pets_mini_holds_what_it_lists_at_128_pixels_each_with_a_pet() -> None:
    splits = OxfordPets(root=PETS_MINI).splits()
    samples = [*splits.train, *splits.val, *splits.test]
    assert len(samples) == 1036
    assert {sample.image for sample in samples} == set((PETS_MINI / "images").iterdir())
    assert {s.mask for s in samples} == set((PETS_MINI / "annotations" / "trimaps").iterdir())
    for sample in samples:
        with Image.open(sample.image) as image, Image.open(sample.mask) as trimap:
            assert image.size == trimap.size == (128, 128)
            assert 1 in np.asarray(trimap)


def test_pets_mini_is_small_and_carries_its_licence() -> None:
    assert sum(file.stat().st_size for file in PETS_MINI.rglob("*")) <= 11_000_000
    assert "Attribution-ShareAlike 4.0" in (PETS_MINI / "LICENSE").read_text()
    described = (PETS_MINI / "README.md").read_text()
    for word in ("Parkhi", "Vedaldi", "Zisserman", "Jawahar", "Cats and Dogs", "CC BY-SA 4.0"):
        assert word in described


def test_the_script_draws_20_and_8_of_each_breed_that_show_a_pet(
    tmp_path: Path, select: Callable[[Path, Path], None]
) -> None:
    pets = PetFolder(tmp_path / "pets", trainval=25, test=10)
    without = ("beagle_3", "Maine_Coon_20", "beagle_205")
    for name in without:
        blank = np.full((pets.height, pets.width), 2, dtype=np.uint8)
        Image.fromarray(blank).save(pets.trimap(name))
    select(pets.root, tmp_path / "mini")
    chosen, given = files(tmp_path / "mini"), files(pets.root)
    assert chosen.keys() <= given.keys()
    assert all(chosen[name] == given[name] for name in chosen if not name.endswith(".txt"))
    for part, count in {"trainval": 20, "test": 8}.items():
        lines = chosen[f"annotations/{part}.txt"].decode().splitlines()
        listed = [line.split()[0] for line in lines]
        assert Counter(name.rpartition("_")[0] for name in listed) == dict.fromkeys(SPECIES, count)
        assert lines == [line for line in map(pets.line, pets.names(part)) if line in lines]
        assert not set(without) & set(listed)
        assert all(
            {f"images/{n}.jpg", f"annotations/trimaps/{n}.png"} <= set(chosen) for n in listed
        )
    assert len(chosen) == 2 + 2 * 3 * 28


def test_the_script_wants_enough_images(
    tmp_path: Path, select: Callable[[Path, Path], None]
) -> None:
    pets = PetFolder(tmp_path / "pets", trainval=19, test=8)
    with pytest.raises(SystemExit, match="Abyssinian has 19 images with a pet in trainval"):
        select(pets.root, tmp_path / "mini")


@pytest.mark.parametrize("source", ["mini", *(["official"] if OFFICIAL.is_dir() else [])])
def test_the_script_reproduces_the_choice(
    tmp_path: Path, select: Callable[[Path, Path], None], source: str
) -> None:
    # Of its own choice the script takes all again; of the whole data set, just that choice.
    select({"mini": PETS_MINI, "official": OFFICIAL}[source], tmp_path / "again")
    assert files(tmp_path / "again") == files(PETS_MINI)
