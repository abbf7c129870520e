"""What is said of a comparison."""

from dataclasses import replace
from pathlib import Path

from segpets.compare.paired import Comparison
from segpets.compare.words import name_of, p_text, run_notes, sentences
from segpets.records.group import Configuration, Group
from segpets.records.record import Record


def configuration(rank: int, **choices: str) -> Configuration:
    return Configuration([Record(Path("x"), "completed")], rank=rank, choices=choices)


BEST, SECOND, THIRD = (configuration(i, model=m) for i, m in enumerate(("a", "b", "c"), 1))
REAL = Comparison(BEST, SECOND, 296, 0.0592, 0.0564, 0.0619, 0.0002, 0.0004)


def test_real_differences_and_others_are_said() -> None:
    unclear = Comparison(BEST, THIRD, 290, 0.001, -0.01, 0.012, 0.4, 0.4)
    first, second, third = sentences([REAL, unclear])
    assert first.startswith(
        "1 of 2 differences between configurations is significant: p < 0.05 after"
    )
    assert "2 paired tests on 296 images" in first
    assert first.endswith("how much another training would differ, one seed each can't say.")
    run = BEST.runs[0]
    many = [replace(REAL, first=replace(BEST, runs=[run, run]))]
    assert sentences(many)[0].endswith("would differ, the interval over seeds says.")
    assert second == (
        "#1 (model=a) is better than #2 (model=b) by 0.0592 mean IoU of an image, averaged "
        "over images (95 % interval 0.0564 to 0.0619, p = 0.0004)"
    )
    assert third == "#1 (model=a) can't be told from #3 (model=c)"
    assert sentences([]) == []


def test_the_better_one_is_named_first_whatever_ranks() -> None:
    turned = replace(REAL, difference=-0.05, low=-0.06, high=-0.04)
    assert sentences([turned])[1] == (
        "#2 (model=b) is better than #1 (model=a) by 0.0500 mean IoU of an image, averaged "
        "over images (95 % interval 0.0400 to 0.0600, p = 0.0004)"
    )


def test_long_labels_are_shortened_and_p_is_never_0() -> None:
    assert len(name_of(configuration(12, key="x" * 500))) < 100
    many = configuration(3, **{f"key{i}": "value" * 3 for i in range(9)})
    assert name_of(many) == f"#3 ({many.label[:64]}, …)", "whole overrides"
    assert name_of(configuration(1)) == "#1 (default)"
    assert (p_text(0.0174), p_text(2e-5)) == ("0.0174", "2.0e-05")


def test_what_is_odd_about_many_runs_is_said_once() -> None:
    runs = [Record(Path("x"), "completed", seed=i, notes=["is odd"]) for i in range(9)]
    runs[8] = replace(runs[8], notes=["is odder"])
    group = Group({}, {}, [], [Configuration(runs, rank=2)])
    assert run_notes(group) == [
        f"{', '.join(f'#2 seed {i}' for i in range(6))} and 2 more: is odd",
        "#2 seed 8: is odder",
    ]
