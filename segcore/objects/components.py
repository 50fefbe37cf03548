"""Connected components of a class map."""

from collections.abc import Sequence

import numpy as np
from skimage.measure import label


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
