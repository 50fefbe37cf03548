"""Labels of several annotators: majority, mean, and one number per pixel for all of them."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segcore.constants import IGNORE
from segcore.data.annotators import encoded, majority
from segcore.training.soft_labels import decoded


def test_the_majority_counts_votes_and_takes_the_lowest_class_of_equal_ones() -> None:
    a, b, c = (
        np.array([row], np.uint8)
        for row in ([0, 1, 2, 255, 255, 2], [1, 1, 1, 255, 1, 0], [1, 0, 0, 255, 255, 255])
    )
    assert majority([a, b, c], 3).tolist() == [[1, 1, 0, IGNORE, 1, 0]]


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 5), st.integers(2, 6), st.integers(0, 1000))
def test_numbers_of_all_labels_give_their_mean(annotators: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes + 1, (annotators, 5, 7)).astype(np.uint8)
    labels[labels == classes] = IGNORE
    numbers = encoded(labels, classes)
    numbers[0, 0] = IGNORE
    found = decoded(torch.from_numpy(numbers)[None], annotators, classes)[0].numpy()
    one_hot = np.stack([(labels == index).sum(0) for index in range(classes)]).astype(float)
    expected = one_hot / np.maximum(one_hot.sum(0), 1)
    expected[:, 0, 0] = 0
    np.testing.assert_allclose(found, expected, atol=1e-6)
