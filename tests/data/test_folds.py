"""Folds: who is in which, and what a training and a comparison make of them."""

import csv
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fixture_types import Command, Tiny
from pet_folder import PetFolder

from segpets.build.objects import build_data
from segpets.config import compose
from segpets.data import OxfordPets, Sample, SegmentationDataModule
from segpets.data.folds import deal
from segpets.errors import UserError
from segpets.significance import over_folds


def samples(count: int, *, group: int = 0, breeds: Sequence[str] = ("a", "b")) -> list[Sample]:
    return [
        Sample(
            f"s{i:03d}",
            Path(f"{i}.jpg"),
            Path(f"{i}.png"),
            {"breed": breeds[i % len(breeds)]},
            group=f"g{i // group}" if group else "",
        )
        for i in range(count)
    ]


def test_folds_are_a_partition_in_the_proportion_of_breeds() -> None:
    listed = samples(104, breeds=["a", "a", "a", "b"])
    dealt = deal(listed, 5, seed=0, by="breed")
    assert dealt.keys() == {sample.name for sample in listed}
    sizes = Counter(dealt.values())
    assert sorted(sizes.values()) == [20, 21, 21, 21, 21]
    for breed, each in (("a", 78), ("b", 26)):
        of_breed = Counter(dealt[s.name] for s in listed if s.attributes["breed"] == breed)
        assert all(each // 5 <= count <= each // 5 + 1 for count in of_breed.values())
        assert len(of_breed) == 5
    assert deal(listed[::-1], 5, seed=0, by="breed") == dealt, "the order says nothing"
    assert deal(listed, 5, seed=1, by="breed") != dealt


def test_groups_stay_together() -> None:
    listed = samples(60, group=4)
    dealt = deal(listed, 3, seed=0, by=None)
    for group in {sample.group for sample in listed}:
        assert len({dealt[s.name] for s in listed if s.group == group}) == 1
    assert sorted(Counter(dealt.values()).values()) == [20, 20, 20]
    uneven = [replace(s, group="large" if i < 30 else "") for i, s in enumerate(listed)]
    counts = Counter(deal(uneven, 3, seed=0, by=None).values())
    assert sorted(counts.values()) == [15, 15, 30]


def module(pets: PetFolder, *overrides: str) -> SegmentationDataModule:
    words = ["data=oxford_pets", f"data.root={pets.root}", "data.size=32", *overrides]
    made = build_data(compose(words))
    made.setup()
    return made


def test_each_image_is_val_once_and_test_stays(pets: PetFolder) -> None:
    plain = OxfordPets(root=pets.root).splits()
    pool = {s.name for s in (*plain.train, *plain.val)}
    seen: list[str] = []
    for fold in range(3):
        splits = module(pets, "data.folds=3", f"data.fold={fold}").splits
        val, train = {s.name for s in splits.val}, {s.name for s in splits.train}
        assert val | train == pool and not val & train
        assert Counter(s.attributes["breed"] for s in splits.val).most_common()[0][1] <= 4
        assert [s.name for s in splits.test] == [s.name for s in plain.test]
        seen += val
    assert sorted(seen) == sorted(pool)


def test_val_that_is_test_takes_no_part(pets: PetFolder) -> None:
    splits = module(pets, "data.split=article", "data.folds=3", "data.fold=0").splits
    assert not splits.val_is_test and not splits.augment_val
    assert len(splits.train) + len(splits.val) == 30
    assert not {s.name for s in splits.val} & {s.name for s in splits.test}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.fold=1"], r"data\.fold=1 needs data\.folds"),
        (["data.folds=5"], r"data\.folds=5 needs data\.fold, .* -m data\.fold=0,1,2,3,4"),
        (["data.folds=3", "data.fold=3"], r"data\.fold=3, but data\.folds=3 are numbered from 0"),
        (["data.folds=1", "data.fold=0"], r"data\.folds=1 must be a whole number from 2"),
        (["data.folds=31", "data.fold=0"], r"data\.folds=31, but train and val have 30 images"),
    ],
)
def test_folds_that_make_no_sense(pets: PetFolder, words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        module(pets, *words)


def test_fewer_images_of_a_breed_than_folds_are_said(
    pets: PetFolder, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        splits = module(pets, "data.folds=12", "data.fold=11").splits
    assert "3 values of breed have fewer images than there are folds (Abyssinian has 10" in (
        caplog.text
    )
    assert len(splits.val) in (2, 3)


@pytest.mark.slow
def test_a_sweep_over_folds_is_one_row_with_its_own_interval(
    tiny: Tiny, command: Command, tmp_path: Path
) -> None:
    words = tiny("data.folds=3", "trainer.max_epochs=1", "sweep=folds")
    done = command("-m", *words, "data.fold=0,1,2")
    assert done.returncode == 0, done.stdout
    sweep = tmp_path / "logs" / "train" / "multiruns" / "folds"
    jobs = sorted(path for path in sweep.iterdir() if (path / "summary.json").is_file())
    assert len(jobs) == 3
    compared = command(f"runs={sweep}", module="segpets.compare")
    assert compared.returncode == 0, compared.stdout
    assert "3 folds" in compared.stdout

    values = [json.loads((job / "summary.json").read_text())["test/mean_iou"] for job in jobs]
    few = command(*words[:-1], "data.fold=1", "data.overfit=4", "hydra.run.dir=few")
    assert few.returncode == 0, few.stdout
    assert not (tmp_path / "few" / "predictions" / "val").exists(), "val was trained on"
    folder = next((tmp_path / "logs" / "compare" / "runs").iterdir())
    with (folder / "compare.csv").open() as table:
        (row,) = csv.DictReader(table)
    expected = over_folds({fold: [value] for fold, value in enumerate(values)}, folds=3)
    assert float(row["test/mean_iou"]) == pytest.approx(expected.mean)
    assert float(row["test/mean_iou low"]) == pytest.approx(expected.low)

    other = command(
        "-m", *tiny("data.folds=2", "trainer.max_epochs=1", "sweep=other"), "data.fold=0,1"
    )
    assert other.returncode == 0, other.stdout
    both = command(f"runs=[{sweep},{sweep.parent}/other]", module="segpets.compare")
    assert "2 protocols: their metrics don't mean the same" in both.stdout
