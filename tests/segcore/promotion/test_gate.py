"""The gate: each rule separately, its sentences, and properties that always hold."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segcore.errors import DataError, ParamsError
from segcore.gate_rules import Finding
from segcore.metrics import METRICS, pixel
from segcore.metrics.scores import scores
from segcore.params.operations import Gate
from segcore.promotion.gate import Candidate, Costs, Decision, decide
from segcore.promotion.rule_text import looks_text, smallest_text
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


def test_a_clearly_better_challenger_is_promoted_and_the_sentence_names_the_figures() -> None:
    decision = judge(candidate(0.9, "old"), candidate(0.97, "new", seed=1))
    assert (decision.outcome, decision.winner) == ("promoted", "new")
    found = decision.challengers[0]
    assert found.by == "better" and rule(decision, "better").measured == found.difference["frozen"].low
    gain, both = found.difference["frozen"], found.difference["both"]
    assert decision.reason == (
        f"Promoted NEW ({100 * found.scores['frozen']:.1f} %) in place of OLD "
        f"({100 * decision.champion.scores['frozen']:.1f} %): {100 * gain.difference:+.1f} points, 95 % interval "
        f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}, required: above +0.0; not faster. On the new batch: "
        f"{100 * found.difference['new'].difference:+.1f} points in 4 clusters, and {100 * both.low:+.1f} to "
        f"{100 * both.high:+.1f} with all test images."
    )


def test_a_kept_champion_is_reported_with_score_interval_and_cost() -> None:
    old = replace(candidate(0.9, "unet"), version=1)
    new = replace(candidate(0.9, "new", seed=1), title="UNET", costs=Costs(9.5, 800, 20))
    decision = judge(old, new)
    found = decision.challengers[0]
    gain = found.difference["frozen"]
    low, high = 100 * gain.low, 100 * gain.high
    assert decision.reason == (
        f"Kept UNET (version 1, {100 * decision.champion.scores['frozen']:.1f} %). The new UNET scores "
        f"{100 * found.scores['frozen']:.1f} % ({100 * gain.difference:+.1f} points, 95 % interval {low:+.1f} to "
        f"{high:+.1f}) and is 5 % faster; required: above +0.0 points, or above -1.0 and 20 % faster."
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


def test_a_new_batch_of_few_clusters_is_judged_by_its_difference_and_by_all_test_images() -> None:
    old = candidate(0.9, "old", new=table(0.9, 3, 1, "n"))
    for skill, outcome in ((0.95, "promoted"), (0.6, "kept")):
        decision = judge(old, candidate(0.97, "new", seed=1, new=table(skill, 3, 1, "n")))
        found, gains = rule(decision, "not_worse_new"), decision.challengers[0].difference
        assert decision.outcome == outcome and found.note.startswith("1 of 6 clusters")
        assert found.measured == min(gains["new"].difference, gains["both"].low)
        assert gains["new"].low is None
    assert "on the new batch it is not shown to be no worse" in decision.reason
    assert "in 1 cluster, and" in decision.reason and "required: above -1.0 points" in decision.reason


def test_a_small_batch_that_is_better_by_itself_does_not_hide_a_loss_of_all_test_images() -> None:
    """The frozen set alone would do with a large allowed loss; both together decide the rule on the batch."""
    rows = [table(skill, seed, 12) for skill, seed in ((0.9, 0), (0.9, 7))]
    old, new = (
        candidate(0.9, n, frozen=t, new=table(0.9, 3, 2, "n"))
        for n, t in zip(("old", "new"), rows, strict=True)
    )
    better = replace(new, new=table(0.97, 4, 2, "n"), costs=Costs(1, 1, 1))
    gains = judge(old, better).challengers[0].difference
    assert gains["new"].difference > 0 and gains["both"].low < -0.01
    assert rule(judge(old, better), "not_worse_new").passed is False


def test_a_new_batch_of_enough_clusters_is_judged_by_its_own_interval() -> None:
    old = candidate(0.9, "old", new=table(0.9, 3, 8, "n"))
    for skill, outcome in ((0.97, "promoted"), (0.85, "kept")):
        decision = judge(old, candidate(0.97, "new", seed=1, new=table(skill, 4, 8, "n")))
        found = rule(decision, "not_worse_new")
        assert decision.outcome == outcome
        assert found.measured == decision.challengers[0].difference["new"].low


def test_a_new_batch_without_scored_regions_or_foreground_does_not_apply() -> None:
    ignored = table(0.9, 3, 2, "n").assign(**dict.fromkeys(("tp", "fp", "fn", "pixels"), 0))
    rows = [(f"n{i}", f"n{i}", counts.count(*[np.zeros((8, 8), np.uint8)] * 2, 2)) for i in range(8)]
    for new in (EMPTY, ignored, counts.counts_table(rows, CLASSES)):
        decision = judge(candidate(0.9, "old", new=new), candidate(0.97, "new", seed=1, new=new))
        found = rule(decision, "not_worse_new")
        assert (found.measured, found.passed) == (None, None) and found.note.startswith(
            "the new batch has no"
        )
        assert decision.outcome == "promoted" and "new batch" not in decision.reason


def test_no_worse_and_cheaper_is_promoted_by_latency_or_else_by_size() -> None:
    old = candidate(0.97, "old")
    same = {"frozen": old.frozen, "new": old.new}
    for costs, what in ((Costs(7.9, 800, 20), "latency"), (Costs(None, 800, 15.9), "size")):
        decision = judge(old, candidate(0.97, "new", costs=costs, **same))
        assert decision.outcome == "promoted" and rule(decision, "cheaper").rule == f"cheaper: {what}"
        assert {"latency": "21 % faster (required: 20 %)", "size": "20 % smaller"}[what] in decision.reason
        assert (
            "and no worse: +0.0 points, 95 % interval +0.0 to +0.0, required: above -1.0" in decision.reason
        )
    for costs in (Costs(8.1, 1, 1), Costs(None, 1, 17), Costs()):
        assert judge(old, candidate(0.97, "new", costs=costs, **same)).outcome == "kept"
    cheap_and_worse = judge(old, candidate(0.9, "new", seed=1, costs=Costs(1, 1, 1)))
    assert cheap_and_worse.outcome == "kept"
    assert "90 % faster; required: above +0.0 points, or above -1.0 and 20 % faster" in cheap_and_worse.reason


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
    assert decision.outcome == "refused" and not rule(decision, "floor").passed
    assert "no pixel of this class" in rule(decision, "floor").note


def test_the_first_champion_is_the_best_by_validation_that_meets_the_limits() -> None:
    better, worse = candidate(0.97, "better", costs=Costs(20)), candidate(0.9, "worse", costs=Costs(5))
    assert judge(None, worse, better).winner == "better"
    decision = judge(None, worse, better, gate=Gate(ceilings={"latency_ms": 10}))
    assert (decision.outcome, decision.winner, decision.champion) == ("first", "worse", None)
    none = judge(None, better, gate=Gate(ceilings={"latency_ms": 10}))
    assert none.outcome == "refused" and none.winner is None and "latency" in none.reason
    single = candidate(0.9, frozen=table(0.9, clusters=1), new=EMPTY)
    assert judge(None, single).outcome == "first", "no interval is needed without a champion"


def test_with_too_few_clusters_the_champion_stays_and_the_sentence_says_how_many_are_missing() -> None:
    for clusters in (1, 2, 3, 5):
        old, new = (
            candidate(s, n, frozen=table(s, clusters=clusters)) for s, n in ((0.6, "old"), (0.99, "new"))
        )
        decision = judge(replace(old, version=2), replace(new, costs=Costs(1, 1, 1)))
        assert (decision.outcome, decision.winner, decision.best) == ("refused", None, "new")
        assert decision.reason.startswith("Kept OLD (version 2, ")
        have = "1 cluster" if clusters == 1 else f"{clusters} clusters"
        assert f"has {have}, at least 6 are needed: {6 - clusters} more. NEW scores" in decision.reason
        gain = decision.challengers[0].difference["frozen"]
        assert (gain.low, gain.high, gain.smallest) == (None, None, None) and "no interval" in decision.reason
        assert not rule(decision, "better").passed and not rule(decision, "not_worse").passed
    six = (
        candidate(0.9, frozen=table(0.9, clusters=6)),
        candidate(0.99, "new", frozen=table(0.99, 1, clusters=6)),
    )
    assert judge(*six).outcome == "promoted"
    assert judge(*six, candidate(0.5, "third", frozen=table(0.5, clusters=6))).outcome == "refused", (
        "Bonferroni"
    )


def test_without_foreground_nothing_is_shown_however_cheap_the_challenger_is() -> None:
    rows = [(f"i{i}", f"i{i}", counts.count(*[np.zeros((8, 8), np.uint8)] * 2, 2)) for i in range(12)]
    nothing = counts.counts_table(rows, CLASSES)
    for frozen in (nothing, EMPTY):
        new = candidate(0.9, "new", frozen=frozen, costs=Costs(1, 1, 1))
        decision = judge(candidate(0.9, "old", frozen=frozen), new)
        assert decision.outcome == "refused" and "cannot be compared" in decision.reason
        assert "at least 6 are needed: 6 more" in decision.reason and "+0.0" not in decision.reason


@pytest.mark.parametrize("measure", ["IoU", "PQ", "F1 of objects"])
def test_the_validation_score_of_the_first_champion_is_named(measure: str) -> None:
    decision = judge(None, candidate(0.937, measure=measure))
    assert f"it has the best validation score ({measure} 93.7 %)" in decision.reason


def test_a_challenger_whose_scores_are_not_numbers_never_wins_and_hides_no_other() -> None:
    old, failed = candidate(0.9, "old"), candidate(0.97, "failed", seed=1, validation=float("nan"))
    sound = candidate(0.97, "sound", seed=1, validation=0.4)
    alone = judge(old, failed)
    assert (alone.outcome, alone.winner, alone.best) == ("refused", None, None)
    assert "FAILED cannot be judged, because its validation score is not a number" in alone.reason
    for rivals in ((failed, sound), (sound, failed)):
        decision = judge(old, *rivals)
        assert (decision.outcome, decision.winner) == ("promoted", "sound")
        assert decision.reason.endswith("FAILED was left out: its validation score is not a number.")
        first = judge(None, *rivals)
        assert (first.outcome, first.winner) == ("first", "sound") and "FAILED was left out" in first.reason
    none = judge(None, failed)
    assert (none.outcome, none.winner, none.best) == ("refused", None, None)
    assert none.challengers[0].validation is None


def test_a_latency_is_lower_only_where_the_rounds_of_measuring_it_show_that() -> None:
    def cheaper(new: Costs, old: Costs) -> Finding:
        decision = judge(candidate(0.9, "old", costs=old), candidate(0.9, "new", seed=1, costs=new))
        return next(rule for rule in decision.challengers[0].rules if rule.kind == "cheaper")

    old = Costs(10, 800, 20, 9.5, 10.5)
    assert cheaper(Costs(5, 800, 20, 4.8, 5.2), old).passed
    busy = cheaper(Costs(5, 800, 20, 4, 6), old)
    assert (busy.passed, busy.measured, busy.note) == (False, None, "rounds of measuring disagree by 40 %")
    overlap = cheaper(Costs(8, 800, 20, 7.9, 9.5), old)
    assert (overlap.passed, overlap.note) == (False, "intervals of the rounds overlap")
    # a decision of an earlier version has no rounds
    assert cheaper(Costs(5, 800, 20), Costs(10, 800, 20)).passed
    assert cheaper(Costs(9, 800, 20, 8.8, 9.2), old).measured == 0.9, "shown, but not low enough"
    assert cheaper(Costs(9.9, 800, 20, 9.4, 10.3), old).measured is None, "no claim of 1 % faster either"
    assert cheaper(Costs(15, 800, 20, 14, 16), old).measured == 1.5 and cheaper(old, old).measured == 1


def test_costs_that_are_not_numbers_count_as_not_measured() -> None:
    decision = judge(
        candidate(0.9, "old"), candidate(0.9, "new", seed=1, costs=Costs(float("nan"), None, 15))
    )
    assert decision.challengers[0].costs == Costs(None, None, 15)
    assert rule(decision, "cheaper").rule == "cheaper: size"


def test_a_first_champion_needs_no_costs_without_limits() -> None:
    decision = judge(None, candidate(0.9, costs=Costs()))
    assert decision.outcome == "first" and decision.challengers[0].costs == Costs()
    kept = judge(candidate(0.9, "old", costs=Costs()), candidate(0.9, "new", seed=1, costs=Costs()))
    assert kept.outcome == "kept" and "20 % cheaper" in kept.reason and " and is " not in kept.reason


def test_the_smallest_difference_that_would_have_been_enough_is_that_of_the_margin() -> None:
    old, new = candidate(0.9, "old"), candidate(0.92, "new", seed=1)
    for margin in (0.0, 0.02):
        decision = judge(old, new, gate=GATE.model_copy(update={"margin": margin}))
        gain = decision.challengers[0].difference["frozen"]
        half = max(gain.difference - gain.low, (gain.high - gain.low) / 2)
        assert gain.smallest == pytest.approx(margin + half, abs=1e-6)
        text = smallest_text(decision.challengers[0], decision.basis)
        assert text.startswith("With 24 test images in 12 clusters, an improvement must exceed about ")
        assert f"about {100 * gain.smallest:.2g} points" in text
    few = judge(*(candidate(0.9, n, frozen=table(0.9, clusters=3)) for n in ("old", "new")))
    assert smallest_text(few.challengers[0], few.basis) == (
        "With 6 test images in 3 clusters, no improvement can be shown: 3 clusters with foreground, at least 6 are "
        "needed: 3 more."
    )


def test_the_number_of_looks_is_in_the_basis_and_in_words() -> None:
    decision = decide(candidate(0.9, "old"), [candidate(0.9)], GATE, "iou", [1], CLASSES, 0, looks=7)
    assert decision.basis.looks == 7
    assert looks_text(decision.basis).startswith("This is decision 7 against a champion on this test set;")
    assert looks_text(judge(None, candidate(0.9)).basis) == ""


def test_for_a_metric_where_lower_is_better_the_lower_score_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    flipped = replace(METRICS["iou"], function=lambda c: 1 - pixel.iou(c), higher_is_better=False)
    monkeypatch.setitem(METRICS, "iou", flipped)
    old, new = candidate(0.9, "old"), candidate(0.97, "new", seed=1)
    decision = judge(old, new)
    assert decision.outcome == "promoted" and decision.challengers[0].difference["frozen"].low > 0
    assert judge(new, old).outcome == "kept"


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
