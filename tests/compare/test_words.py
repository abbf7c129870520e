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
FOUND = Comparison(BEST, SECOND, 296, 0.0592, 0.0564, 0.0619, 0.0002, 0.0004)


def test_significant_differences_and_others_are_said() -> None:
    unclear = Comparison(BEST, THIRD, 290, 0.001, -0.01, 0.012, 0.4, 0.4)
    first, second, third = sentences([FOUND, unclear])
    assert first == (
        "1 of 2 differences between configurations is significant: p < 0.05 after Holm's "
        "correction for 2 paired tests over images, on 296 images. Over images alone a test tells "
        "these nets apart; how much another training would differ, one seed can't say."
    )
    assert second == (
        "#1 (model=a) is significantly better than #2 (model=b) on these weights: by 0.0592 mean "
        "IoU of an image, averaged over images (95 % interval 0.0564 to 0.0619, p = 0.0004)"
    )
    assert third == "#1 (model=a) can't be told from #3 (model=c)"
    assert sentences([]) == []


def test_what_holds_for_new_trainings_is_said_to() -> None:
    several = replace(FOUND, seeds=(3, 3))
    first, second = sentences([several])
    assert first.endswith("for 1 paired test over seeds and images, on 296 images")
    assert second == (
        "#1 (model=a) is significantly better than #2 (model=b): by 0.0592 mean IoU of an image, "
        "averaged over seeds and images (95 % interval 0.0564 to 0.0619, p = 0.0004)"
    )
    mixed, *_ = sentences([several, FOUND])
    assert "2 paired tests over 1 over seeds and images" not in mixed
    assert "2 paired tests, 1 over seeds and images and 1 over images, on 296 images" in mixed
    assert mixed.endswith("one seed can't say.")


def test_the_better_one_is_named_first_whatever_ranks() -> None:
    turned = replace(FOUND, difference=-0.05, low=-0.06, high=-0.04, seeds=(2, 2))
    assert sentences([turned])[1] == (
        "#2 (model=b) is significantly better than #1 (model=a): by 0.0500 mean IoU of an image, "
        "averaged over seeds and images (95 % interval 0.0400 to 0.0600, p = 0.0004)"
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
