"""Tests over seeds and images, against scipy and against what chance really does."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from segpets.significance import Variance, difference, over_folds


def scores(
    generator: np.random.Generator,
    images: NDArray[np.float64],
    seeds: int,
    *,
    training: float,
    noise: float,
    mean: float = 0.7,
) -> NDArray[np.float64]:
    """Made scores: a mean, an effect of each training, one of each image, and noise."""
    each = generator.normal(0, training, (seeds, 1))
    return mean + each + images + generator.normal(0, noise, (seeds, len(images)))


@pytest.mark.parametrize(
    ("first", "second", "spreads"),
    [
        *((3, 3, (0.01, 0.01)), (3, 3, (0.002, 0.02)), (5, 2, (0.002, 0.02))),
        pytest.param(2, 2, (0.002, 0.02), marks=pytest.mark.slow),
        pytest.param(5, 3, (0.01, 0.01), marks=pytest.mark.slow),
        pytest.param(10, 2, (0.01, 0.01), marks=pytest.mark.slow),
    ],
)
def test_chance_is_called_significant_in_at_most_a_twentieth_of_the_cases(
    first: int, second: int, spreads: tuple[float, float]
) -> None:
    generator = np.random.default_rng(1)
    wrong, over_images_alone, studies = 0, 0, 2000
    for _ in range(studies):
        images = generator.normal(0, 0.15, 200)
        one = scores(generator, images, first, training=spreads[0], noise=0.05)
        other = scores(generator, images, second, training=spreads[1], noise=0.05)
        wrong += difference(one, other).p < 0.05
        over_images_alone += stats.ttest_rel(one.mean(0), other.mean(0)).pvalue < 0.05
    assert wrong / studies < 0.06
    assert wrong / studies > 0.005, "a test that never speaks is of no use"
    assert over_images_alone / studies > 0.3, "which is why images alone can't tell methods apart"


def test_without_differences_between_trainings_it_is_the_paired_t_test() -> None:
    generator = np.random.default_rng(2)
    one, other = generator.normal(0.7, 0.1, (2, 400))
    found = difference(np.stack([one, one]), np.stack([other, other]))
    oracle = stats.ttest_rel(one, other)
    assert found.value == pytest.approx(one.mean() - other.mean())
    assert found.p == pytest.approx(oracle.pvalue)
    interval = oracle.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert found.of_trainings == pytest.approx(0)


def test_where_images_agree_it_is_welchs_t_test_of_the_trainings() -> None:
    generator = np.random.default_rng(3)
    one, other = generator.normal(0.7, 0.01, 4), generator.normal(0.68, 0.03, 4)
    found = difference(np.repeat(one[:, None], 50, 1), np.repeat(other[:, None], 50, 1))
    oracle = stats.ttest_ind(one, other, equal_var=False)
    assert found.p == pytest.approx(oracle.pvalue)
    interval = oracle.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_trainings_that_are_not_as_many_are_judged_as_cochran_and_cox_do() -> None:
    generator = np.random.default_rng(5)
    one, other = generator.normal(0.7, 0.01, 6), generator.normal(0.68, 0.03, 3)
    found = difference(np.repeat(one[:, None], 50, 1), np.repeat(other[:, None], 50, 1))
    first, second = one.var(ddof=1) / 6, other.var(ddof=1) / 3

    def least(p: float) -> float:
        each = first * stats.t.isf(p / 2, 5) + second * stats.t.isf(p / 2, 2)
        return float(each / (first + second))

    error, gap = np.sqrt(first + second), one.mean() - other.mean()
    assert (found.low, found.high) == pytest.approx(
        (gap - least(0.05) * error, gap + least(0.05) * error)
    )
    assert least(found.p) * error == pytest.approx(gap)


def test_images_and_trainings_each_have_their_own_distribution() -> None:
    generator = np.random.default_rng(6)
    images = generator.normal(0, 0.15, 30)
    one = scores(generator, images, 3, training=0.01, noise=0.05, mean=0.75)
    other = scores(generator, images, 3, training=0.02, noise=0.05)
    found = difference(one, other)
    welch = stats.ttest_ind(one.mean(1), other.mean(1), equal_var=False).df
    each = found.of_trainings * stats.t.ppf(0.975, welch)
    each += found.of_images * stats.t.ppf(0.975, 29)
    total = found.of_trainings + found.of_images
    assert found.high - found.value == pytest.approx(each / total * np.sqrt(total))


def test_methods_that_never_differ() -> None:
    same = np.full((2, 10), 0.5)
    assert difference(same, same).p == 1
    apart = difference(same + 0.1, same)
    assert (apart.p, apart.low, apart.high) == (0, pytest.approx(0.1), pytest.approx(0.1))


def test_the_interval_of_folds_is_wider_than_that_of_seeds() -> None:
    values = [0.70, 0.72, 0.69, 0.73, 0.71]
    found = over_folds({fold: [value] for fold, value in enumerate(values)}, folds=5)
    half = stats.t.ppf(0.975, 4) * np.std(values, ddof=1) * np.sqrt(1 / 5 + 1 / 4)
    assert (found.mean, found.count) == (pytest.approx(0.71), 5)
    assert (found.low, found.high) == (pytest.approx(0.71 - half), pytest.approx(0.71 + half))
    assert over_folds({2: [0.7, 0.8]}, folds=5).low is None
    twice = over_folds({fold: [value, value] for fold, value in enumerate(values)}, folds=5)
    assert twice == found, "the same numbers again say nothing more"
    three = over_folds({fold: [values[fold]] for fold in range(3)}, folds=5)
    half = stats.t.ppf(0.975, 2) * np.std(values[:3], ddof=1) * np.sqrt(1 / 3 + 1 / 4)
    assert three.high == pytest.approx(np.mean(values[:3]) + half)


def test_the_difference_of_folds_is_less_certain_than_that_of_seeds() -> None:
    generator = np.random.default_rng(4)
    images = generator.normal(0, 0.1, 200)
    one = scores(generator, images, 5, training=0.01, noise=0.02, mean=0.72)
    other = scores(generator, images, 5, training=0.01, noise=0.02)
    seeds, folds = difference(one, other), difference(one, other, folds=5)
    assert folds.of_trainings == pytest.approx(seeds.of_trainings * (1 + 5 / 4))
    assert folds.low < seeds.low < seeds.high < folds.high


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_the_power_is_what_it_is_said_to_be(seeds: int) -> None:
    generator = np.random.default_rng(seeds)
    variance = Variance(training=0.01**2, images=2 * 0.05**2 / seeds / 300, count=300)
    gap, found, studies = variance.detectable(seeds), 0, 1000
    for _ in range(studies):
        images = generator.normal(0, 0.15, 300)
        one = scores(generator, images, seeds, training=0.01, noise=0.05, mean=0.7 + gap)
        other = scores(generator, images, seeds, training=0.01, noise=0.05)
        found += difference(one, other).p < 0.05
    assert found / studies == pytest.approx(0.8, abs=0.04)


def test_seeds_for_a_difference_are_as_many_as_find_it() -> None:
    variance = Variance(training=0.01**2, images=1e-7, count=1000)
    needed = variance.seeds_for(0.01)
    assert needed is not None
    assert variance.detectable(needed) <= 0.01 < variance.detectable(needed - 1)
    # By the usual formula for two means, 2 (z + z)^2 s^2 / d^2, it is 16 or one or two more.
    assert needed in (17, 18)
    assert variance.seeds_for(1e-6) is None, "not with these images"
