"""Intervals of counts from validation clusters."""

import numpy as np

from segcore.objects.count_interval import count_interval


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


def test_equal_ratios_leave_no_doubt_and_the_same_clusters_give_the_same_interval():
    assert count_interval(50, [[6, 5], [12, 10], [24, 20]]) == (60, 60)
    validation = clusters(np.random.default_rng(3), 10)
    assert count_interval(77, validation) == count_interval(np.int64(77), np.array(validation))


def test_nothing_is_known_from_less_than_two_clusters_or_without_predicted_objects():
    assert count_interval(5, []) is None and count_interval(5, [[3, 4]]) is None
    assert count_interval(0, [[3, 4], [5, 5]]) is None
    assert count_interval(5, [[3, 0], [5, 0]]) is None
    low, high = count_interval(5, [[3, 0], [5, 1], [0, 0]])
    assert 0 <= low <= high
