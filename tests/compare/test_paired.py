"""Tests image by image, against scipy's on the same numbers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from made_runs import drawn, make_run
from scipy import stats

from segpets.compare.paired import compared
from segpets.compare.table import table_of
from segpets.compare.words import sentences
from segpets.records.group import Group, grouped
from segpets.records.record import read_record
from segpets.significance import difference
from segpets.stats import holm, image_iou


def group_of(*runs: Path) -> Group:
    (group,), _ = grouped([read_record(run) for run in runs], metric="test/mean_iou")
    return group


def test_differences_of_single_seeds_are_tested_over_images_as_scipy_does(tmp_path: Path) -> None:
    quality = {"good": 0.8, "fair": 0.7, "poor": 0.699}
    counts = {model: drawn(right, images=60, seed=1) for model, right in quality.items()}
    iou = {model: image_iou(drawn_) for model, drawn_ in counts.items()}
    runs = [make_run(tmp_path / m, f"model={m}", counts=c) for m, c in counts.items()]
    tests, notes = compared(group_of(*runs), against_each_other=3, resamples=999, seed=7)
    assert notes == []
    pairs = [(t.first.label[6:], t.second.label[6:]) for t in tests]
    assert {frozenset(pair) for pair in pairs} == {
        frozenset(pair) for pair in (("good", "fair"), ("good", "poor"), ("fair", "poor"))
    }
    expected = []
    for test, (first, second) in zip(tests, pairs, strict=True):
        difference = iou[first] - iou[second]
        scipys = stats.permutation_test(
            (difference,),
            np.mean,
            permutation_type="samples",
            vectorized=True,
            n_resamples=999,
            rng=np.random.default_rng(7),
        )
        ends = stats.bootstrap(
            (difference,),
            np.mean,
            method="percentile",
            n_resamples=999,
            rng=np.random.default_rng(7),
        ).confidence_interval
        assert (test.images, test.difference) == (60, pytest.approx(difference.mean()))
        assert test.p == pytest.approx(scipys.pvalue, abs=0.06), "by other draws"
        assert (test.low, test.high) == (pytest.approx(ends.low), pytest.approx(ends.high))
        assert (test.over, test.seeds) == ("images", None)
        expected.append(test.p)
    assert [t.p_holm for t in tests] == pytest.approx(holm(expected))
    assert [t.significant for t in tests] == [True, True, False]


def test_several_seeds_are_tested_over_seeds_and_images(tmp_path: Path) -> None:
    """Two seeds that differ much: the images alone would call the difference significant."""
    quality = {"good": (0.80, 0.74), "fair": (0.75, 0.71)}
    runs, iou = [], {}
    for model, seeds in quality.items():
        counts = [drawn(right, images=200, seed=seed) for seed, right in enumerate(seeds)]
        iou[model] = np.stack([image_iou(drawn_) for drawn_ in counts])
        runs += [
            make_run(tmp_path / f"{model}{seed}", f"model={model}", seed=seed, counts=drawn_)
            for seed, drawn_ in enumerate(counts)
        ]
    (test,), notes = compared(group_of(*runs), against_each_other=3, resamples=999, seed=7)
    expected = difference(iou["good"], iou["fair"])
    assert (test.over, test.seeds, test.images) == ("seeds and images", (2, 2), 200)
    assert (test.difference, test.low, test.high, test.p) == pytest.approx(
        (expected.value, expected.low, expected.high, expected.p)
    )
    assert not test.significant
    means = iou["good"].mean(0) - iou["fair"].mean(0)
    assert stats.ttest_1samp(means, 0).pvalue < 0.001, "these four nets do differ"
    assert test.variance is not None
    assert notes[0].startswith(f"2 seeds each can tell {test.variance.detectable(2):.3f} mean IoU")
    needed = test.variance.seeds_for(test.difference)
    assert notes[1] == (
        f"To tell #1 from #2, if they differ by {test.difference:.4f}, {needed} seeds each would "
        "be needed"
    )


def test_seeds_are_asked_for_at_the_level_of_all_tests(tmp_path: Path) -> None:
    """Of three tests each has a third of it; what scores the same no seeds tell apart."""
    quality = {"good": (0.80, 0.74), "fair": (0.75, 0.71), "poor": (0.74, 0.70)}
    runs = [
        make_run(tmp_path / f"{m}{s}", f"model={m}", seed=s, counts=drawn(q, images=200, seed=s))
        for m, seeds in quality.items()
        for s, q in enumerate(seeds)
    ]
    tests, notes = compared(group_of(*runs), against_each_other=3, resamples=999, seed=7)
    first = tests[0]
    assert first.variance is not None and len(tests) == 3 and not first.significant
    one, needed = (first.variance.seeds_for(first.difference, tests=n) for n in (1, 3))
    assert one is not None and needed is not None and 2 < one < needed
    assert notes[1].endswith(f", {needed} seeds each would be needed, corrected for 3 tests")
    twins = [
        make_run(tmp_path / f"{m}{s}", f"model={m}", seed=s, counts=drawn(0.8, seed=s))
        for m in ("one", "twin")
        for s in (1, 2)
    ]
    _, notes = compared(group_of(*twins), against_each_other=3, resamples=999, seed=7)
    assert notes[1] == "Nothing tells #1 from #2: on average they score the same"


def of_folds(folder: Path, model: str, folds: Sequence[int], right: float) -> list[Path]:
    return [
        make_run(
            folder / f"{model}{fold}",
            f"model={model}",
            counts=drawn(right + 0.02 * fold, images=200, seed=fold),
            protocol={"folds": {"count": 3}},
            config={"data": {"folds": 3, "fold": fold}},
        )
        for fold in folds
    ]


def test_folds_are_named_and_no_number_of_them_is_asked_for(tmp_path: Path) -> None:
    """There are no more folds than there are, and other folds mean other training images."""
    runs = of_folds(tmp_path, "good", (0, 1), 0.75) + of_folds(tmp_path, "fair", (1, 2), 0.74)
    group = group_of(*runs)
    (test,), notes = compared(group, against_each_other=3, resamples=999, seed=7)
    assert (test.over, test.seeds, test.folds) == ("folds and images", (2, 2), 3)
    assert not test.significant and test.variance is not None
    names = [f"{', '.join(map(str, sorted(c.folds)))}" for c in group.configurations]
    assert notes == [
        f"#1 has the folds {names[0]} and #2 has the folds {names[1]}: they were trained on other "
        "images, too",
        f"2 folds each can tell {test.variance.detectable(2):.3f} mean IoU of an image apart: so "
        "large a difference is found, without a correction, in 80% of studies",
    ]
    table = table_of(group, "test/mean_iou")
    assert [sum(cell.text == "2 of 3 folds" for cell in row) for row in table.rows] == [1, 1]
    assert "for 1 paired test over folds and images" in sentences([test])[0]


def test_beyond_the_best_few_only_the_best_is_compared(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / str(i), f"model={i}", counts=drawn(0.9 - i / 10)) for i in range(5)]
    tests, _ = compared(group_of(*runs), against_each_other=3, resamples=99, seed=0)
    ranks = [(t.first.rank, t.second.rank) for t in tests]
    assert ranks == [(1, 2), (1, 3), (1, 4), (1, 5), (2, 3)]


def test_many_tests_get_resamples_enough_to_survive_their_correction(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / str(i), f"model={i}", counts=drawn(0.9 if i == 0 else 0.3, images=30))
        for i in range(12)
    ]
    tests, _ = compared(group_of(*runs), against_each_other=0, resamples=99, seed=0)
    assert len(tests) == 11
    assert all(t.significant for t in tests), "of 99 resamples no p below 0.02 * 11 could come"


def test_only_images_that_both_have_are_compared(tmp_path: Path) -> None:
    counts = drawn(0.8, images=20)
    worse = drawn(0.5, images=20)
    names = [f"n{i:02d}" for i in range(20)]
    one = make_run(tmp_path / "one", "model=a", counts=counts, names=names)
    two = make_run(
        tmp_path / "two",
        "model=b",
        counts=worse[:15],
        names=names[:15],
        protocol={"images": {"train": 15, "val": 3, "test": 20}},
    )
    (test,), notes = compared(group_of(one, two), against_each_other=5, resamples=999, seed=0)
    assert test.images == 15
    expected = (image_iou(counts)[:15] - image_iou(worse)[:15]).mean()
    assert test.difference == pytest.approx(expected)
    assert "a pair is compared on those that both have, at least 15 of 20" in notes[0]


def test_an_image_with_another_truth_is_not_compared(tmp_path: Path) -> None:
    counts, other = drawn(0.8, images=20), drawn(0.6, images=20)
    other[3, 0, 0] += 5
    runs = [
        make_run(tmp_path / m, f"model={m}", counts=c) for m, c in (("a", counts), ("b", other))
    ]
    (test,), notes = compared(group_of(*runs), against_each_other=5, resamples=99, seed=0)
    assert test.images == 19
    assert "at least 19 of 20" in notes[0]


def test_lost_predictions_are_said(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / f"{m}{seed}", f"model={m}", seed=seed, counts=drawn(right, seed=seed))
        for m, right in (("a", 0.9), ("b", 0.7), ("c", 0.5))
        for seed in (1, 2)
    ]
    for lost in ("b1", "c1", "c2"):
        (tmp_path / lost / "predictions/test/counts.csv").unlink()
    tests, notes = compared(group_of(*runs), against_each_other=5, resamples=99, seed=0)
    assert [(t.first.label, t.second.label) for t in tests] == [("model=a", "model=b")]
    assert "Without paired tests, for want of predictions: #3" in notes
    assert "#2: 1 of 2 seeds have predictions" in notes


def test_an_image_without_a_counted_pixel_says_nothing(tmp_path: Path) -> None:
    runs = []
    for m, right in (("a", 0.9), ("b", 0.7)):
        counts = drawn(right)
        counts[0] = 0
        runs.append(make_run(tmp_path / m, f"model={m}", counts=counts))
    (test,), notes = compared(group_of(*runs), against_each_other=5, resamples=99, seed=0)
    assert (test.images, notes) == (11, [])
