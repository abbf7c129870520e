"""Intervals and tests, against scipy's on the same numbers and against values by hand."""

import numpy as np
import pytest
import torch
from scipy import stats

from segpets.metric import scores
from segpets.stats import (
    bootstrap_interval,
    holm,
    image_iou,
    over_seeds,
    pareto_front,
    sign_flip_p,
    worst_cases,
)


def differences(count: int, tests: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(5).normal(shift, 0.1, (count, tests))


def test_the_interval_over_seeds_is_scipys_t_interval() -> None:
    values = [0.61, 0.655, 0.64, 0.7]
    estimate = over_seeds(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (estimate.mean, estimate.count) == (pytest.approx(0.65125), 4)
    assert (estimate.low, estimate.high) == (pytest.approx(low), pytest.approx(high))


def test_the_interval_of_two_seeds_by_hand() -> None:
    estimate = over_seeds([0.6, 0.7])  # mean 0.65, standard error 0.05, t = 12.7062 for 1 degree
    assert estimate.low == pytest.approx(0.65 - 12.7062 * 0.05, abs=1e-5)
    assert estimate.high == pytest.approx(0.65 + 12.7062 * 0.05, abs=1e-5)


def test_one_seed_has_no_interval_and_equal_seeds_one_without_length() -> None:
    assert over_seeds([0.5]) == over_seeds([0.5])
    assert (over_seeds([0.5]).low, over_seeds([0.5]).high) == (None, None)
    same = over_seeds([0.5, 0.5, 0.5])
    assert (same.low, same.high) == (0.5, 0.5)


@pytest.mark.parametrize("count", [2, 7, 13, 14, 40, 300])
@pytest.mark.parametrize("shift", [0.0, 0.03, -0.05])
def test_p_is_scipys(count: int, shift: float) -> None:
    given = differences(count, 2, shift)
    ours = sign_flip_p(given, resamples=9999, seed=3)
    for column in range(2):
        scipys = stats.permutation_test(
            (given[:, column],),
            np.mean,
            permutation_type="samples",
            vectorized=True,
            n_resamples=9999,
            rng=np.random.default_rng(3),
        )
        exact = 2**count <= 9999
        expected = {"rel": 1e-12} if exact else {"abs": 0.05}  # scipy draws other signs
        assert ours[column] == pytest.approx(scipys.pvalue, **expected)


def test_p_of_a_paired_test_is_that_of_its_differences() -> None:
    first, second = differences(8, 1), differences(8, 2)[:, 1:]
    scipys = stats.permutation_test(
        (first[:, 0], second[:, 0]),
        lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
    )
    ours = sign_flip_p(first - second, resamples=9999, seed=0)
    assert ours[0] == pytest.approx(scipys.pvalue)


def test_p_by_hand() -> None:
    # All of three differences positive: of 8 ways to sign them only +++ and --- are as far out.
    given = np.array([[1.0], [2.0], [3.0]])
    assert sign_flip_p(given, resamples=100, seed=0)[0] == pytest.approx(2 / 8)
    assert sign_flip_p(np.zeros((3, 1)), resamples=100, seed=0)[0] == 1


def test_p_does_not_depend_on_the_other_tests_nor_on_batches() -> None:
    given = differences(4000, 3)
    together = sign_flip_p(given, resamples=1500, seed=1)  # more than one batch of resamples
    assert together[1] == sign_flip_p(given[:, 1:2], resamples=1500, seed=1)[0]
    scipys = stats.permutation_test(
        (given[:, 1],),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=1500,
        batch=100,
        rng=np.random.default_rng(1),
    )
    assert together[1] == pytest.approx(scipys.pvalue, abs=0.05)


@pytest.mark.parametrize("count", [3, 40, 300])
def test_the_bootstrap_interval_is_scipys(count: int) -> None:
    given = differences(count, 2, 0.02)
    low, high = bootstrap_interval(given, resamples=2000, seed=4)
    for column in range(2):
        scipys = stats.bootstrap(
            (given[:, column],),
            np.mean,
            method="percentile",
            n_resamples=2000,
            rng=np.random.default_rng(4),
        ).confidence_interval
        assert low[column] == pytest.approx(scipys.low, rel=1e-9)
        assert high[column] == pytest.approx(scipys.high, rel=1e-9)


def test_holm_by_hand() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, and 0.04 is raised to 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_iou_of_images_by_hand() -> None:
    confusion = np.array(
        [
            [[6, 2, 0], [1, 7, 0], [0, 0, 0]],  # 6/9 and 7/10; the third class is nowhere
            [[4, 0, 1], [0, 0, 0], [0, 0, 0]],  # 4/5, and 0 for the class only predicted
            [[0, 0, 0], [0, 0, 0], [0, 0, 0]],  # all pixels ignored
        ]
    )
    assert image_iou(confusion) == pytest.approx([(6 / 9 + 0.7) / 2, 0.4, np.nan], nan_ok=True)


def test_the_iou_of_images_is_that_of_the_metric() -> None:
    confusion = np.random.default_rng(0).integers(0, 3, (50, 4, 4))
    expected = scores(torch.from_numpy(confusion))["iou"].nanmean(dim=1)
    assert image_iou(confusion) == pytest.approx(expected.numpy())


def test_the_front_by_hand() -> None:
    points = {
        "cheap": (1.0, 0.5),
        "good": (4.0, 0.8),
        "as good but dearer": (5.0, 0.8),
        "beaten": (2.0, 0.45),
        "between": (2.0, 0.6),
        "twin": (2.0, 0.6),
    }
    assert pareto_front(points) == {"cheap", "between", "twin", "good"}
    assert pareto_front({}) == set()


def test_the_worst_cases_by_hand() -> None:
    """Three images of two classes; the third holds only the first class."""
    parts = np.array(  # rightly predicted, of the truth, predicted
        [
            [[8, 1], [10, 4], [11, 3]],  # IoU 8 / 13 and 1 / 6
            [[5, 5], [5, 5], [5, 5]],  # 1 and 1
            [[6, 0], [9, 0], [6, 0]],  # 6 / 9, and a class that isn't there
            [[0, 0], [0, 0], [0, 0]],  # no pixel counts
        ]
    )
    found = worst_cases(parts, ["a", "b", "c"][:2])
    a, b = (8 / 13 + 1 + 6 / 9) / 3, (1 / 6 + 1) / 2
    assert found == pytest.approx(
        {
            "image_iou/a": a,
            "image_iou/b": b,
            "class_mean_iou": (a + b) / 2,
            "worst_class_iou": (1 / 6 + 1 + 6 / 9) / 3,
            "worst_images_iou": (8 / 13 + 1 / 6) / 2,  # one image, as 5 % of three is less
        }
    )
    assert worst_cases(parts[3:], ["a", "b"]) == {}


def test_the_worst_images_are_a_twentieth() -> None:
    iou = np.arange(1, 101)
    hit = iou[::-1][:, None]
    parts = np.stack([hit, np.full_like(hit, 100), hit], axis=1)
    assert worst_cases(parts, ["a"])["worst_images_iou"] == pytest.approx((1 + 2 + 3 + 4 + 5) / 500)
