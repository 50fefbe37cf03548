"""Interval of a count of objects, from how many were found and how many there are on the validation split."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

_DRAWS, _LEVEL = 2000, 0.95
# clusters of a drawn scene; with more, only the uncertainty of the validation split is left anyway
_MOST_CLUSTERS = 1000


def count_interval(count: int, clusters: Sequence[Sequence[int]]) -> tuple[int, int] | None:
    """95 % interval of the true number of objects where `count` were found.

    In each of 2,000 draws, the validation clusters are resampled, since they are few; from these, clusters are drawn
    until they have as many predicted objects as the count, since a scene is no average. The count times the ratio of
    true to predicted objects of that draw is one possible true number. The draws are the same at every call.

    Args:
        count: number of objects that were found.
        clusters: true and predicted number of objects of each validation cluster.

    Returns:
        2.5 % and 97.5 % quantile, rounded; None for fewer than two clusters, for a count of 0, and if no object was
        predicted in them: nothing is known of the ratio then.
    """
    return _interval(int(count), tuple((int(true), int(predicted)) for true, predicted in clusters))


@lru_cache(maxsize=4096)
def _interval(count: int, clusters: tuple[tuple[int, int], ...]) -> tuple[int, int] | None:
    true, predicted = np.array(clusters, np.int64).reshape(-1, 2).T
    if count == 0 or len(clusters) < 2 or predicted.sum() == 0:
        return None
    rng = np.random.default_rng(0)
    resampled = rng.integers(0, len(clusters), (_DRAWS, len(clusters)))
    # twice as many as needed on average, so that almost every draw reaches the count
    many = min(math.ceil(2 * count / predicted.mean()) + 10, _MOST_CLUSTERS)
    drawn = np.take_along_axis(resampled, rng.integers(0, len(clusters), (_DRAWS, many)), axis=1)
    found = predicted[drawn].cumsum(axis=1)
    last = np.minimum((found < count).sum(axis=1), many - 1)[:, None]
    sums = np.take_along_axis(found, last, axis=1)[:, 0]
    there = np.take_along_axis(true[drawn].cumsum(axis=1), last, axis=1)[:, 0]
    ratios = there[sums > 0] / sums[sums > 0]
    if not len(ratios):
        return None
    low, high = np.quantile(count * ratios, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return round(float(low)), round(float(high))
