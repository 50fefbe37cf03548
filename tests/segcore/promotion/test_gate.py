"""The gate: intervals against scipy's paired bootstrap, each rule separately, and properties that always hold."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from segcore.errors import DataError, ParamsError
from segcore.gate_rules import Finding
from segcore.metrics.scores import scores
from segcore.params.operations import Gate
from segcore.promotion.gate import Candidate, Costs, Decision, decide
from segcore.tables import counts

CLASSES = ["background", "building"]
GATE = Gate(bootstrap=400)


def table(skill: float, seed: int = 0, clusters: int = 12, prefix: str = "c") -> pd.DataFrame:
    """Counts of random maps, correct with probability `skill`; two images per cluster, always the same truth."""
    rng, rows = np.random.default_rng(seed), []
    for cluster in range(clusters):
        for image in range(2):
            truth = np.random.default_rng([cluster, image]).random((16, 16))
            label = (truth < 0.4 * (cluster + 1) / clusters).astype(np.uint8)
            wrong = rng.random(label.shape) > skill
            prediction = np.where(wrong, 1 - label, label).astype(np.uint8)
            name = f"{prefix}{cluster:02d}"
            rows.append((f"{name}-{image}", name, counts.count(prediction, label, 2)))
    return counts.counts_table(rows, CLASSES)


EMPTY = table(0.9).iloc[:0]


def candidate(skill: float, name: str = "unet", seed: int = 0, **over: object) -> Candidate:
    made = Candidate(
        name, name.upper(), skill, table(skill, seed), table(skill, seed + 50, 4, "n"), Costs(10, 800, 20)
    )
    return replace(made, **over)


def judge(champion: Candidate | None, *challengers: Candidate, gate: Gate = GATE) -> Decision:
    decision = decide(champion, list(challengers), gate, "iou", [1], CLASSES, 0)
    json.dumps(asdict(decision), allow_nan=False)
    assert len(decision.reason) > 40 and "None" not in decision.reason and "nan" not in decision.reason
    return decision


def rule(decision: Decision, kind: str, of: int = 0) -> Finding:
    return next(r for r in decision.challengers[of].rules if r.kind == kind)


def test_the_interval_is_that_of_scipys_paired_bootstrap() -> None:
    old, new = candidate(0.9, "old"), candidate(0.92, "new", seed=1)
    gate = Gate(bootstrap=20_000, confidence=0.9)
    mine = judge(old, new, gate=gate).challengers[0].difference["frozen"]

    def by_cluster(rows: pd.DataFrame) -> list[np.ndarray]:
        sums = rows[rows["class_index"] == 1].groupby("cluster")[["tp", "fp", "fn"]].sum()
        return [sums["tp"].to_numpy(), sums.sum(axis=1).to_numpy()]

    def difference(tp_a, union_a, tp_b, union_b, axis=-1):
        return tp_b.sum(axis) / union_b.sum(axis) - tp_a.sum(axis) / union_a.sum(axis)

    theirs = scipy.stats.bootstrap(
        (*by_cluster(old.frozen), *by_cluster(new.frozen)), difference, paired=True, vectorized=True,
        n_resamples=20_000, confidence_level=0.9, method="percentile", rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    width = theirs.high - theirs.low
    assert mine.low == pytest.approx(theirs.low, abs=0.04 * width)
    assert mine.high == pytest.approx(theirs.high, abs=0.04 * width)


def test_the_interval_is_that_of_a_loop_that_draws_the_same_clusters_for_both() -> None:
    old, new = candidate(0.9, "old"), candidate(0.92, "new", seed=1)
    found = judge(old, new, gate=Gate(bootstrap=100)).challengers[0].difference["frozen"]
    drawn = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), size=100)
    differences = []
    for times in drawn:
        found_scores = []
        for rows in (new.frozen, old.frozen):
            copies = [
                rows[rows["cluster"] == f"c{index:02d}"].assign(item=lambda t, n=n: t["item"] + f" {n}")
                for index, repeat in enumerate(times)
                for n in range(repeat)
            ]
            found_scores.append(scores(pd.concat(copies), [1])["iou/dataset/building"])
        differences.append(found_scores[0] - found_scores[1])
    low, high = np.quantile(differences, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)


def test_a_clearly_better_challenger_is_promoted_and_the_sentence_names_the_figures() -> None:
    decision = judge(candidate(0.9, "old"), candidate(0.97, "new", seed=1))
    assert (decision.outcome, decision.winner) == ("promoted", "new")
    found = decision.challengers[0]
    assert found.by == "better" and rule(decision, "better").measured == found.difference["frozen"].low
    for value in vars(found.difference["frozen"]).values():
        assert f"{100 * value:+.1f}" in decision.reason
    assert "NEW replaces OLD as champion" in decision.reason and "margin of 0.0" in decision.reason


def test_a_kept_champion_is_reported_with_score_interval_and_cost() -> None:
    old = replace(candidate(0.9, "unet"), version=1)
    new = replace(candidate(0.9, "new", seed=1), title="UNET", costs=Costs(9.5, 800, 20))
    decision = judge(old, new)
    found = decision.challengers[0]
    gain = found.difference["frozen"]
    low, high = 100 * gain.low, 100 * gain.high
    assert decision.reason == (
        f"Kept the champion (UNET, version 1). The new UNET scores the same: {100 * found.scores['frozen']:.1f} % "
        f"on the frozen test images (difference between {low:+.1f} and {high:+.1f} points), and is 5 % faster "
        "(20 % would be needed)."
    )


def test_the_margin_decides() -> None:
    old, new = candidate(0.9, "old"), candidate(0.97, "new", seed=1)
    low = judge(old, new).challengers[0].difference["frozen"].low
    for margin, outcome in ((low - 0.001, "promoted"), (low, "kept"), (low + 0.001, "kept")):
        assert judge(old, new, gate=GATE.model_copy(update={"margin": margin})).outcome == outcome


def test_worse_on_the_new_batch_is_not_promoted() -> None:
    old, new = candidate(0.9, "old"), candidate(0.97, "new", seed=1, new=table(0.8, 9, 4, "n"))
    decision = judge(old, new)
    assert decision.outcome == "kept" and "on the new batch it is not shown to be no worse" in decision.reason
    assert judge(old, replace(new, new=EMPTY)).outcome == "promoted", "nothing of the batch is tested"
    assert rule(judge(old, replace(new, new=EMPTY)), "not_worse_new").measured is None


def test_with_one_cluster_in_the_new_batch_the_difference_itself_decides() -> None:
    old = candidate(0.9, "old", new=table(0.9, 3, 1, "n"))
    for skill, outcome in ((0.95, "promoted"), (0.6, "kept")):
        decision = judge(old, candidate(0.97, "new", seed=1, new=table(skill, 3, 1, "n")))
        assert decision.outcome == outcome and "one cluster" in rule(decision, "not_worse_new").note


def test_no_worse_and_cheaper_is_promoted_by_latency_or_else_by_size() -> None:
    old = candidate(0.97, "old")
    same = {"frozen": old.frozen, "new": old.new}
    for costs, what in ((Costs(7.9, 800, 20), "latency"), (Costs(None, 800, 15.9), "size")):
        decision = judge(old, candidate(0.97, "new", costs=costs, **same))
        assert decision.outcome == "promoted" and rule(decision, "cheaper").rule == f"cheaper: {what}"
        assert f"its {what} is 79 % of the champion's" in decision.reason or what == "size"
    for costs in (Costs(8.1, 1, 1), Costs(None, 1, 17), Costs()):
        assert judge(old, candidate(0.97, "new", costs=costs, **same)).outcome == "kept"
    cheap_and_worse = judge(old, candidate(0.9, "new", seed=1, costs=Costs(1, 1, 1)))
    assert cheap_and_worse.outcome == "kept"
    assert "not shown to be no worse on the frozen test set" in cheap_and_worse.reason


def test_a_better_one_that_exceeds_a_limit_is_blocked_and_the_limit_is_named() -> None:
    old, new = candidate(0.9, "old"), candidate(0.99, "new", seed=1)
    limits = {
        "latency": {"ceilings": {"latency_ms": 9.9}},
        "memory": {"ceilings": {"memory_mb": 799}},
        "size": {"ceilings": {"size_mb": 19}},
        "building": {"floors": {"building": 0.999}},
    }
    for word, values in limits.items():
        decision = judge(old, new, gate=Gate.model_validate({"bootstrap": 200, **values}))
        assert decision.outcome == "kept" and word in decision.reason, decision.reason
    unmeasured = judge(old, replace(new, costs=Costs()), gate=Gate(ceilings={"latency_ms": 99}))
    assert unmeasured.outcome == "kept" and "not measured" in unmeasured.reason


def test_a_minimum_score_of_a_class_without_pixels_is_not_met() -> None:
    bare = table(0.99).query("cluster == 'c99'")
    rows = [(f"i{i}", f"i{i}", counts.count(*[np.zeros((8, 8), np.uint8)] * 2, 2)) for i in range(4)]
    empty_truth = counts.counts_table(rows, CLASSES)
    assert bare.empty
    old = candidate(0.9, "old", frozen=empty_truth)
    decision = judge(old, candidate(0.9, "new", frozen=empty_truth), gate=Gate(floors={"building": 0.1}))
    assert decision.outcome == "kept" and "no pixel of this class" in decision.reason


def test_the_first_champion_is_the_best_by_validation_that_meets_the_limits() -> None:
    better, worse = candidate(0.97, "better", costs=Costs(20)), candidate(0.9, "worse", costs=Costs(5))
    assert judge(None, worse, better).winner == "better"
    decision = judge(None, worse, better, gate=Gate(ceilings={"latency_ms": 10}))
    assert (decision.outcome, decision.winner, decision.champion) == ("first", "worse", None)
    none = judge(None, better, gate=Gate(ceilings={"latency_ms": 10}))
    assert none.outcome == "refused" and none.winner is None and "latency" in none.reason
    single = candidate(0.9, frozen=table(0.9, clusters=1), new=EMPTY)
    assert judge(None, single).outcome == "first", "no interval is needed without a champion"


def test_fewer_than_two_clusters_are_refused() -> None:
    for rows in (table(0.9, clusters=1), EMPTY):
        decision = judge(candidate(0.9, "old", frozen=rows), candidate(0.99, "new", frozen=rows))
        assert decision.outcome == "refused" and "at least two" in decision.reason


def test_without_a_challenger_the_champion_stays() -> None:
    assert judge(candidate(0.9, "old")).outcome == "kept"
    assert judge(None).outcome == "refused"


def test_the_error_rate_is_divided_among_challengers_and_the_best_wins() -> None:
    old = candidate(0.9, "old")
    rivals = [candidate(0.96, "good", seed=1), candidate(0.98, "best", seed=2), candidate(0.5, "bad", seed=3)]
    decision = judge(old, *rivals)
    assert decision.winner == "best" and decision.basis.comparisons == 3
    assert decision.basis.confidence_each == pytest.approx(1 - 0.05 / 3, abs=1e-6)
    alone = judge(old, rivals[0]).challengers[0].difference["frozen"]
    shared = decision.challengers[0].difference["frozen"]
    assert shared.low < alone.low and shared.high > alone.high


def test_unknown_classes_and_other_regions_are_errors() -> None:
    with pytest.raises(ParamsError, match="'roof', which is not a class"):
        judge(None, candidate(0.9), gate=Gate(floors={"roof": 0.5}))
    with pytest.raises(DataError, match="differ in their test images"):
        judge(candidate(0.9), candidate(0.9, frozen=table(0.9, clusters=5)))


skills = st.floats(0.55, 0.99)


@settings(max_examples=25, deadline=None)
@given(skill=skills, margin=st.floats(0, 0.5), seed=st.integers(0, 99))
def test_identical_tables_and_costs_never_promote(skill: float, margin: float, seed: int) -> None:
    one = candidate(skill, "old", seed)
    gate = Gate(bootstrap=100, margin=margin, not_worse=0.5)
    assert judge(one, replace(one, name="new", title="NEW"), gate=gate).outcome == "kept"


@settings(max_examples=25, deadline=None)
@given(a=skills, b=skills, seed=st.integers(0, 99), margins=st.tuples(st.floats(0, 0.4), st.floats(0, 0.4)))
def test_a_higher_margin_never_promotes_more(a: float, b: float, seed: int, margins: tuple) -> None:
    old, new = candidate(a, "old", seed), candidate(b, "new", seed + 1)
    lenient, strict = (
        judge(old, new, gate=Gate(bootstrap=100, margin=margin)).outcome for margin in sorted(margins)
    )
    assert strict == "kept" or lenient == "promoted"


@settings(max_examples=25, deadline=None)
@given(a=skills, b=skills, seed=st.integers(0, 99), name=st.sampled_from(CLASSES), champion=st.booleans())
def test_a_minimum_score_that_is_not_met_always_blocks(
    a: float, b: float, seed: int, name: str, champion: bool
) -> None:
    new = candidate(b, "new", seed + 1, costs=Costs(1, 1, 1))
    reached = scores(new.frozen, [1])[f"iou/dataset/{name}"]
    gate = Gate(bootstrap=100, floors={name: min(reached + 1e-6, 1)}, not_worse=0.9)
    if reached < 1:
        assert judge(candidate(a, "old", seed) if champion else None, new, gate=gate).winner is None
