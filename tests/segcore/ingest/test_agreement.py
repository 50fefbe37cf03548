"""Counts of how far several annotators of an item agree."""

import json

import numpy as np

from segcore.constants import IGNORE
from segcore.data.annotators import majority
from segcore.ingest.agreement import AGREEMENT, Agreement


def test_counts_of_windows_add_up_and_pixels_without_two_labels_are_left_out() -> None:
    labels = [
        np.array([row], np.uint8)
        for row in ([0, 1, 2, 2, IGNORE], [0, 1, 1, IGNORE, IGNORE], [0, 0, 1, 2, 2])
    ]
    found = Agreement(3, 3)
    for columns in (slice(0, 2), slice(2, 5)):
        parts = [label[:, columns] for label in labels]
        found.update(parts, majority(parts, 3))
    counts = json.loads(found.facts()[AGREEMENT])
    assert counts == {
        "pixels": [[1, 1, 2], [1, 2, 0], [2, 1, 2]],
        "as_majority": [3, 3, 4],
        "several": 4,
        "any": [2, 2, 2],
        "all": [1, 0, 1],
    }
    assert np.sum(counts["pixels"]) == np.sum([label != IGNORE for label in labels])
