"""Labels of several annotators of the same pixels: their majority, and all of them as one number per pixel.

A crop that is flipped, turned, zoomed or warped moves one array of numbers, whatever the number of annotators;
segcore.training.soft_labels makes soft labels of them.
"""

from collections.abc import Sequence

import numpy as np

from segcore.constants import IGNORE

# numbers below this are no labels of annotators: IGNORE is what lies outside of an image
FIRST = 256


def majority(labels: Sequence[np.ndarray], classes: int) -> np.ndarray:
    """(H, W) uint8: the class that most annotators chose; of equal ones that of the lowest index.

    An annotator that left a pixel out has no vote; a pixel that all left out is IGNORE.

    Args:
        labels: (H, W) uint8 class indices or IGNORE of each annotator.
        classes: number of classes.
    """
    best = np.full(labels[0].shape, IGNORE, np.uint8)
    votes = np.zeros(labels[0].shape, np.uint16)
    for index in range(classes):
        of_class = sum((label == index).astype(np.uint16) for label in labels)
        more = of_class > votes
        best[more], votes = index, np.maximum(votes, of_class)
    return best


def encoded(labels: np.ndarray, classes: int) -> np.ndarray:
    """(H, W) int64: one number per pixel for the labels of all annotators.

    Args:
        labels: (A, H, W) uint8 class indices or IGNORE.
        classes: number of classes, K; (K + 1)^A is below 2^62, which the parameters are checked for.
    """
    numbers = np.full(labels.shape[1:], FIRST, np.int64)
    for place, label in enumerate(labels):
        numbers += np.where(label == IGNORE, classes, label).astype(np.int64) * (classes + 1) ** place
    return numbers
