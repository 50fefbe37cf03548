"""Groups of things that are joined pair by pair, transitively."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def groups_of(one: np.ndarray, other: np.ndarray, count: int) -> np.ndarray:
    """Number (count,) from 0 of each thing's group.

    Args:
        one: (P,) indices of the first things of pairs.
        other: (P,) those of the second things.
        count: number of things.
    """
    if not count:
        return np.zeros(0, np.int64)
    graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(count, count))
    groups: np.ndarray = connected_components(graph, directed=False)[1]
    return groups
