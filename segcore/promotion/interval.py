"""Interval of the difference between two models by swaps of whole clusters, exact for any number of clusters.

If two models are equally good, their counts in a cluster are exchangeable: each swap of some clusters between them is
as likely as what was observed (Fisher 1935, "The Design of Experiments"; Pitman 1937). A swap of one cluster reverses
the sign of its contribution to the difference, and of no other. The interval contains the differences that the test by
swaps does not reject, which are those between two ranks of the differences of subsets of clusters (Hartigan 1969,
JASA 64:1303). With few clusters all swaps are tried, otherwise a group of swaps, which keeps the test exact (Hemerik
and Goeman 2018, TEST 27:811).

A percentile bootstrap of few clusters is too narrow: with two, it shows a model that is no better to be better in a
quarter of cases.
"""

import math

import numpy as np

from segcore.comparison.statistics import ClusterSums
from segcore.metrics.scores import keyed
from segcore.tables.counts import COUNTS

_ROUNDING = 1e-9


def required_clusters(error: float) -> int:
    """Smallest number of clusters that can show a difference with this one-sided error rate."""
    return math.ceil(math.log2(1 / error) - _ROUNDING)


def foreground_shares(a: ClusterSums, b: ClusterSums) -> np.ndarray:
    """Each cluster's fraction of the foreground, true or predicted by either model, `(C,)`; mean of the classes."""
    foreground = list(a.foreground)
    area = sum((run.sums["tp"] + run.sums["fp"] + run.sums["fn"])[:, foreground] for run in (a, b))
    share = area / np.maximum(area.sum(0), 1)
    return np.asarray(share.sum(1) / max(share.sum(), _ROUNDING))


def contributions(a: ClusterSums, b: ClusterSums, key: str) -> np.ndarray:
    """Contribution of each cluster to the difference b minus a in a pooled score, `(C,)`.

    It is the difference between two models that are equal, midway between a and b, in all other clusters. It changes
    its sign if the two models are swapped in the cluster. All sum to the difference, except for terms of third order.

    Args:
        a: sums over clusters.
        b: sums over the same clusters.
        key: key of a `dataset` score.
    """
    half = {name: (b.sums[name] - a.sums[name]) / 2 for name in COUNTS}
    middle = {name: (b.sums[name] + a.sums[name]).sum(0) / 2 for name in COUNTS}
    above, below = (
        keyed({n: middle[n] + side * half[n] for n in COUNTS}, "dataset", a.classes, a.foreground)[key]
        for side in (1, -1)
    )
    return np.asarray(above - below)


def _subsets(clusters: int, draws: int, seed: int) -> tuple[np.ndarray, int]:
    """Swapped clusters of each swap as rows of 0 and 1, without swaps of no cluster; and the number of all swaps.

    The swaps are all combinations of generators: of single clusters, or of random sets of clusters if single clusters
    had more than `draws` combinations.
    """
    count = min(clusters, math.ceil(math.log2(draws)))
    combinations = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    if count < clusters:
        generators = np.random.default_rng(seed).integers(0, 2, (count, clusters))
        combinations = (combinations @ generators) & 1
    return combinations[combinations.any(1)].astype(np.float64), 2**count


def difference_interval(
    a: ClusterSums, b: ClusterSums, key: str, error: float, draws: int, seed: int
) -> tuple[float, float] | None:
    """Interval of the difference b minus a in a pooled score; None with fewer than `required_clusters`.

    For a b that is no better than a, the lower end is above 0 with a probability of at most `error`, and likewise above
    any other difference, if it is one of all clusters alike. Clusters without foreground are left out.

    Args:
        a: sums over clusters.
        b: sums over the same clusters.
        key: key of a `dataset` score.
        error: probability of a difference beyond either end.
        draws: number of swaps, rounded up to a power of two; with fewer possible swaps, all.
        seed: random seed of the swaps.
    """
    weights = foreground_shares(a, b)
    parts, weights = contributions(a, b, key)[weights > 0], weights[weights > 0]
    if len(parts) < required_clusters(error):
        return None
    subsets, swaps = _subsets(len(parts), draws, seed)
    differences = np.sort((subsets @ parts) / (subsets @ weights))
    # swaps of no cluster are beyond every end, and the first rank excludes nothing
    rank = math.floor(error * swaps + _ROUNDING) - (swaps - len(differences)) + 1
    if rank < 1:
        # too few swaps for this error rate; the extremes of single clusters contain those of all subsets
        each = parts / weights
        return float(each.min()), float(each.max())
    return float(differences[rank - 1]), float(differences[-rank])
