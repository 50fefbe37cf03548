"""The gate on metrics of objects: contributions of clusters, promotions, and minimum scores."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest

from segcore.comparison.cluster_sums import ClusterSums, cluster_sums, run_scores
from segcore.comparison.compare import Contestant, compare
from segcore.errors import DataError
from segcore.metrics import METRICS
from segcore.params import Params
from segcore.params.operations import Gate
from segcore.promotion.gate import Candidate, Costs, Decision, decide
from segcore.promotion.interval import contributions, difference_interval, foreground_shares
from segcore.promotion.scoring import score
from segcore.tables.objects import objects_table
from tests.support.object_tables import Mask
from tests.support.scored_objects import counts_of, fast_image, rectangle

CLASSES = ["background", "building"]
METRICS_OF_OBJECTS = ["pq", "f1_50", "ap", "ap_dsb", "aji", "count_error", "count_bias", "object_boundary_f1"]


def tables(skill: float, seed: int, clusters: int = 12) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Counts and objects of a model that finds each of 9 objects of an image with probability `skill`."""
    rng, parts, names = np.random.default_rng(seed), [], []
    places = [(row, col) for row in (1, 11, 21) for col in (1, 11, 21)]
    for cluster in range(clusters):
        names.append((f"i{cluster:02d}", f"c{cluster:02d}"))
        true = [Mask(rectangle(*place, 6, 6)) for place in places]
        predicted = [
            Mask(rectangle(row + int(rng.integers(2)), col, 6, 6), 1, float(rng.uniform(0.5, 1)))
            for row, col in places
            if rng.random() < skill
        ]
        wrong = int(rng.binomial(3, (1 - skill) / 2))
        predicted += [Mask(rectangle(28, 10 * n, 3, 3), 1, float(rng.uniform(0, 0.9))) for n in range(wrong)]
        parts.append(fast_image(true, predicted, *names[-1]))
    return counts_of(names, CLASSES), objects_table(parts)


def run(counts: pd.DataFrame, objects: pd.DataFrame) -> ClusterSums:
    return cluster_sums(counts, [1], objects, 0.1)


@pytest.mark.parametrize("metric", ["pq", "ap", "count_error"])
def test_a_swap_of_clusters_reverses_their_contributions(metric: str) -> None:
    key, (counts, a), (_, b) = f"{metric}/dataset/foreground_mean", tables(0.6, 0, 5), tables(0.8, 1, 5)
    parts = contributions(run(counts, a), run(counts, b), key)
    difference = run_scores(run(counts, b))[key] - run_scores(run(counts, a))[key]
    assert parts.sum() == pytest.approx(difference, abs=0.02) and abs(difference) > 0.05
    for swap in range(32):
        which = {f"c{index:02d}": bool(swap >> index & 1) for index in range(5)}
        moved = [table["cluster"].map(which).to_numpy() for table in (a, b)]
        one = pd.concat([a[~moved[0]], b[moved[1]]], ignore_index=True)
        other = pd.concat([b[~moved[1]], a[moved[0]]], ignore_index=True)
        signs = np.where(list(which.values()), -1, 1)
        swapped = contributions(run(counts, one), run(counts, other), key)
        assert swapped == pytest.approx(signs * parts, abs=1e-12)


def test_a_cluster_without_objects_has_no_part_in_the_interval() -> None:
    counts, a = tables(0.6, 0)
    objects_of_c3 = (a["cluster"] == "c03") & (a["kind"] != "image")
    empty = a[~objects_of_c3]
    shares = foreground_shares(run(counts, empty), run(counts, empty), "pq")
    assert shares[3] == 0 and (np.delete(shares, 3) > 0).all()
    # a prediction below the operating score counts in average precision only
    low = fast_image([], [Mask(rectangle(1, 1, 3, 3), 1, 0.05)], "i03", "c03")
    with_low = objects_table([empty[empty["cluster"] != "c03"], low])
    shown = [foreground_shares(run(counts, with_low), run(counts, empty), name)[3] for name in ("pq", "ap")]
    assert shown[0] == 0 and shown[1] > 0


