"""Number of pixels per class."""

import numpy as np

from segcore.constants import IGNORE

# up to this number of classes, one comparison per class is much faster than counting all 256 values
_FEW = 24


def class_histogram(labels: np.ndarray, classes: int) -> np.ndarray:
    """Pixels per label value, (256,) int64.

    Args:
        labels: uint8 of any shape.
        classes: number of classes; counting is fastest if all labels are below it, or IGNORE.
    """
    counts = np.zeros(256, dtype=np.int64)
    if classes <= _FEW:
        for index in (*range(classes), IGNORE):
            counts[index] = np.count_nonzero(labels == index)
        if counts.sum() == labels.size:
            return counts
    return np.bincount(labels.ravel(), minlength=256)
