"""Bootstrap, permutation test and Holm, against plain loops, scipy and statsmodels."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from segcore.comparison import statistics
from segcore.comparison.cluster_sums import ClusterSums, cluster_sums, run_scores
from segcore.errors import DataError
from segcore.metrics import EMPTY_RATE
from segcore.metrics.scores import scores as table_scores
from segcore.tables import counts

CLASSES = ["background", "building"]
KEYS = [
    "iou/dataset/foreground_mean",
    "iou/image/building",
    "pixel_accuracy/dataset",
    "boundary_f1/image/all_mean",
]


def table(
    skill: float, seed: int, clusters: int = 6, images: int = 2, foreground: float = 0.3
) -> pd.DataFrame:
    """A table of random maps that are right with probability `skill`; the truth is always the same."""
    rng = np.random.default_rng(1000 + seed)
    rows = []
    for cluster in range(clusters):
        for image in range(images):
            truth = np.random.default_rng([cluster, image]).random((12, 12))
            label = (truth < foreground * (cluster + 1) / clusters).astype(np.uint8)
            prediction = np.where(rng.random(label.shape) < skill, label, 1 - label).astype(np.uint8)
            rows.append((f"{cluster}-{image}", f"cluster-{cluster:02d}", counts.count(prediction, label, 2)))
    return counts.counts_table(rows, CLASSES)


def sums(*args: float, **keywords: float) -> ClusterSums:
    return cluster_sums(table(*args, **keywords), [1])


def test_scores_from_cluster_sums_are_the_scores_of_the_table() -> None:
    for foreground in (0.3, 0.02):  # the second leaves images empty
        rows = table(0.8, 0, foreground=foreground)
        expected = table_scores(rows, [1])
        assert run_scores(cluster_sums(rows, [1])) == pytest.approx(expected, abs=1e-12)
    assert EMPTY_RATE in expected


@pytest.mark.parametrize("key", KEYS)
def test_bootstrap_equals_a_loop_that_repeats_rows(key: str) -> None:
    tables = [table(0.8, 0), table(0.7, 1)]
    draws = statistics.bootstrap([cluster_sums(t, [1]) for t in tables], draws=5, seed=3)[key]
    rng = np.random.default_rng(3)
    weights = rng.multinomial(6, np.full(6, 1 / 6), size=5)
    seeds = rng.multinomial(2, [0.5, 0.5], size=5)
    for draw in range(5):
        scores = []
        for rows, times in zip(tables, seeds[draw], strict=True):
            copies = [
                rows[rows["cluster"] == name].assign(item=lambda t, n=n: t["item"] + f" copy {n}")
                for name, repeat in zip(sorted(set(rows["cluster"])), weights[draw], strict=True)
                for n in range(repeat)
            ]
            scores += [table_scores(pd.concat(copies), [1])[key]] * times
        assert draws[draw] == pytest.approx(np.mean(scores), abs=1e-12)


def test_intervals_are_deterministic_contain_the_score_and_narrow_with_clusters() -> None:
    key = KEYS[0]
    widths = []
    for clusters in (5, 80):
        run = sums(0.8, 0, clusters=clusters)
        draws = statistics.bootstrap([run], draws=400, seed=1)[key]
        assert np.array_equal(draws, statistics.bootstrap([run], draws=400, seed=1)[key])
        assert not np.array_equal(draws, statistics.bootstrap([run], draws=400, seed=2)[key])
        low, high = statistics.interval(draws, 0.95)
        assert low < run_scores(run)[key] < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_interval_of_image_mean_covers_the_truth_about_as_often_as_its_confidence() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(150):
        tp = rng.integers(0, 101, 40)
        zero = np.zeros(40, dtype=np.int64)
        rows = pd.DataFrame(dict.fromkeys(counts.COUNTS, zero) | {"tp": tp, "fn": 100 - tp, "pixels": 100})
        rows = rows.assign(item=[f"{i:02d}" for i in range(40)], class_index=0, class_name="organ")
        rows["cluster"] = rows["item"]
        draws = statistics.bootstrap([cluster_sums(rows, [0])], draws=300, seed=trial)
        low, high = statistics.interval(draws["recall/image/organ"], 0.9)
        covered += low <= 0.5 <= high
    assert 0.82 < covered / 150 < 0.96


def test_several_seeds_widen_the_interval_when_they_disagree() -> None:
    one = statistics.bootstrap([sums(0.8, 0)], draws=500)[KEYS[0]]
    three = statistics.bootstrap([sums(0.7, 0), sums(0.8, 0), sums(0.9, 0)], draws=500)[KEYS[0]]
    assert three.std() > 1.5 * one.std()


@pytest.mark.parametrize("key", ["iou/image/building", "dice/image/all_mean"])
@pytest.mark.parametrize("skills", [(0.8, 0.79), (0.8, 0.75)])
def test_permutation_of_an_image_mean_equals_scipy(key: str, skills: tuple[float, float]) -> None:
    a, b = (table(skill, seed, clusters=9, images=1) for seed, skill in enumerate(skills))
    p = statistics.permutation_test([cluster_sums(a, [1])], [cluster_sums(b, [1])], key)

    def by_image(rows: pd.DataFrame) -> list[float]:
        return [table_scores(rows[rows["item"] == item], [1])[key] for item in sorted(set(rows["item"]))]

    theirs = scipy.stats.permutation_test(
        (by_image(a), by_image(b)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert p == pytest.approx(theirs.pvalue, abs=1e-9)


def test_permutation_of_a_pooled_score_equals_a_loop_that_swaps_tables() -> None:
    key = KEYS[0]
    pairs = [(table(0.8, s, clusters=4), table(0.77, s + 5, clusters=4)) for s in range(2)]

    def difference(swap: int) -> float:
        values = []
        for a, b in pairs:
            taken = a["cluster"].map(lambda name: bool(swap >> int(name[-2:]) & 1)).to_numpy()
            swapped_a, swapped_b = pd.concat([a[~taken], b[taken]]), pd.concat([b[~taken], a[taken]])
            values.append(table_scores(swapped_a, [1])[key] - table_scores(swapped_b, [1])[key])
        return float(np.mean(values))

    differences = np.abs([difference(swap) for swap in range(16)])
    runs_a, runs_b = ([cluster_sums(pair[i], [1]) for pair in pairs] for i in (0, 1))
    p = statistics.permutation_test(runs_a, runs_b, key)
    assert p == (differences >= differences[0] - 1e-12).mean()
    assert p == statistics.permutation_test(runs_b, runs_a, key)


def test_permutation_finds_a_real_difference_and_none_between_equals() -> None:
    good, bad = sums(0.95, 0, clusters=20), sums(0.7, 1, clusters=20)
    assert statistics.permutation_test([good], [bad], KEYS[0], permutations=999) == pytest.approx(0.001)
    assert statistics.permutation_test([good], [good], KEYS[0], permutations=99) == 1.0
    few = statistics.permutation_test([sums(0.95, 0)], [sums(0.7, 1)], KEYS[0])
    assert few == statistics.smallest_p(6, 5000) == 2 / 64


def test_permutation_p_is_uniform_when_nothing_differs() -> None:
    p_values = [
        statistics.permutation_test([sums(0.8, 2 * i, images=1)], [sums(0.8, 2 * i + 1, images=1)], KEYS[0])
        for i in range(80)
    ]
    assert np.mean(np.array(p_values) <= 0.05) < 0.12
    assert 0.4 < np.mean(p_values) < 0.65


def test_holm_equals_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 10):
        p_values = (rng.random(size) ** 3).round(2)  # rounded: ties occur
        expected = multipletests(p_values, method="holm")[1]
        assert statistics.holm(p_values.tolist()) == pytest.approx(expected)
    assert statistics.holm([]) == []


def test_runs_on_other_images_are_refused() -> None:
    with pytest.raises(DataError, match="differ in their test images"):
        statistics.permutation_test([sums(0.8, 0)], [sums(0.8, 0, clusters=5)], KEYS[0])
    with pytest.raises(DataError, match="2 seeds against 1"):
        statistics.permutation_test([sums(0.8, 0), sums(0.8, 1)], [sums(0.8, 0)], KEYS[0])
