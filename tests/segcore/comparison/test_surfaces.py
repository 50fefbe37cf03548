"""Surfaces of volumes in comparisons: means of patients, intervals, ranks, slices and texts."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from segcore.comparison.cluster_sums import cluster_sums, run_scores, weighted_scores
from segcore.comparison.compare import Contestant, compare
from segcore.comparison.leaderboard import leaderboard, leaderboard_text
from segcore.comparison.results import Comparison
from segcore.comparison.statistics import bootstrap, interval, permutation_test
from segcore.errors import DataError
from segcore.metrics import METRICS, SURFACE_POLICY, class_metrics
from segcore.metrics.scores import scores
from segcore.tables.slices import PREFIX
from tests.segcore.comparison.test_compare import SUMMARY, parameters
from tests.support.scored_volumes import SHAPE, SPACING, tables

DIAGONAL = float(np.linalg.norm(np.multiply(SHAPE, SPACING)))
HD95 = "hd95/dataset/foreground_mean"


def model(name: str, moved: dict[str, Any], **keywords: Any) -> Contestant:
    counts, surfaces = tables(moved, **keywords)
    summary = SUMMARY | {"title": name.upper(), "surfaces": {"tolerance": 2.0}}
    return Contestant(name, name.upper(), "model", [counts], [summary], surfaces=[surfaces])


def compared(models: list[Contestant], metric: str = "hd95", **data: Any) -> Comparison:
    p = parameters([m.name for m in models], [0])
    p = p.model_copy(update={"compare": p.compare.model_copy(update={"metric": metric})})
    return compare(models, p.model_copy(update=data), "group")


def patients(*steps: Any) -> dict[str, Any]:
    return {
        f"p{number:02d}": (each if isinstance(each, list) else [each]) for number, each in enumerate(steps)
    }


def scored(moved: dict[str, Any]) -> tuple[pd.DataFrame, list[int], None, float, pd.DataFrame]:
    """Arguments of `scores`."""
    counts, surfaces = tables(moved)
    return counts, [1], None, 0.0, surfaces


def test_a_patient_with_many_volumes_counts_as_much_as_one_with_a_single_volume():
    counts, surfaces = tables({"a": [0, 0, 3], "b": [1]})
    found = scores(counts, [1], surfaces=surfaces)
    # planes are 2 mm apart: 0, 0 and 6 mm, and 2 mm
    assert found["hd95/dataset/building"] == pytest.approx((2 + 2) / 2)
    assert found["hd95/image/building"] == pytest.approx((0 + 0 + 6 + 2) / 4)
    by_cluster = run_scores(cluster_sums(counts, [1], surface_table=surfaces))
    assert {key: by_cluster[key] for key in found} == pytest.approx(found)


def test_a_missed_organ_has_the_diagonal_and_one_that_is_nowhere_does_not_count():
    moved = {"a": [1], "b": [None], "c": [None]}
    counts, surfaces = tables(moved, absent=["c"])
    found = scores(counts, [1], surfaces=surfaces)
    assert found["hd95/dataset/building"] == pytest.approx((2 + DIAGONAL) / 2)
    assert found["nsd/dataset/building"] == 0.5
    invented, with_invented = tables(moved | {"c": [0]}, absent=["c"])
    assert scores(invented, [1], surfaces=with_invented)["hd95/dataset/building"] == pytest.approx(
        (2 + 2 * DIAGONAL) / 3
    )


def test_a_class_that_no_volume_has_is_perfect_like_in_every_other_metric():
    counts, surfaces = tables({"a": [None], "b": [None]}, absent=["a", "b"])
    found = scores(counts, [1], surfaces=surfaces)
    assert (found["hd95/dataset/building"], found["nsd/dataset/building"], found["assd/image/building"]) == (
        0,
        1,
        0,
    )
    assert found["iou/dataset/building"] == 1 and not any(np.isnan(value) for value in found.values())


def test_scores_of_resampled_patients_are_those_of_tables_with_these_patients():
    moved = patients([0, 2], 1, None, [3, 1, 0])
    counts, surfaces = tables(moved)
    run = cluster_sums(counts, [1], surface_table=surfaces)
    drawn = np.array([[2.0, 0, 1, 1], [0, 4, 0, 0], [1, 1, 1, 1]])
    weighted = weighted_scores([run], [drawn])
    names = list(moved)
    for row, numbers in enumerate(drawn.astype(int)):
        copies = {
            f"{name}-{copy}": moved[name] for name, n in zip(names, numbers, strict=True) for copy in range(n)
        }
        expected = scores(*scored(copies))
        for metric in class_metrics("surfaces"):
            for aggregate in ("dataset", "image"):
                key = f"{metric}/{aggregate}/building"
                assert weighted[key][row] == pytest.approx(expected[key])


def test_the_interval_is_that_of_resampled_patients():
    values = [0, 1, 2, 3, 1, 0, 2, 1, 1, 2, 0, 3]
    counts, surfaces = tables(patients(*values))
    draws = bootstrap([cluster_sums(counts, [1], surface_table=surfaces)], 4000, 0)[HD95]
    rng = np.random.default_rng(1)
    own = 2 * rng.choice(values, (4000, len(values))).mean(1)
    assert interval(draws, 0.95) == pytest.approx(np.quantile(own, [0.025, 0.975]), abs=0.15)


def test_resamples_without_a_class_are_no_perfect_score_of_it():
    # 6 and 8 mm in two patients of five; the others have neither the organ nor a prediction of it
    moved = patients(3, 4, None, None, None)
    counts, surfaces = tables(moved, absent=["p02", "p03", "p04"])
    draws = bootstrap([cluster_sums(counts, [1], surface_table=surfaces)], 2000, 0)
    assert (draws[HD95].min(), draws[HD95].max()) == (6, 8)
    assert draws["nsd/dataset/building"].max() < 1 and draws["assd/image/building"].min() > 0
    keywords = {"absent": ["p02", "p03", "p04"]}
    worse = patients(4, 6, None, None, None)
    found = compared([model("fcn", worse, **keywords), model("unet", moved, **keywords)])
    (test,) = found.tests
    assert (test.low, test.high) == (-4, -2)


def test_of_a_class_that_one_patient_has_nothing_is_known_about_others():
    moved, keywords = patients(3, None, None), {"absent": ["p01", "p02"]}
    found = compared([model("fcn", patients(4, None, None), **keywords), model("unet", moved, **keywords)])
    best = found.models[0].scores
    assert (best[HD95].estimate, best[HD95].low, best[HD95].high) == (6, None, None)
    share = best["nsd/dataset/building"]
    assert (share.low, share.high) == (0, 1)
    assert (found.tests[0].low, found.tests[0].high, found.tests[0].significant) == (None, None, False)
    assert best["iou/dataset/building"].low is not None


def test_a_class_without_truth_is_perfect_where_it_is_not_predicted():
    moved = patients(0, None, None, None)
    counts, surfaces = tables(moved, absent=list(moved))
    draws = bootstrap([cluster_sums(counts, [1], surface_table=surfaces)], 500, 0)[HD95]
    assert set(draws) == {0.0, DIAGONAL}


def test_the_permutation_test_is_that_of_signs_of_the_differences_of_patients():
    a, b = [0, 1, 2, 3, 1, 0], [1, 2, 2, 4, 3, 0]
    runs = [cluster_sums(t, [1], surface_table=s) for t, s in (tables(patients(*each)) for each in (a, b))]
    gaps = 2.0 * np.subtract(a, b)
    signs = 1 - 2 * ((np.arange(64)[:, None] >> np.arange(6)) & 1)
    expected = (np.abs((signs * gaps).mean(1)) >= abs(gaps.mean()) - 1e-12).mean()
    assert permutation_test(runs[:1], runs[1:], HD95) == pytest.approx(expected)


def test_the_lower_distance_ranks_first_and_texts_are_in_mm():
    steps = [1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 1, 0]
    found = compared([model("fcn", patients(*(s + 3 for s in steps))), model("unet", patients(*steps))])
    assert [row.architecture for row in found.models] == ["unet", "fcn"]
    assert found.verdict.startswith(
        "UNET (dataset HD95 1.333 mm, one seed) is best: it leads FCN by 6 mm (95 %"
    )
    assert (
        found.surfaces is not None
        and found.surfaces.volumes == 12
        and found.surfaces.missed
        == {
            "unet": {},
            "fcn": {},
        }
    )
    text = leaderboard_text(found)
    assert "NSD: surfaces within 2 mm (evaluate.surface_tolerance)." in text and SURFACE_POLICY in text
    headings = [column.heading for column in leaderboard(found).columns if column.part == "scores"]
    assert "HD95 dataset, foreground (mm)" in headings and "HD95 image, foreground (mm)" in headings
    assert "NSD dataset, foreground" in headings and not any("all classes" in h for h in headings)
    record = leaderboard(found).records(intervals=True)[0]
    assert record["hd95/dataset/building"] == pytest.approx(4 / 3) and record[f"{HD95} low"] < 4 / 3
    assert Comparison.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_missed_organs_are_named_with_their_number():
    found = compared([model("fcn", patients(None, 0, [1, None])), model("unet", patients(0, 0, [1, 1]))])
    assert found.surfaces is not None and found.surfaces.missed["fcn"] == {"building": 2.0}
    line = "FCN: volumes with a class in only one of truth and prediction, of 4: building 2."
    assert line in leaderboard_text(found)


def test_without_volumes_nothing_is_added_and_a_metric_of_surfaces_is_refused():
    plain = [replace(model(n, patients(0, 1)), surfaces=()) for n in ("fcn", "unet")]
    found = compared(plain, "iou")
    assert "surfaces" not in found.to_json() and "HD95" not in leaderboard_text(found)
    assert not any(key.startswith(tuple(class_metrics("surfaces"))) for key in found.models[0].scores)
    with pytest.raises(DataError, match=r"no volumes with a spacing.*(.|\n)*iou, dice"):
        compared(plain, "hd95")


def test_evaluations_of_different_volumes_are_refused():
    a, b = model("fcn", patients(0, 1)), model("unet", patients(0, 1))
    fewer = replace(b, surfaces=[b.surfaces[0].iloc[:1]])
    with pytest.raises(DataError, match="differ in the volumes"):
        compared([a, fewer])


def test_slices_are_scored_on_their_own_volumes():
    models = [model(n, patients(*steps)) for n, steps in (("fcn", [0, 1, 3, 3]), ("unet", [1, 1, 1, 1]))]
    for one in models:
        site = one.tables[0]["cluster"].map({"p00": "x", "p01": "x", "p02": "y", "p03": "y"})
        one.tables[0][f"{PREFIX}site"] = site
    found = compared(models)
    estimates = {one.text: one.scores["fcn"].estimate for one in found.slices}
    assert estimates == {"x": 1.0, "y": 6.0}
    assert {one.overall["fcn"] for one in found.slices} == {3.5}


def test_metrics_of_surfaces_are_of_the_foreground_with_units():
    assert {name: (m.unit, m.higher_is_better) for name, m in class_metrics("surfaces").items()} == {
        "hd95": ("mm", False),
        "nsd": ("%", True),
        "assd": ("mm", False),
    }
    assert all(METRICS[name].of_foreground for name in class_metrics("surfaces"))
    found = scores(*scored({"a": [0]}))
    assert not any("background" in key or "all_mean" in key for key in found if key.startswith("hd95"))
