"""Numbers of the true objects of a region, as the object table of an evaluation has them."""

import numpy as np


def by_first_pixel(numbers: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A number map with its objects numbered from 1 in the order of their first pixels, row by row.

    Args:
        numbers: (H, W) numbers of objects, 0 for none.
        ids: (N,) the numbers that are kept, each once, in any order; all others become 0.

    Returns:
        (H, W) int32 new numbers, and the (M,) old numbers of the objects that have a pixel, in the new order.
    """
    ids = np.sort(np.asarray(ids).astype(np.int64))
    renumbered = np.zeros(numbers.size, np.int32)
    if not len(ids):
        return renumbered.reshape(numbers.shape), ids
    pixels = np.flatnonzero(numbers)
    values = numbers.ravel()[pixels]
    places = np.minimum(np.searchsorted(ids, values), len(ids) - 1)
    known = ids[places] == values
    pixels, places = pixels[known], places[known]
    first = np.full(len(ids), numbers.size)
    # of repeated indices the last assignment counts, so the first pixel is assigned last
    first[places[::-1]] = pixels[::-1]
    order = np.argsort(first, kind="stable")[: int((first < numbers.size).sum())]
    new = np.zeros(len(ids), np.int32)
    new[order] = np.arange(1, len(order) + 1)
    renumbered[pixels] = new[places]
    return renumbered.reshape(numbers.shape), ids[order]