def test_the_interval_of_a_signed_metric_contains_the_difference_of_distances_from_zero() -> None:
    counts, a = tables(0.9, 0)
    _, b = tables(0.9, 1)
    # the first finds too few, the second too many
    few = a[(a["prediction"] <= 5)]
    extra = [
        fast_image([], [Mask(rectangle(0, 5 * n, 2, 2), 1, 0.95) for n in range(3)], f"i{c:02d}", f"c{c:02d}")
        for c in range(12)
    ]
    numbered = pd.concat(extra)
    numbered = numbered[numbered["kind"] == "prediction"].assign(prediction=lambda t: t["prediction"] + 100)
    many = objects_table([b, numbered])
    key, one, other = "count_bias/dataset/foreground_mean", run(counts, few), run(counts, many)
    of_one, of_other = run_scores(one)[key], run_scores(other)[key]
    assert of_one < 0 < of_other
    low, high = difference_interval(one, other, key, 0.025, 1000, 0)
    assert low <= abs(of_other) - abs(of_one) <= high


def test_biases_of_classes_that_cancel_are_no_reason_to_keep_a_model() -> None:
    def of_two_classes(name: str, numbers: tuple[int, int]) -> Candidate:
        """A model that predicts these numbers of buildings and trees; there are three of each."""
        masks = [[Mask(rectangle(5 * n, 16 * k, 4, 4), k + 1) for n in range(6)] for k in range(2)]
        true = [mask for of_class in masks for mask in of_class[:3]]
        predicted = [mask for of_class, n in zip(masks, numbers, strict=True) for mask in of_class[:n]]
        names = [(f"i{c:02d}", f"c{c:02d}") for c in range(12)]
        table = objects_table([fast_image(true, predicted, *one) for one in names])
        counts = counts_of(names, [*CLASSES, "tree"])
        return Candidate(
            name, name.upper(), 0.5, counts, counts.iloc[:0], Costs(10, 800, 20), None, table, 0.1
        )

    # -67 % and +67 % against +33 % of both
    old, new = of_two_classes("old", (1, 5)), of_two_classes("new", (4, 4))
    for champion, challenger, outcome in ((old, new, "promoted"), (new, old, "kept")):
        decision = decide(
            champion, [challenger], Gate(bootstrap=400), "count_bias", [1, 2], [*CLASSES, "tree"], 0
        )
        assert decision.outcome == outcome


def candidate(name: str, skill: float, seed: int) -> Candidate:
    counts, objects = tables(skill, seed)
    return Candidate(
        name, name.upper(), skill, counts, counts.iloc[:0], Costs(10, 800, 20), None, objects, 0.1
    )


def judge(metric: str, old: Candidate | None, new: Candidate, **gate: object) -> Decision:
    decision = decide(old, [new], Gate(bootstrap=400, **gate), metric, [1], CLASSES, 0)
    json.dumps(asdict(decision), allow_nan=False)
    return decision


@pytest.mark.parametrize("metric", METRICS_OF_OBJECTS)
def test_the_better_model_is_promoted_by_every_kind_of_metric(metric: str) -> None:
    old, new = candidate("old", 0.55, 0), candidate("new", 0.95, 1)
    decision = judge(metric, old, new)
    if metric == "object_boundary_f1":
        # of found objects only, which are equally good
        assert decision.outcome == "kept"
        return
    gain = decision.challengers[0].difference["frozen"]
    assert decision.outcome == "promoted" and gain.low > 0 and gain.low <= gain.difference <= gain.high
    assert judge(metric, new, old).outcome == "kept"
    same = judge(metric, old, candidate("new", 0.55, 0))
    assert same.outcome == "kept" and same.challengers[0].difference["frozen"].difference == 0


def test_minimum_scores_are_of_objects() -> None:
    new = candidate("new", 0.7, 1)
    score = run_scores(run(new.frozen, new.objects))["pq/dataset/building"]
    for floor, allowed in ((score - 0.01, True), (score + 0.01, False)):
        assert judge("pq", None, new, floors={"building": floor}).challengers[0].allowed == allowed
    (found,) = (
        r
        for r in judge("pq", None, new, floors={"background": 0.1}).challengers[0].rules
        if r.kind == "floor"
    )
    assert found.passed is False and "has no object of this class" in found.note
    error = run_scores(run(new.frozen, new.objects))["count_bias/dataset/building"]
    for floor, allowed in ((abs(error) + 0.01, True), (abs(error) - 0.01, False)):
        assert judge("count_bias", None, new, floors={"building": floor}).challengers[0].allowed == allowed
    sliced = new.frozen.assign(
        **{"slice.site": ["a" if item < "i06" else "b" for item in new.frozen["item"]]}
    )
    rows = sliced[sliced["slice.site"] == "a"]
    of_slice = run_scores(cluster_sums(rows, [1], new.objects, 0.1))["pq/dataset/building"]
    with_slices = Candidate(**{**vars(new), "frozen": sliced})
    for floor, allowed in ((of_slice - 0.001, True), (of_slice + 0.001, False)):
        decision = judge("pq", None, with_slices, floors={"site=a": floor})
        assert decision.challengers[0].allowed == allowed


