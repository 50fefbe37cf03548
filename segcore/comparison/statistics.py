"""Uncertainty of scores and differences: cluster bootstrap, paired permutation test, Holm's correction.

Images of one cluster (a patient, a scene, a block of a scene) resemble each other, so whole clusters are resampled
and swapped. A resampled test set is a weight for each cluster, and all scores are functions of these weights
(segcore.comparison.cluster_sums).
"""

from collections.abc import Collection, Sequence

import numpy as np

from segcore.comparison.cluster_sums import ClusterSums, require_same, weighted_scores
from segcore.errors import DataError
from segcore.metrics import METRICS

# up to this number of clusters all 2^clusters swaps are tried
EXACT_CLUSTERS = 12
_TIE = 1e-12


def bootstrap(
    runs: Sequence[ClusterSums], draws: int = 2000, seed: int = 0, keys: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """Scores of `draws` resampled test sets, averaged over resampled seeds.

    Each draw resamples all clusters with replacement and, independently, all seeds. The same numbers of clusters,
    seeds and draws and the same random seed give the same resamples, so draws of two architectures are paired: their
    differences are draws of the difference.

    Accounts for the choice of test clusters, and of seeds if there are several. Does not account for the
    choice of training data, nor, with one seed, for the seed. With fewer than about ten clusters, or with two
    or three seeds, its intervals are too narrow.

    Args:
        runs: one run per seed, of one architecture, all on the same items.
        draws: number of draws, B.
        seed: random seed of the resampling.
        keys: score keys; None: all.

    Returns:
        score key -> `(B,)`; the empty-image rate is NaN in draws without an empty image.
    """
    require_same(runs)
    weights, seed_weights = _resamples(len(runs[0].clusters), len(runs), draws, seed)
    total: dict[str, np.ndarray] = {}
    for index, run in enumerate(runs):
        for key, values in weighted_scores([run], [weights], keys).items():
            total[key] = total.get(key, 0.0) + seed_weights[:, index] * values
    return total


def _resamples(clusters: int, seeds: int, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each cluster is drawn, (B, C), and the weight of each seed, (B, S)."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=draws).astype(np.float64)
    return drawn, rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds


def interval(draws: np.ndarray, confidence: float) -> tuple[float, float]:
    """Percentile interval of bootstrap draws `(B,)`; NaN is left out."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def permutation_test(
    a: Sequence[ClusterSums],
    b: Sequence[ClusterSums],
    key: str,
    permutations: int = 5000,
    seed: int = 0,
    ensembles: bool = False,
) -> float:
    """Two-sided p of the difference between two architectures in one score, averaged over seeds.

    Under the null hypothesis the two architectures are exchangeable within a cluster: their counts and objects are
    swapped cluster by cluster, for all seeds together. For up to 12 clusters all swaps are tried; otherwise
    `permutations` random ones, with p = (1 + number as extreme) / (1 + permutations) (Phipson and Smyth 2010).

    Accounts for the choice of test clusters, given the trained models: a significant difference is one between these
    trainings, which represent the architectures better if there are several seeds. With C clusters p is never below
    `smallest_p(C, permutations)`.

    Args:
        a: one run per seed of the first architecture.
        b: the same for the second one: as many runs, on the same items.
        key: a score key.
        permutations: random swaps for more than 12 clusters.
        seed: random seed of the swaps.
        ensembles: one of both is an ensemble, whose one run is compared with each run of the other.

    Raises:
        DataError: the runs are not on the same items and clusters, or differ in number.
    """
    if len(a) != len(b) and not (ensembles and min(len(a), len(b)) == 1):
        raise DataError(f"{len(a)} seeds against {len(b)}", "evaluate both architectures with the same seeds")
    require_same([*a, *b])
    runs = max(len(a), len(b))
    a, b = [*a] * (runs // len(a)), [*b] * (runs // len(b))
    clusters = len(a[0].clusters)
    if clusters <= EXACT_CLUSTERS:
        # (P, C) of 0 and 1; the first row swaps nothing
        swaps = (np.arange(2**clusters)[:, None] >> np.arange(clusters)) & 1
    else:
        swaps = np.random.default_rng(seed).integers(0, 2, (permutations, clusters))
    # the first row is the observed difference
    weights = np.concatenate([np.zeros((1, clusters)), swaps])
    of_a, of_b = np.zeros((2, len(weights)))
    for one, other in zip(a, b, strict=True):
        of_a += weighted_scores([one, other], [1 - weights, weights], [key])[key] / len(a)
        of_b += weighted_scores([one, other], [weights, 1 - weights], [key])[key] / len(a)
    metric = METRICS.get(key.partition("/")[0])
    if metric is not None:
        of_a, of_b = metric.compared(of_a), metric.compared(of_b)
    observed, *permuted = of_a - of_b
    extreme = int((np.abs(permuted) >= abs(observed) - _TIE).sum())
    return extreme / len(swaps) if clusters <= EXACT_CLUSTERS else (1 + extreme) / (1 + len(swaps))


def smallest_p(clusters: int, permutations: int) -> float:
    """The smallest p that `permutation_test` can return."""
    return 2.0 ** (1 - clusters) if clusters <= EXACT_CLUSTERS else 1 / (1 + permutations)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in their order (Holm 1979, a step-down Bonferroni correction)."""
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(p) for p in corrected]
