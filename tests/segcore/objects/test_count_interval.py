"""Intervals of counts from validation clusters."""

import numpy as np
import pytest

from segcore.objects.count_interval import count_interval, true_number


def clusters(rng: np.random.Generator, number: int) -> list[list[int]]:
    """True and predicted numbers of objects; 20 % of the objects are missed, more in some clusters than in others."""
    true = rng.poisson(rng.gamma(3, 4, number))
    found = rng.binomial(true, rng.beta(16, 4, number))
    return np.stack([true, found + rng.poisson(0.3, number)], axis=1).tolist()


def test_the_interval_holds_the_true_number_in_about_95_of_100_scenes():
    rng, held, tries = np.random.default_rng(0), 0, 300
    for _ in range(tries):
        validation, scene = clusters(rng, 30), np.array(clusters(rng, 20))
        low, high = count_interval(scene[:, 1].sum(), validation)
        held += low <= scene[:, 0].sum() <= high
    assert 0.9 <= held / tries <= 0.99, held / tries


def test_a_large_count_is_no_more_certain_than_the_validation_clusters():
    validation = clusters(np.random.default_rng(1), 12)
    widths = []
    for count in (20, 1_000, 100_000):
        low, high = count_interval(count, validation)
        widths.append((high - low) / count)
    assert widths[0] > 1.3 * widths[1] and 0.05 < widths[2] <= widths[1] < 1.5 * widths[2]
    few, many = clusters(np.random.default_rng(2), 4), clusters(np.random.default_rng(2), 400)
    assert np.diff(count_interval(1000, few)) > 3 * np.diff(count_interval(1000, many))


@pytest.mark.parametrize(("number", "size"), [(10, 100), (8, 20), (30, 20)])
@pytest.mark.parametrize("part", [0.02, 0.1, 0.3, 1])
def test_the_interval_holds_for_scenes_smaller_than_a_cluster(number, size, part):
    def scenes(many: int, mean: float) -> np.ndarray:
        true = rng.poisson(mean, many)
        return np.stack([true, rng.binomial(true, 0.8) + rng.poisson(0.1 * mean, many)], axis=1)

    rng, held, tries = np.random.default_rng(0), 0, 100
    for _ in range(tries):
        validation = scenes(number, size).tolist()
        true, predicted = scenes(1, size * part)[0]
        low, high = count_interval(predicted, validation)
        held += low <= true <= high
    assert held >= 0.9 * tries


def test_equal_ratios_leave_little_doubt_and_the_same_clusters_give_the_same_interval():
    low, high = count_interval(50, [[6, 5], [12, 10], [24, 20]])
    assert 50 < low < 60 < high < 70
    low, high = count_interval(50, [[6, 5], [12, 10], [24, 20]] * 20)
    assert 57 < low < 60 < high < 63
    validation = clusters(np.random.default_rng(3), 10)
    assert count_interval(77, validation) == count_interval(np.int64(77), np.array(validation))


def test_one_object_may_be_false_and_of_none_some_may_be_missed():
    validation = clusters(np.random.default_rng(4), 20)
    low, high = count_interval(1, validation)
    assert low == 0 and high > 1 and count_interval(0, validation) == (0, high)
    assert true_number(0, validation) == 0


def test_the_estimate_is_the_count_times_the_ratio_of_true_to_predicted_objects():
    assert true_number(30, [[10, 8], [5, 4], [0, 0]]) == 38
    assert true_number(30, []) is None and true_number(30, [[3, 0]]) is None


def test_nothing_is_known_from_less_than_two_clusters_or_without_predicted_objects():
    assert count_interval(5, []) is None and count_interval(5, [[3, 4]]) is None
    assert count_interval(5, [[3, 4], [0, 0]]) is None
    assert count_interval(5, [[3, 0], [5, 0]]) is None
    low, high = count_interval(5, [[3, 0], [5, 1], [0, 0]])
    assert 0 <= low <= high
