"""The interval of the gate: exact under swaps, against scipy's test, and how often an equal model is promoted."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import scipy.stats

from segcore.comparison.cluster_sums import ClusterSums, run_scores
from segcore.params.operations import Gate
from segcore.promotion.figures import Basis
from segcore.promotion.interval import (
    contributions,
    difference_interval,
    foreground_shares,
    required_clusters,
)
from segcore.promotion.scoring import gain
from segcore.tables.counts import COUNTS

KEY = "iou/dataset/foreground_mean"
ERROR = 0.025


def sums(tp: np.ndarray, size: np.ndarray, classes: int = 2) -> ClusterSums:
    """Counts of a model that finds `tp` of `size` pixels of the last class, and predicts as many wrong as it misses."""
    clusters = len(size)
    foreground = {"tp": tp, "fp": size - tp, "fn": size - tp}
    counts = {name: np.zeros((clusters, classes)) for name in COUNTS}
    for name, values in foreground.items():
        counts[name][:, -1] = values
    names = tuple(f"c{index:03d}" for index in range(clusters))
    kinds = tuple(f"class {index}" for index in range(classes))
    return ClusterSums(
        names,
        names,
        kinds,
        (classes - 1,),
        counts | {"images": np.ones(clusters), "empty": np.zeros(clusters)},
    )


def swapped(a: ClusterSums, b: ClusterSums, which: np.ndarray) -> tuple[ClusterSums, ClusterSums]:
    def mixed(one: ClusterSums, other: ClusterSums) -> ClusterSums:
        counts = {n: np.where(which[:, None], other.sums[n], one.sums[n]) for n in COUNTS}
        return ClusterSums(one.clusters, one.items, one.classes, one.foreground, one.sums | counts)

    return mixed(a, b), mixed(b, a)


def pair(rng: np.random.Generator, clusters: int, shift: float = 0.0) -> tuple[ClusterSums, ClusterSums]:
    size = rng.integers(50, 900, clusters).astype(float)
    a, b = (np.floor(size * np.clip(rng.normal(0.7 + s, 0.05, clusters), 0, 1)) for s in (0, shift))
    return sums(a, size), sums(b, size)


def test_a_swap_of_clusters_reverses_exactly_their_contributions() -> None:
    a, b = pair(np.random.default_rng(0), 7, 0.03)
    parts = contributions(a, b, KEY)
    difference = run_scores(b)[KEY] - run_scores(a)[KEY]
    assert parts.sum() == pytest.approx(difference, abs=1e-4)
    for which in product([False, True], repeat=7):
        one, other = swapped(a, b, np.array(which))
        assert (contributions(one, other, KEY) == np.where(which, -parts, parts)).all()
        assert (foreground_shares(one, other) == foreground_shares(a, b)).all()


@pytest.mark.parametrize("clusters", [6, 9, 12])
def test_the_ends_are_those_of_scipys_test_by_swaps(clusters: int) -> None:
    a, b = pair(np.random.default_rng(clusters), clusters, 0.02)
    parts, weights = contributions(a, b, KEY), foreground_shares(a, b)
    low, high = difference_interval(a, b, KEY, ERROR, 5000, 0)

    def p_value(limit: float, side: str) -> float:
        found = scipy.stats.permutation_test(
            (parts - limit * weights,), np.sum, permutation_type="samples", n_resamples=np.inf,
            alternative=side, vectorized=True,
        )  # fmt: skip
        return float(found.pvalue)

    assert p_value(low - 1e-9, "greater") <= ERROR < p_value(low + 1e-9, "greater")
    assert p_value(high + 1e-9, "less") <= ERROR < p_value(high - 1e-9, "less")


def test_below_the_required_number_of_clusters_there_is_no_interval() -> None:
    assert [required_clusters(e) for e in (0.25, 0.2, 0.05, 0.025, 0.0125, 0.5**12)] == [2, 3, 5, 6, 7, 12]
    rng = np.random.default_rng(1)
    for clusters in (1, 2, 5, 6, 7):
        assert (difference_interval(*pair(rng, clusters), KEY, ERROR, 2000, 0) is None) == (clusters < 6)


def test_clusters_without_foreground_show_nothing() -> None:
    a, b = pair(np.random.default_rng(2), 8, 0.1)
    for run in (a, b):
        for name in ("tp", "fp", "fn"):
            run.sums[name][:3] = 0
    assert difference_interval(a, b, KEY, ERROR, 2000, 0) is None
    low, _ = difference_interval(a, b, KEY, 0.05, 2000, 0)
    assert low > 0, "five clusters with foreground are enough at 90 %"


def test_many_clusters_use_a_group_of_swaps_that_depends_on_the_seed_only() -> None:
    a, b = pair(np.random.default_rng(3), 60, 0.02)
    found = [difference_interval(a, b, KEY, ERROR, 2000, seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert found[0] == pytest.approx(difference_interval(a, b, KEY, ERROR, 2**15, 5), abs=2e-3)
    few = difference_interval(a, b, KEY, 1e-6, 2000, 0)
    assert few[0] < found[0][0] and few[1] > found[0][1], "an error rate below that of the swaps widens it"


Noise = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray, np.ndarray]]


def _equal(rng: np.random.Generator, clusters: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.full(clusters, 400.0), *(rng.normal(0, 0.05, clusters) for _ in range(2))


def _heavy_tailed(rng: np.random.Generator, clusters: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.full(clusters, 400.0), *(0.03 * rng.standard_t(2, clusters) for _ in range(2))


def _unequal_sizes(rng: np.random.Generator, clusters: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    size = np.floor(400 * np.exp(1.5 * rng.normal(size=clusters))) + 1
    return size, *(rng.normal(0, 0.05, clusters) for _ in range(2))


@pytest.mark.parametrize("noise", [_equal, _heavy_tailed, _unequal_sizes])
def test_an_equal_model_is_shown_to_be_better_no_more_often_than_the_confidence_says(noise: Noise) -> None:
    """With a percentile bootstrap it was 25 % with two clusters and 8 % with six, where 2.5 % are allowed."""
    gate = Gate()
    basis = Basis("iou", KEY, {}, {}, gate.confidence, 1, gate.confidence, 256, 0, gate.model_dump())
    rng, nights, counts = np.random.default_rng(7), 250, {}
    for clusters in (2, 3, 6, 8, 12, 20):
        counts[clusters] = 0
        for _ in range(nights):
            size, first, second = noise(rng, clusters)
            runs = [sums(np.floor(size * np.clip(0.7 + n, 0, 1)), size) for n in (first, second)]
            found = gain(runs[1], runs[0], 1, basis)
            counts[clusters] += found.low is not None and found.low > 0
    # a rate of 2.5 % exceeds these with a probability of 0.1 %
    each, together = (scipy.stats.binom.ppf(0.999, n, ERROR) for n in (nights, nights * len(counts)))
    assert max(counts.values()) <= each and sum(counts.values()) <= together, counts
    assert sum(counts[n] for n in (6, 8, 12, 20)) > 5, "it is not refused altogether"


def test_a_better_model_is_found_about_as_often_as_by_a_bootstrap() -> None:
    """A difference of two standard errors is found in about half of the cases, as by any test at this level."""
    rng, found = np.random.default_rng(8), 0
    for _ in range(200):
        size = np.full(20, 400.0)
        a, b = (np.floor(size * np.clip(rng.normal(q, 0.05, 20), 0, 1)) for q in (0.7, 0.735))
        found += difference_interval(sums(a, size), sums(b, size), KEY, ERROR, 500, 0)[0] > 0
    assert 80 <= found <= 140, found
