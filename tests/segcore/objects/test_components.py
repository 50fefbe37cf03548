"""Components in bands are those of the whole plane, and pixels near two objects are found."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from segcore.objects.components import BandedComponents, components
from segcore.objects.contacts import near_two

MAPS = arrays(
    np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.sampled_from([0, 1, 2, 255])
)


def in_bands(classes: np.ndarray, rows: list[int]) -> np.ndarray:
    bands = BandedComponents([1, 2])
    numbers = np.concatenate([bands.add(part) for part in np.split(classes, rows) if len(part)])
    found: np.ndarray = bands.table()[numbers]
    return found


@given(MAPS, st.lists(st.integers(0, 14), max_size=6))
@settings(max_examples=200, deadline=None)
def test_components_in_bands_equal_those_of_the_whole_plane(classes, rows):
    found = in_bands(classes, sorted(rows))
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found, components(classes, [1, 2]))


def test_components_that_join_far_below_have_the_number_of_their_first_pixel():
    comb = np.zeros((6, 9), np.uint8)
    comb[:, ::2] = 1
    comb[5] = 1
    comb[0, 4] = 2
    np.testing.assert_array_equal(in_bands(comb, [1, 2, 3, 4, 5]), components(comb, [1, 2]))


def test_more_than_65536_components_do_not_wrap():
    classes = np.zeros((600, 600), np.uint8)
    classes[::2, ::2] = 1
    found = in_bands(classes, [100, 333])
    assert found.max() == 90_000 and len(np.unique(found)) == 90_001


@given(
    arrays(
        np.uint32,
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements=st.sampled_from([0, 0, 0, 3, 70_000, 2**32 - 1]),
    )
)
@settings(max_examples=150, deadline=None)
def test_pixels_near_two_objects_are_those_with_two_numbers_within_two_pixels(numbers):
    places = np.argwhere(numbers >= 0)
    reach = cdist(places, places) <= 2
    expected = [len(set(numbers.ravel()[row].tolist()) - {0}) > 1 for row in reach]
    np.testing.assert_array_equal(near_two(numbers).ravel(), expected)
