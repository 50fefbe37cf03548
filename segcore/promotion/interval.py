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

from segcore.comparison.cluster_sums import ClusterSums, run_scores, weighted_scores
from segcore.metrics import METRICS
from segcore.metrics.object_sums import by_cluster

_ROUNDING = 1e-9


def required_clusters(error: float) -> int:
    """Smallest number of clusters that can show a difference with this one-sided error rate."""
    return math.ceil(math.log2(1 / error) - _ROUNDING)


def foreground_shares(a: ClusterSums, b: ClusterSums, metric: str = "iou") -> np.ndarray:
    """Each cluster's fraction of the foreground, true or predicted by either model, `(C,)`; mean of the classes.

    Args:
        a: sums over clusters.
        b: sums over the same clusters.
        metric: name in `segcore.metrics.METRICS`; foreground is pixels, objects for metrics of objects, or groups that
            count for a class for metrics of surfaces, whose scores are means of groups.
    """
    foreground = list(a.foreground)
    area = (_extent(a, metric) + _extent(b, metric))[:, foreground]
    share = area / np.maximum(area.sum(0), 1)
    return np.asarray(share.sum(1) / max(share.sum(), _ROUNDING))


def _extent(run: ClusterSums, metric: str) -> np.ndarray:
    """Pixels, or objects, in truth or prediction of each cluster, or whether it counts for a class, (C, K)."""
    if METRICS[metric].of_surfaces:
        assert run.surfaces is not None
        return run.surfaces.sums["counted/dataset"]
    if not METRICS[metric].of_objects:
        return np.asarray(run.sums["tp"] + run.sums["fp"] + run.sums["fn"])
    assert run.objects is not None
    return by_cluster(run.objects.extent(metric), run.cluster_of, len(run.clusters))


def contributions(a: ClusterSums, b: ClusterSums, key: str) -> np.ndarray:
    """Contribution of each cluster to the difference b minus a in a pooled score, `(C,)`.

    It is the difference between two models that are equal, midway between a and b, in all other clusters. It changes
    its sign if the two models are swapped in the cluster. All sum to the difference, except for terms of third order.

    Args:
        a: sums over clusters.
        b: sums over the same clusters.
        key: key of a `dataset` score.
    """
    # a middle model is half of a and half of b; in its own cluster each is the whole
    own, others = np.eye(len(a.clusters)), np.full((1, len(a.clusters)), 0.5)
    more, less = others + own / 2, others - own / 2
    above, below = (weighted_scores([a, b], weights, [key])[key] for weights in ([less, more], [more, less]))
    compared = METRICS[key.partition("/")[0]].compared
    return np.asarray(compared(above) - compared(below))


def _difference(a: ClusterSums, b: ClusterSums, key: str) -> float:
    compared = METRICS[key.partition("/")[0]].compared
    of_a, of_b = (compared(run_scores(run, [key])[key]) for run in (a, b))
    return float(of_b - of_a)


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
    weights = foreground_shares(a, b, key.partition("/")[0])
    parts = contributions(a, b, key)
    if METRICS[key.partition("/")[0]].is_signed:
        # distances from 0 do not add up if the two models are on opposite sides of it
        parts = parts + (_difference(a, b, key) - parts.sum()) * weights
    parts, weights = parts[weights > 0], weights[weights > 0]
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
