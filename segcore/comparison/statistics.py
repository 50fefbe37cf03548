"""Uncertainty of scores and differences: cluster bootstrap, paired permutation test, Holm's correction.

Images of one cluster (a patient, a scene, a block of a scene) resemble each other, so whole clusters are resampled
and swapped. All statistics are computed from sums over clusters; draws are matrix products with these sums.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from segcore.errors import DataError
from segcore.metrics import EMPTY_RATE
from segcore.metrics.scores import empty_images, keyed
from segcore.tables.counts import COUNTS, as_arrays

# up to this number of clusters all 2^clusters swaps are tried
EXACT_CLUSTERS = 12
_TIE = 1e-12


@dataclass(frozen=True)
class ClusterSums:
    """One run (an architecture and a seed) as sums over each cluster's images.

    Attributes:
        clusters: C names, sorted.
        items: names of all images.
        classes: K names.
        foreground: indices of the foreground classes.
        sums: counts `(C, K)` by COUNTS; image scores `(C,)` by score key; numbers of images `(C,)`: "images", "empty"
            (without true foreground) and "hallucinated" (empty, with predicted foreground).
    """

    clusters: tuple[str, ...]
    items: tuple[str, ...]
    classes: tuple[str, ...]
    foreground: tuple[int, ...]
    sums: dict[str, np.ndarray]


def cluster_sums(table: pd.DataFrame, foreground: Sequence[int]) -> ClusterSums:
    """Sum an evaluation table over clusters; `foreground` contains class indices.

    Raises:
        DataError: the table is incomplete.
    """
    evaluation = as_arrays(table)
    empty, hallucinated = empty_images(evaluation.counts, foreground)
    values = {name: evaluation.counts[name] for name in COUNTS}
    values |= keyed(evaluation.counts, "image", evaluation.classes, foreground)
    values |= {"images": np.ones(len(empty)), "empty": empty, "hallucinated": hallucinated}
    names, index = np.unique(evaluation.clusters.astype(str), return_inverse=True)
    # (C, I): which images belong to a cluster
    member = (np.arange(len(names))[:, None] == index).astype(np.float64)
    return ClusterSums(
        tuple(names.tolist()),
        tuple(evaluation.items.tolist()),
        tuple(evaluation.classes),
        tuple(foreground),
        {name: member @ value for name, value in values.items()},
    )


def _scores(sums: Mapping[str, np.ndarray], like: ClusterSums) -> dict[str, np.ndarray]:
    """Every score of sums `(...)` or `(..., K)`, by score key; the empty-image rate is NaN without an empty image."""
    result = keyed({name: sums[name] for name in COUNTS}, "dataset", like.classes, like.foreground)
    images = np.maximum(sums["images"], 1)
    result |= {key: values / images for key, values in sums.items() if "/image" in key}
    if like.sums["empty"].any():
        rate = sums["hallucinated"] / np.maximum(sums["empty"], 1)
        result[EMPTY_RATE] = np.where(sums["empty"] > 0, rate, np.nan)
    return result


def run_scores(run: ClusterSums) -> dict[str, float]:
    """Every score of one run on the whole test set, equal to those of `segcore.metrics.scores.scores`."""
    total = {name: values.sum(0) for name, values in run.sums.items()}
    return {key: float(value) for key, value in _scores(total, run).items()}


def seed_scores(runs: Sequence[ClusterSums]) -> dict[str, np.ndarray]:
    """Every score of each seed's run, `(S,)`."""
    each = [run_scores(run) for run in runs]
    return {key: np.array([scores[key] for scores in each]) for key in each[0]}


def bootstrap(runs: Sequence[ClusterSums], draws: int = 2000, seed: int = 0) -> dict[str, np.ndarray]:
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

    Returns:
        score key -> `(B,)`; the empty-image rate is NaN in draws without an empty image.
    """
    require_same(runs)
    rng = np.random.default_rng(seed)
    clusters, seeds = len(runs[0].clusters), len(runs)
    # how often each cluster is drawn, (B, C), and the weight of each seed, (B, S)
    drawn_clusters = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=draws)
    weights = drawn_clusters.astype(np.float64)
    seed_weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    total: dict[str, np.ndarray] = {}
    for index, run in enumerate(runs):
        drawn = _scores({name: weights @ values for name, values in run.sums.items()}, run)
        for key, values in drawn.items():
            total[key] = total.get(key, 0.0) + seed_weights[:, index] * values
    return total


def interval(draws: np.ndarray, confidence: float) -> tuple[float, float]:
    """Percentile interval of bootstrap draws `(B,)`; NaN is left out."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def permutation_test(
    a: Sequence[ClusterSums], b: Sequence[ClusterSums], key: str, permutations: int = 5000, seed: int = 0
) -> float:
    """Two-sided p of the difference between two architectures in one score, averaged over seeds.

    Under the null hypothesis the two architectures are exchangeable within a cluster: their counts are swapped
    cluster by cluster, for all seeds together. For up to 12 clusters all swaps are tried; otherwise `permutations`
    random ones, with p = (1 + number as extreme) / (1 + permutations) (Phipson and Smyth 2010).

    Accounts for the choice of test clusters, given the trained models: a significant difference is one between these
    trainings, which represent the architectures better if there are several seeds. With C clusters p is never below
    `smallest_p(C, permutations)`.

    Args:
        a: one run per seed of the first architecture.
        b: the same for the second one: as many runs, on the same items.
        key: a score key.
        permutations: random swaps for more than 12 clusters.
        seed: random seed of the swaps.

    Raises:
        DataError: the runs are not on the same items and clusters, or differ in number.
    """
    if len(a) != len(b):
        raise DataError(f"{len(a)} seeds against {len(b)}", "evaluate both architectures with the same seeds")
    require_same([*a, *b])
    clusters = len(a[0].clusters)
    if clusters <= EXACT_CLUSTERS:
        # (P, C) of 0 and 1; the first row swaps nothing
        swaps = (np.arange(2**clusters)[:, None] >> np.arange(clusters)) & 1
    else:
        swaps = np.random.default_rng(seed).integers(0, 2, (permutations, clusters))
    observed = np.mean(seed_scores(a)[key] - seed_scores(b)[key])
    permuted = np.zeros(len(swaps))
    for one, other in zip(a, b, strict=True):
        moved = {name: swaps @ (other.sums[name] - one.sums[name]) for name in one.sums}
        of_a = _scores({name: one.sums[name].sum(0) + moved[name] for name in moved}, one)[key]
        of_b = _scores({name: other.sums[name].sum(0) - moved[name] for name in moved}, other)[key]
        permuted += (of_a - of_b) / len(a)
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


def require_same(runs: Sequence[ClusterSums]) -> None:
    """Check that all runs were scored on the same images.

    Raises:
        DataError: images, clusters or classes differ.
    """
    first = runs[0]
    for run in runs[1:]:
        if (run.items, run.clusters, run.classes) != (first.items, first.clusters, first.classes):
            raise DataError(
                f"evaluations differ in their test images: {len(first.items)} in {len(first.clusters)} "
                f"clusters against {len(run.items)} in {len(run.clusters)}",
                "evaluate all architectures and seeds on the same prepared data",
            )
