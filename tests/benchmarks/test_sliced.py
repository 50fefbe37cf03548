"""benchmarks/_sliced: what a merging of windows gets wrong is counted as defined."""

import numpy as np

from benchmarks import _sliced


def one(numbers, *values):
    """A result that has all pixels of these objects."""
    mask = np.isin(numbers, values)
    return 0, 0, mask


def test_the_truth_itself_has_no_mistake():
    numbers = _sliced.scene(600)
    assert numbers.max() > 50
    found = [one(numbers, value) for value in range(1, numbers.max() + 1)]
    assert _sliced.mistakes(numbers, found) == (0, 0, 0)


def test_a_second_result_a_part_and_a_union_are_told_apart():
    numbers = np.zeros((10, 40), np.uint32)
    for value in range(4):
        numbers[:, 10 * value : 10 * value + 8] = value + 1
    part = (0, 10, np.ones((10, 4), bool))
    twice = [one(numbers, 1), one(numbers, 1)]
    assert _sliced.mistakes(numbers, [*twice, part, one(numbers, 3, 4)]) == (1, 1, 2)


def test_an_object_without_a_result_is_cut():
    numbers = np.ones((4, 4), np.uint32)
    assert _sliced.mistakes(numbers, []) == (0, 1, 0)


def test_the_stitching_of_a_scene_larger_than_a_window_makes_no_mistake():
    numbers = _sliced.scene(1000)
    found = _sliced.ours(numbers)
    assert found[:4] == (numbers.max(), 0, 0, 0)
