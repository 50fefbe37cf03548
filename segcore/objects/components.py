"""Connected components of a class map: of a whole plane, or of one that is read in bands of rows."""

from collections.abc import Sequence

import numpy as np
from skimage.measure import label

from segcore.objects.groups import groups_of


def components(classes: np.ndarray, foreground: Sequence[int]) -> np.ndarray:
    """4-connected components of pixels of one foreground class.

    Args:
        classes: (H, W) class indices; other values, such as IGNORE, are no object.
        foreground: indices of the classes that have objects.

    Returns:
        (H, W) uint32: numbers from 1 in the order of each component's first pixel, row by row; 0 elsewhere.
    """
    mapped = np.where(np.isin(classes, foreground), classes.astype(np.int32) + 1, 0)
    numbers: np.ndarray = label(mapped, background=0, connectivity=1).astype(np.uint32)
    return numbers


class BandedComponents:
    """Components of a plane that is read in bands of rows, because it is too large to be labelled as a whole.

    The bands have provisional numbers; `table` maps them to those of `components` for the whole plane.

    Args:
        foreground: indices of the classes that have objects.
    """

    def __init__(self, foreground: Sequence[int]) -> None:
        self._foreground = foreground
        self._count = 0
        # classes and provisional numbers of the last row
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self._pairs: list[np.ndarray] = []

    def add(self, classes: np.ndarray) -> np.ndarray:
        """Provisional numbers (h, W) uint32 of the next band (h, W) of class indices, 0 for no object."""
        found = components(classes, self._foreground)
        numbers = np.where(found > 0, found + np.uint32(self._count), np.uint32(0))
        self._count += int(found.max(initial=0))
        if self._last is not None:
            above, numbers_above = self._last
            joined = (above == classes[0]) & (numbers_above > 0)
            pairs = np.stack([numbers_above[joined], numbers[0][joined]], axis=1)
            self._pairs.append(np.unique(pairs, axis=0))
        self._last = classes[-1].copy(), numbers[-1].copy()
        return numbers

    def table(self) -> np.ndarray:
        """(N + 1,) uint32: number of the component of each of the N provisional numbers; the entry 0 is 0."""
        pairs = np.concatenate([np.zeros((0, 2), np.uint32), *self._pairs]).astype(np.int64)
        groups = groups_of(pairs[:, 0], pairs[:, 1], self._count + 1)
        # provisional numbers ascend with the first pixel, so the first one of a group is that of its first pixel
        _, first, group = np.unique(groups, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.uint32)
        rank[np.argsort(first)] = np.arange(len(first), dtype=np.uint32)
        numbers: np.ndarray = rank[group]
        return numbers
