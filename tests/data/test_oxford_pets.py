import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixture_types import Command
from pet_folder import PetFolder
from PIL import Image

from segpets.build.objects import build_data
from segpets.config import compose
from segpets.data import OxfordPets, Sample
from segpets.data.holdout import holdout
from segpets.errors import UserError


def names(samples: object) -> list[str]:
    return [sample.name for sample in samples]  # type: ignore[attr-defined]


def message(pets: PetFolder) -> str:
    """What the user is told when the folder is listed."""
    with pytest.raises(UserError) as caught:
        OxfordPets(root=pets.root).splits()
    return str(caught.value)


# splits


def test_holdout_takes_a_tenth_of_each_breed_and_tests_on_the_official_part(
    tmp_path: Path,
) -> None:
    pets = PetFolder(tmp_path / "pets", trainval=20, test=3)
    splits = OxfordPets(root=pets.root).splits()
    assert Counter(sample.attributes["breed"] for sample in splits.val) == {
        "Abyssinian": 2,
        "Maine_Coon": 2,
        "beagle": 2,
    }
    assert sorted(names(splits.train) + names(splits.val)) == sorted(pets.names("trainval"))
    assert not set(names(splits.train)) & set(names(splits.val))
    assert names(splits.test) == pets.names("test")
    assert not splits.augment_val
    assert not splits.val_is_test


def test_holdout_depends_on_the_seed_but_not_on_the_order_of_lines(pets: PetFolder) -> None:
    before = {seed: OxfordPets(root=pets.root, seed=seed).splits().val for seed in range(8)}
    lines = pets.listing("trainval").read_text().splitlines()
    random.Random(0).shuffle(lines)
    pets.list("trainval", lines)
    for seed, val in before.items():
        assert set(names(OxfordPets(root=pets.root, seed=seed).splits().val)) == set(names(val))
    assert len({tuple(names(val)) for val in before.values()}) > 4


@pytest.mark.parametrize(
    ("images", "held_out"), [(1, 0), (2, 1), (5, 1), (14, 1), (16, 2), (94, 9), (100, 10)]
)
def test_holdout_rounds_but_leaves_both_sides_an_image(images: int, held_out: int) -> None:
    samples = [
        Sample(name=f"x_{n}", image=Path(), mask=Path(), attributes={"breed": "x"})
        for n in range(images)
    ]
    train, val = holdout(samples, fraction=0.1, by="breed", seed=3)
    assert (len(train), len(val)) == (images - held_out, held_out)


def test_article_validates_on_the_augmented_test_part(pets: PetFolder) -> None:
    splits = OxfordPets(root=pets.root, split="article").splits()
    assert names(splits.train) == pets.names("trainval")
    assert names(splits.val) == names(splits.test) == pets.names("test")
    assert splits.augment_val
    assert splits.val_is_test


@pytest.mark.parametrize("split", ["holdout", "article"])
def test_breed_and_species_of_every_sample_are_known(pets: PetFolder, split: str) -> None:
    splits = OxfordPets(root=pets.root, split=split).splits()
    species = {"Abyssinian": "cat", "Maine_Coon": "cat", "beagle": "dog"}
    for sample in [*splits.train, *splits.val, *splits.test]:
        breed = sample.name.rpartition("_")[0]
        assert sample.attributes == {"breed": breed, "species": species[breed]}


VIEWS = {  # class ids of pet, background and border, for a cat and for a dog
    "trimap": ([0, 1, 2], [0, 1, 2]),
    "border_as_pet": ([0, 1, 0], [0, 1, 0]),
    "border_ignored": ([0, 1, 255], [0, 1, 255]),
    "species": ([1, 0, 255], [2, 0, 255]),
}


@pytest.mark.parametrize("labels", VIEWS)
def test_labels_choose_what_the_classes_are(pets: PetFolder, labels: str) -> None:
    source = OxfordPets(root=pets.root, labels=labels)
    by_name = {sample.name: sample for sample in source.splits().test}
    for name, ids in zip(("Maine_Coon_201", "beagle_201"), VIEWS[labels], strict=True):
        Image.fromarray(np.array([[1, 2, 3]], dtype=np.uint8)).save(pets.trimap(name))
        assert source.mask(by_name[name]).tolist() == [ids]
    classes = compose(["data=oxford_pets", f"data.labels={labels}"]).data.classes
    cat, dog = VIEWS[labels]
    assert {*cat, *dog} - {255} == set(range(len(classes)))


def test_each_view_of_the_labels_has_a_cache_of_its_own(pets: PetFolder) -> None:
    rules = {OxfordPets(root=pets.root, labels=labels).rules for labels in VIEWS}
    assert len(rules) == len(VIEWS)