@pytest.mark.parametrize("metric", ["recall_small", "recall_large", "pq"])
def test_minimum_scores_of_slices_are_the_slices_of_the_comparison(metric: str) -> None:
    """In one half of the images all objects are smaller than those of the other."""
    rng, parts, names = np.random.default_rng(0), [], []
    for image in range(12):
        side = 4 + 2 * (image >= 6)
        true = [
            Mask(rectangle(r, c, side + n % 2, side)) for n, (r, c) in enumerate([(1, 1), (1, 16), (16, 1)])
        ]
        names.append((f"i{image:02d}", f"c{image:02d}"))
        parts.append(fast_image(true, [t for t in true if rng.random() < 0.6], *names[-1]))
    counts = counts_of(names, CLASSES)
    counts["slice.site"] = ["b" if item >= "i06" else "a" for item in counts["item"]]
    objects = objects_table(parts)
    data = {"name": "x", "source": "x", "classes": CLASSES, "colors": [[0, 0, 0], [9, 9, 9]]}
    p = Params.model_validate(
        {
            "architectures": ["unet"],
            "seeds": [0],
            "data": data | {"label_values": {0: 0, 1: 1}, "instances": True},
            "split": {"fractions": {"train": 0.5, "validation": 0.2, "test": 0.3}},
            "prepare": {"window": 32, "stride": 16},
            "train": {"common": {"steps": 10, "batch": 2, "crop": 32, "validate_every": 5}},
            "compare": {"metric": metric, "bootstrap": 100, "permutations": 100},
        }
    )
    summary = {"parameters": 1, "macs": 1, "receptive_field": 1, "objects": {"score": 0.1}}
    compared = compare([Contestant("unet", "U-Net", "model", [counts], [summary], [objects])], p, "group")
    one = Candidate("unet", "U-Net", 0.9, counts, counts.iloc[:0], Costs(10, 800, 20), None, objects, 0.1)
    decision = judge(metric, None, one, floors={"site=a": 0.1, "site=b": 0.1})
    floors = {r.rule: r.measured for r in decision.challengers[0].rules if r.kind == "floor"}
    assert floors == {
        f"site={found.text}": pytest.approx(found.scores["unet"].estimate, abs=1e-6)
        for found in compared.slices
    }
    # the new batch has the limits of the frozen test set too
    halves = [counts[counts["slice.site"] == site] for site in "ab"]
    both = score(replace(one, frozen=halves[0], new=halves[1]), [1], metric)
    assert both.new.objects.limits == both.both.objects.limits == both.frozen.objects.limits


def test_limits_of_errors_are_called_the_highest_allowed_values() -> None:
    new = candidate("new", 0.7, 1)
    error = run_scores(run(new.frozen, new.objects))
    for metric, title in (("count_error", "value"), ("count_bias", "distance from 0")):
        value = 100 * error[f"{metric}/dataset/building"]
        reason = judge(metric, None, new, floors={"building": 0.01}).reason
        assert reason.endswith(
            f"but it exceeds the highest allowed {title} of building (value of building: {value:.1f} %; required: at "
            "most 1.0 %)."
        )
        assert judge(metric, None, new, floors={"building": 0.99}).reason.endswith(
            "limits of scores and cost limits."
        )
    assert (
        "does not meet the minimum score of building"
        in judge("pq", None, new, floors={"building": 1.0}).reason
    )


def test_margins_are_in_the_unit_of_the_metric() -> None:
    old, new = candidate("old", 0.55, 0), candidate("new", 0.95, 1)
    gain = judge("count_error_area", old, new).challengers[0].difference["frozen"]
    assert gain.low > 10
    decision = judge("count_error_area", old, new, margin=gain.low - 1)
    assert decision.outcome == "promoted" and f"required: above +{gain.low - 1:g};" in decision.reason
    assert judge("count_error_area", old, new, margin=gain.low + 1).outcome == "kept"
    worse = judge("count_error_area", new, old, not_worse=1e6).challengers[0]
    assert next(r for r in worse.rules if r.kind == "not_worse").passed


def test_candidates_without_objects_are_refused_for_metrics_of_objects_only() -> None:
    one = candidate("new", 0.7, 1)
    none = Candidate(**{**vars(one), "objects": None})
    assert judge("iou", None, none).outcome == "first"
    with pytest.raises(DataError, match=r"compare\.metric is pq, but the evaluation of NEW has no objects"):
        judge("pq", None, none)
    assert METRICS["pq"].of_objects
