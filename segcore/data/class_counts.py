"""How many pixels each class has."""

import numpy as np

from segcore.constants import IGNORE

_FEW = 24  # to compare with each of so few classes is faster by far than counting all 256 values


def class_histogram(labels: np.ndarray, classes: int) -> np.ndarray:
    """(256,) int64 pixels of each class index in uint8 labels of any shape; most are below `classes`, or IGNORE."""
    counts = np.zeros(256, dtype=np.int64)
    if classes <= _FEW:
        for index in (*range(classes), IGNORE):
            counts[index] = np.count_nonzero(labels == index)
        if counts.sum() == labels.size:
            return counts
    return np.bincount(labels.ravel(), minlength=256)
