"""How far several annotators of an item agree, counted while it is read."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from segcore.constants import IGNORE

# column of the catalogue of data sets with data.annotators alone
AGREEMENT = "agreement"


class Agreement:
    """Running counts of one item.

    Args:
        annotators: number of them, A.
        classes: number of classes, K.
    """

    def __init__(self, annotators: int, classes: int) -> None:
        self._pixels = np.zeros((annotators, classes), np.int64)
        self._as_majority = np.zeros(annotators, np.int64)
        self._any, self._all = np.zeros((2, classes), np.int64)
        self._several = 0

    def update(self, labels: Sequence[np.ndarray], majority: np.ndarray) -> None:
        """Add a window: labels of each annotator, and their majority, (h, w) with IGNORE."""
        each, classes = np.stack(labels), len(self._any)
        several = (each != IGNORE).sum(axis=0) > 1
        for place, label in enumerate(each):
            self._pixels[place] += np.bincount(label[label != IGNORE], minlength=classes)
            self._as_majority[place] += np.count_nonzero((label == majority) & (label != IGNORE))
        for index in range(classes):
            chosen = each == index
            self._any[index] += np.count_nonzero(chosen.any(axis=0) & several)
            self._all[index] += np.count_nonzero((chosen | (each == IGNORE)).all(axis=0) & several)
        self._several += int(np.count_nonzero(several))

    def facts(self) -> dict[str, Any]:
        """Column of the catalogue.

        Its values are pixels: `pixels` by annotator and class, `as_majority` by annotator those with the class of the
        majority, `several` those that at least two annotators labelled, and of these by class `any` (at least one
        annotator chose it) and `all` (all did who labelled the pixel).
        """
        counts = {
            "pixels": self._pixels.tolist(),
            "as_majority": self._as_majority.tolist(),
            "several": self._several,
            "any": self._any.tolist(),
            "all": self._all.tolist(),
        }
        return {AGREEMENT: json.dumps(counts)}
