"""The gate on distances of surfaces: lower is better, intervals of patients, limits in mm."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from segcore.comparison.cluster_sums import cluster_sums
from segcore.errors import DataError
from segcore.metrics import METRICS
from segcore.params.operations import Gate
from segcore.promotion.gate import Candidate, Costs, Decision, decide
from segcore.promotion.interval import contributions, difference_interval, foreground_shares
from segcore.promotion.rule_text import measures_text, tolerance_text
from tests.segcore.comparison.test_surfaces import patients
from tests.support.scored_volumes import CLASSES, tables

KEY = "hd95/dataset/foreground_mean"
NEAR, FAR = [0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 1], [3, 2, 3, 3, 4, 2, 3, 3, 2, 4, 3, 3]


def candidate(name: str, steps: list[int], new: list[int] | None = None) -> Candidate:
    """A candidate with patients of the frozen test set, and of a new batch."""
    counts, surfaces = tables(patients(*steps, *(new or [])))
    is_new = counts["cluster"] >= f"p{len(steps):02d}"
    frozen, of_new = counts[~is_new], counts[is_new]
    return Candidate(name, name.upper(), 0.5, frozen, of_new, Costs(10, 800, 20), surfaces=surfaces)


def decided(champion: Candidate, *challengers: Candidate, metric: str = "hd95", **gate: Any) -> Decision:
    return decide(champion, list(challengers), Gate(**gate), metric, [1], CLASSES, 0)


def test_a_smaller_distance_is_promoted_and_a_larger_one_is_not():
    near, far = candidate("near", NEAR), candidate("far", FAR)
    found = decided(as_champion(far), near)
    assert (found.outcome, found.winner) == ("promoted", "near")
    assert (
        "NEAR (1 mm) in place of FAR (version 1, 5.833 mm): better by 4.833 mm, 95 % interval of the gain +"
        in found.reason
    )
    kept = decided(as_champion(near), far)
    assert kept.outcome == "kept" and "FAR scores 5.833 mm (worse by 4.833 mm, 95 % interval" in kept.reason
    assert "required: above +0 mm, or above -0.01 mm and 20 % faster" in kept.reason
    finding = next(rule for rule in kept.challengers[0].rules if rule.kind == "better")
    assert measures_text(finding, METRICS["hd95"]) == "lower end of the gain's interval"


@pytest.mark.parametrize(
    ("metric", "tolerance", "expected"),
    [("hd95", 0.01, True), ("assd", 0.01, True), ("hd95", 0.5, False), ("nsd", 0.01, False)],
)
def test_a_tolerance_left_at_the_default_of_scores_in_percent_is_named(metric, tolerance, expected):
    near, far = candidate("near", NEAR), candidate("far", FAR)
    text = tolerance_text(decided(as_champion(far), near, metric=metric, not_worse=tolerance).basis)
    assert text.startswith("gate.not_worse is 0.01 mm, the default") if expected else text == ""


def as_champion(one: Candidate) -> Candidate:
    return replace(one, version=1)


def test_equal_models_are_exchanged_neither_way():
    one, other = candidate("one", NEAR), candidate("other", NEAR[::-1])
    assert decided(as_champion(one), other, cheaper=0.5).outcome == "kept"


def test_the_new_batch_is_scored_by_its_own_patients():
    champion = as_champion(candidate("far", FAR, [0] * 6))
    challenger = candidate("near", NEAR, [4] * 6)
    found = decided(champion, challenger, not_worse=0.5)
    (one,) = found.challengers
    assert one.scores == {"frozen": 1.0, "new": 8.0}
    assert found.outcome == "kept" and "on the new batch it is not shown to be no worse" in found.reason
    assert "mm" in found.reason and "points" not in found.reason


def test_a_new_batch_without_volumes_is_not_scored():
    near, far = candidate("near", NEAR, [1]), candidate("far", FAR, [1])
    near, far = (
        replace(one, surfaces=one.surfaces[one.surfaces["cluster"] < f"p{len(NEAR):02d}"])
        for one in (near, far)
    )
    found = decided(as_champion(far), near)
    assert found.outcome == "promoted" and found.challengers[0].scores["new"] is None


def test_a_limit_is_the_highest_allowed_distance():
    champion, challenger = as_champion(candidate("far", FAR)), candidate("near", NEAR)
    found = decided(champion, challenger, floors={"building": 0.5})
    assert found.outcome == "kept"
    assert (
        "highest allowed value of building (value of building: 1 mm; required: at most 0.5 mm)"
        in found.reason
    )
    assert decided(champion, challenger, floors={"building": 1.5}).outcome == "promoted"


def test_contributions_are_the_differences_of_patients_over_their_number():
    runs = [
        cluster_sums(t, [1], surface_table=s) for t, s in (tables(patients(*each)) for each in (NEAR, FAR))
    ]
    assert contributions(*runs, KEY) == pytest.approx(2.0 * np.subtract(FAR, NEAR) / len(NEAR))
    assert foreground_shares(*runs, "hd95") == pytest.approx(np.full(len(NEAR), 1 / len(NEAR)))
    low, high = difference_interval(*runs, KEY, 0.025, 4096, 0)
    assert 0 < low < 2 * np.subtract(FAR, NEAR).mean() < high


def test_candidates_without_volumes_are_refused_for_metrics_of_surfaces_only():
    near, far = (replace(candidate(n, s), surfaces=None) for n, s in (("near", NEAR), ("far", FAR)))
    with pytest.raises(DataError, match="no volumes with a spacing"):
        decided(as_champion(far), near)
    assert decided(as_champion(far), near, metric="iou").outcome == "promoted"
