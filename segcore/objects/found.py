"""Objects of a region as masks in crops: there is never an array with one plane per object."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import find_objects


@dataclass(frozen=True)
class Objects:
    """Objects of a region of `height` x `width` pixels, in any order; masks may overlap.

    Attributes:
        height, width: of the region in pixels.
        classes: (N,) uint8 class index of each object.
        scores: (N,) float32 in [0, 1].
        boxes: (N, 4) int32: first row, first column, height and width of each object in pixels.
        masks: N arrays (h, w) bool, of the size of the box.
    """

    height: int
    width: int
    classes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.int32))
    masks: Sequence[np.ndarray] = ()

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def areas(self) -> np.ndarray:
        """(N,) int64 pixels of each object."""
        return np.array([int(mask.sum()) for mask in self.masks], np.int64)

    def select(self, chosen: np.ndarray) -> "Objects":
        """The objects of an index array or a mask (N,), in its order."""
        indices = np.arange(len(self))[chosen]
        return Objects(
            self.height,
            self.width,
            self.classes[indices],
            self.scores[indices],
            self.boxes[indices],
            [self.masks[i] for i in indices],
        )

    def numbers(self) -> np.ndarray:
        """(H, W) uint32: place of each pixel's object, counted from 1, 0 where there is none.

        Where objects overlap, the one of higher score counts, and of equal ones the first.
        """
        numbers = np.zeros((self.height, self.width), np.uint32)
        for index in np.argsort(-self.scores, kind="stable")[::-1]:
            row, col, height, width = self.boxes[index]
            numbers[row : row + height, col : col + width][self.masks[index]] = index + 1
        return numbers


def from_numbers(numbers: np.ndarray, classes: np.ndarray, scores: np.ndarray) -> Objects:
    """Objects of a map of numbers without gaps.

    Args:
        numbers: (H, W) integers from 0, for no object, to N; each of 1 to N has a pixel.
        classes: (N,) class index of each object.
        scores: (N,) in [0, 1].
    """
    places = find_objects(numbers.astype(np.int32, copy=False))
    boxes = [(r.start, c.start, r.stop - r.start, c.stop - c.start) for r, c in places]
    masks = [numbers[place] == index for index, place in enumerate(places, start=1)]
    return Objects(
        numbers.shape[0],
        numbers.shape[1],
        np.asarray(classes, np.uint8),
        np.asarray(scores, np.float32),
        np.array(boxes, np.int32).reshape(-1, 4),
        masks,
    )