# lists as users have them


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text + "\n\n  \n",
        lambda text: "#Image CLASS-ID SPECIES BREED ID\n  # cats first\n" + text,
        lambda text: "\N{ZERO WIDTH NO-BREAK SPACE}" + text,
        lambda text: text.rstrip("\n"),
        lambda text: text.replace(" ", "\t"),
    ],
    ids=["windows_lines", "blank_lines", "comments", "byte_order_mark", "no_last_newline", "tabs"],
)
def test_lists_may_look_different(pets: PetFolder, rewrite: Callable[[str], str]) -> None:
    expected = OxfordPets(root=pets.root).splits()
    listing = pets.listing("trainval")
    listing.write_bytes(rewrite(listing.read_text()).encode())
    assert OxfordPets(root=pets.root).splits() == expected


def test_root_may_be_relative_or_start_at_home(
    pets: PetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pets.root.parent)
    monkeypatch.setenv("HOME", str(pets.root.parent))
    expected = names(OxfordPets(root=pets.root).splits().train)
    for root in ("pets", "~/pets"):
        splits = OxfordPets(root=root).splits()
        assert names(splits.train) == expected
        assert splits.train[0].image.is_file()


def test_files_that_no_list_names_do_no_harm(pets: PetFolder) -> None:
    expected = OxfordPets(root=pets.root).splits()
    pets.image("Egyptian_Mau_1").write_bytes(b"GIF89a")  # the official archive has such, too
    (pets.trimap("x").parent / "._beagle_1.png").write_bytes(b"\0")
    (pets.root / "images" / "Abyssinian_100.mat").touch()
    unused = [pets.image("Egyptian_Mau_1")]
    assert OxfordPets(root=pets.root).splits() == replace(expected, unused=unused)
    assert OxfordPets(root=pets.root, split="article").splits().unused == unused


# what can't work


@pytest.mark.parametrize("root", ["nowhere", "~nobody-of-that-name/pets", "a_file"])
def test_a_root_that_is_no_folder(tmp_path: Path, root: str) -> None:
    (tmp_path / "a_file").touch()
    path = root if root.startswith("~") else tmp_path / root
    with pytest.raises(UserError, match=r"data\.root=.*is not a folder.*data=pets_mini"):
        OxfordPets(root=path).splits()


