"""True number of objects, from how many were found: estimate and interval by the counts of the validation split."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

LEVEL, _DRAWS = 0.95, 2000
# clusters of a drawn scene; with more, only the uncertainty of the validation split is left anyway
_MOST_CLUSTERS = 1000


def true_number(count: int, clusters: Sequence[Sequence[int]]) -> int | None:
    """The count times the ratio of true to predicted objects of the validation split, rounded.

    Args:
        count: number of objects that were found.
        clusters: true and predicted number of objects of each validation cluster.

    Returns:
        None if no object was predicted in the clusters.
    """
    true, predicted = np.array(clusters, np.int64).reshape(-1, 2).sum(axis=0).tolist()
    return round(count * true / predicted) if predicted else None


def count_interval(count: int, clusters: Sequence[Sequence[int]]) -> tuple[int, int] | None:
    """95 % interval of the true number of objects where `count` were found.

    In each of 2,000 draws, the validation clusters are resampled, since they are few; from these, clusters are drawn
    until they have as many predicted objects as the count, since a scene is no average. The count times the ratio of
    true to predicted objects of that draw is the expected true number. The deviation of that ratio from the ratio of
    all clusters is widened as in a t-distribution, because few clusters underestimate it. Where the count is smaller
    than a cluster, the true number varies around the expected one, as gamma distribution, with the variance per
    predicted object that is between the validation clusters. A count of 0 has the upper end of a count of 1. The draws
    are the same at every call.

    Args:
        count: number of objects that were found.
        clusters: true and predicted number of objects of each validation cluster.

    Returns:
        2.5 % and 97.5 % quantile, rounded; None for fewer than two clusters with objects, and if no object was
        predicted in them: nothing is known of the ratio then.
    """
    found = _interval(max(int(count), 1), tuple((int(t), int(p)) for t, p in clusters if t or p))
    return found if found is None or count else (0, found[1])


@lru_cache(maxsize=4096)
def _interval(count: int, clusters: tuple[tuple[int, int], ...]) -> tuple[int, int] | None:
    true, predicted = np.array(clusters, np.int64).reshape(-1, 2).T
    number = len(clusters)
    if number < 2 or predicted.sum() == 0:
        return None
    rng = np.random.default_rng(0)
    resampled = rng.integers(0, number, (_DRAWS, number))
    # twice as many as needed on average, so that almost every draw reaches the count
    many = min(math.ceil(2 * count / predicted.mean()) + 10, _MOST_CLUSTERS)
    drawn = np.take_along_axis(resampled, rng.integers(0, number, (_DRAWS, many)), axis=1)
    found = predicted[drawn].cumsum(axis=1)
    last = np.minimum((found < count).sum(axis=1), many - 1)[:, None]
    sums = np.take_along_axis(found, last, axis=1)[:, 0]
    there = np.take_along_axis(true[drawn].cumsum(axis=1), last, axis=1)[:, 0]
    is_known = sums > 0
    if not is_known.any():
        return None
    sums, ratios = sums[is_known], there[is_known] / sums[is_known]
    ratio = true.sum() / predicted.sum()
    widened = np.sqrt(number / rng.chisquare(number - 1, len(sums)))
    expected = count * np.maximum(ratio + (ratios - ratio) * widened, 0)
    # ratios of drawn clusters vary by themselves, as much as that of as many objects
    variance = count * np.maximum(1 - count / sums, 0) * _variance(true, predicted, ratio)
    low, high = np.quantile(_varied(expected, variance, rng), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return round(float(low)), round(float(high))


def _variance(true: np.ndarray, predicted: np.ndarray, ratio: float) -> float:
    """Variance of the true number per predicted object: between clusters, and of one more cluster by Poisson."""
    squares = (true - ratio * predicted) ** 2 / np.maximum(predicted, 1)
    return float((squares.sum() + ratio) / len(true))


def _varied(expected: np.ndarray, variance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    is_varied = (expected > 0) & (variance > 0)
    mean, spread = expected[is_varied], variance[is_varied]
    varied = expected.copy()
    varied[is_varied] = rng.gamma(mean**2 / spread, spread / mean)
    return varied