def test_an_empty_root(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trainval\.txt is missing.*data\.root=.*images/"):
        OxfordPets(root=tmp_path).splits()


@pytest.mark.parametrize("folder", ["images", "annotations/trimaps", "annotations"])
def test_a_root_with_a_folder_missing(pets: PetFolder, folder: str) -> None:
    (pets.root / folder).rename(pets.root / "elsewhere")
    if folder == "annotations":
        assert "trainval.txt is missing" in message(pets)
    else:
        problems = OxfordPets(root=pets.root).splits().problems
        assert {problem.error.file.parent for problem in problems} == {pets.root / folder}
        assert len(problems) == 36


@pytest.mark.parametrize("path", ["image", "trimap"])
def test_an_image_without_trimap_and_the_reverse(pets: PetFolder, path: str) -> None:
    file: Path = getattr(pets, path)("beagle_3")
    file.unlink()
    (problem,) = OxfordPets(root=pets.root).splits().problems
    assert problem.name == "beagle_3"
    assert problem.error.file == file
    assert f"is missing, though {pets.listing('trainval')} lists it" in problem.error.problem
    assert "remove its line" in problem.error.remedy


def test_a_suffix_in_capitals_is_pointed_out(pets: PetFolder) -> None:
    pets.image("beagle_3").rename(pets.root / "images" / "beagle_3.JPG")
    (problem,) = OxfordPets(root=pets.root).splits().problems
    assert "there is beagle_3.JPG: rename it" in str(problem.error)


@pytest.mark.parametrize("part", ["trainval", "test"])
@pytest.mark.parametrize("text", ["", "\n \n", "# nothing\n"], ids=["empty", "blank", "comment"])
def test_an_empty_list(pets: PetFolder, part: str, text: str) -> None:
    pets.listing(part).write_text(text)
    assert f"{pets.listing(part)} lists no images" in message(pets)


def test_a_repeated_line(pets: PetFolder) -> None:
    pets.list("test", [pets.line(name) for name in [*pets.names("test"), "beagle_201"]])
    splits = OxfordPets(root=pets.root).splits()
    (problem,) = splits.problems
    assert str(problem.error).startswith(f"{pets.listing('test')} lists beagle_201 more than once")
    assert problem.name == "beagle_201" not in {sample.name for sample in splits.test}


@pytest.mark.parametrize("split", ["holdout", "article"])
def test_images_in_both_parts(pets: PetFolder, split: str) -> None:
    both = ["beagle_1", "beagle_2"]
    pets.list("test", [pets.line(name) for name in [*pets.names("test"), *both]])
    splits = OxfordPets(root=pets.root, split=split).splits()
    assert [problem.name for problem in splits.problems] == both
    assert f"{pets.listing('test')} lists beagle_1, as trainval.txt does" in str(
        splits.problems[0].error
    )
    listed = {sample.name for sample in [*splits.train, *splits.val, *splits.test]}
    assert len(listed) == 36 - 2
    assert not listed & set(both)


@pytest.mark.parametrize(
    "line",
    [
        "../../x 1 1 1",
        "/etc/passwd 1 1 1",
        "images\\x 1 1 1",
        ".. 1 1 1",
        ".hidden 1 1 1",
        "-rf 1 1 1",
        "my cat_1 1 1 1",
        "b\N{LATIN SMALL LETTER E WITH ACUTE}b\N{LATIN SMALL LETTER E WITH ACUTE}_1 1 1 1",
        "beagle_1",
        "beagle_1 1 3 1",
        "beagle_1,1,2,1",
    ],
)
def test_a_line_that_is_none_is_named_by_its_number(pets: PetFolder, line: str) -> None:
    with pets.listing("trainval").open("a", encoding="utf-8") as listing:
        listing.write(f"{line}\n")
    told = message(pets)
    assert f"{pets.listing('trainval')}:31" in told
    assert repr(line) in told
    assert "expected a name, a class id, a species" in told


def test_a_list_in_another_encoding(pets: PetFolder) -> None:
    with pets.listing("trainval").open("ab") as listing:
        listing.write(b"b\xe9b\xe9_1 1 1 1\n")
    assert "trainval.txt:31" in message(pets)


def test_an_unknown_split() -> None:
    with pytest.raises(UserError, match=r"data\.split=random.*holdout or article"):
        OxfordPets(root="x", split="random")


def test_unknown_labels() -> None:
    with pytest.raises(UserError, match=r"data\.labels=pet is unknown: choose trimap, border_as_"):
        OxfordPets(root="x", labels="pet")


@pytest.mark.parametrize("seed", [-1, "abc", 1.5, None, True])
def test_a_seed_that_is_none(seed: object) -> None:
    with pytest.raises(UserError, match=rf"data\.seed={seed} must be a whole number"):
        OxfordPets(root="x", seed=seed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels", "classes", "reason"),
    [
        ("trimap", ["a", "b"], "[a,b] are 2, but data.labels=trimap gives 3: pet, background, bor"),
        (
            "border_as_pet",
            ["a", "b", "c"],
            "[a,b,c] are 3, but data.labels=border_as_pet gives 2: pet, background.",
        ),
        ("species", ["cat"], "[cat] are 1, but data.labels=species gives 3: background, cat, dog."),
        ("trimap", ["a", "a", "b"], "has a name twice"),
        ("trimap", "abc", "=abc must be a list"),
    ],
)
def test_names_of_classes_must_be_as_many_as_the_classes(
    labels: str, classes: object, reason: str
) -> None:
    with pytest.raises(UserError, match=re.escape(reason)):
        OxfordPets(root="x", labels=labels, classes=classes)  # type: ignore[arg-type]


def test_classes_may_have_other_names(pets: PetFolder) -> None:
    named = OxfordPets(root=pets.root, classes=["animal", "ground", "edge"])
    assert named.splits() == OxfordPets(root=pets.root).splits()


def test_a_training_with_too_few_names_is_refused(command: Command) -> None:
    done = command("data.classes=[a,b]")
    assert done.returncode == 1
    assert "data.classes=[a,b] are 2, but data.labels=trimap gives 3: pet" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize("nesting", ["torchvision", "kaggle", "both"])
def test_the_nesting_of_other_programs_is_followed(
    pets: PetFolder, tmp_path: Path, nesting: str
) -> None:
    expected = OxfordPets(root=pets.root).splits()
    root = tmp_path / "elsewhere"
    home = root / "oxford-iiit-pet" if nesting != "kaggle" else root
    for name in ("images", "annotations"):
        place = home / name if nesting == "torchvision" else home / name / name
        shutil.copytree(pets.root / name, place)
    source = OxfordPets(root=root)
    splits = source.splits()
    assert [s.name for s in splits.train] == [s.name for s in expected.train]
    assert not splits.problems
    assert source.mask(splits.test[0]).shape == (pets.height, pets.width)


def test_the_list_of_duplicates_that_comes_with_segpets_leaves_them_out(tmp_path: Path) -> None:
    pets = PetFolder(tmp_path / "pets", trainval=20, test=3)
    pets.draw("newfoundland_149")
    with pets.listing("trainval").open("a") as listing:
        listing.write("newfoundland_149 4 2 4\n")
    shipped = "data.exclude=${package_dir:}/data/oxford_pets_duplicates.txt"
    given = ["data=oxford_pets", f"data.root={pets.root}", "data.size=32", "data.cache=none"]
    trained = {}
    for words in ([], [shipped]):
        data = build_data(compose([*given, *words, f"hydra.run.dir={tmp_path / 'run'}"]))
        data.setup("fit")
        trained[len(words)] = {*names(data.splits.train), *names(data.splits.val)}
    assert trained[0] - trained[1] == {"newfoundland_149"}
