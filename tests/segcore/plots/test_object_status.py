"""What became of true and predicted objects, and what is counted of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from segcore.metrics.scores import scores
from segcore.plots.object_status import EvaluatedObjects, found_by_size, object_status, size_bins
from segcore.tables.counts import COUNTS
from tests.support.fake_project import damaged
from tests.support.object_tables import Mask, image, masks, table

# five true objects in a row of 40 pixels, and what is predicted of them
TRUE = np.array([[1] * 6 + [0] + [2] * 6 + [3] * 6 + [0] + [4] * 8 + [0] + [5] * 4 + [0] * 7] * 4)
PREDICTED = np.array([[1] * 6 + [0] + [2] * 12 + [0] + [3] * 4 + [4] * 4 + [0] * 9 + [5] * 3] * 4)


def _statuses(rows: pd.DataFrame) -> list[str]:
    return list(rows["status"])


def test_objects_are_found_merged_split_missed_or_false() -> None:
    truths, predictions = object_status(image(masks(TRUE), masks(PREDICTED), TRUE.shape), 0.5)
    assert _statuses(truths) == ["found", "merged", "merged", "split", "missed"]
    assert sorted(_statuses(predictions)) == ["false", "found", "merged", "split", "split"]


def test_only_the_object_that_was_not_found_is_merged() -> None:
    true = np.array([[1] * 9 + [2] * 4 + [0]] * 3)
    truths, predictions = object_status(image(masks(true), masks((true > 0) * 1), true.shape), 0)
    assert _statuses(truths) == ["found", "merged"] and _statuses(predictions) == ["found"]


def test_objects_of_another_class_are_missed_and_false() -> None:
    true, predicted = np.array([[1] * 4 + [0]] * 3), np.array([[1] * 4 + [0]] * 3)
    truths, predictions = object_status(image(masks(true, {1: 1}), masks(predicted, {1: 2}), true.shape), 0)
    assert _statuses(truths) == ["missed"] and _statuses(predictions) == ["false"]


def test_predictions_below_the_operating_score_are_left_out() -> None:
    rows = image(masks(TRUE), masks(PREDICTED, scores={2: 0.4}), TRUE.shape)
    truths, predictions = object_status(rows, 0.5)
    assert _statuses(truths) == ["found", "missed", "missed", "split", "missed"] and len(predictions) == 4
    assert _statuses(object_status(rows, 0.4)[0])[1] == "merged"


def test_what_is_not_required_or_taken_out_is_not_counted() -> None:
    shape, scored = (4, 20), np.ones((4, 20), bool)
    scored[:, 12:] = False
    inside = [np.zeros(shape, bool) for _ in range(3)]
    inside[0][:, :3], inside[1][:, 5:8], inside[2][:, 11:18] = True, True, True
    true = [Mask(inside[0], area_full=90), Mask(inside[1], area_full=90)]
    run = EvaluatedObjects(image(true, [Mask(inside[0]), Mask(inside[2])], shape, scored=scored), 0, [Path()])
    truths, predictions = run.status
    assert _statuses(truths) == ["found", ""] and _statuses(predictions) == ["found"]
    assert not truths["counted"].any() and not predictions["counted"].any()
    assert run.f1.empty and run.counts.to_numpy().tolist() == [[0, 0]]


def test_parts_of_an_object_that_is_not_required_are_false() -> None:
    pieces = [np.zeros((3, 9), bool) for _ in range(2)]
    pieces[0][:, :4], pieces[1][:, 5:] = True, True
    true = Mask(np.ones((3, 9), bool), area_full=90)
    truths, predictions = object_status(image([true], [Mask(p) for p in pieces], (3, 9)), 0)
    assert _statuses(truths) == [""] and _statuses(predictions) == ["false", "false"]


@pytest.mark.parametrize("seed", range(5))
def test_figures_agree_with_the_scores(seed: int) -> None:
    random, parts, pixels = np.random.default_rng(seed), [], []
    for i in range(4):
        true = np.kron(random.integers(0, 12, (5, 5)), np.ones((8, 8), int))
        predicted = damaged(true, 0.5, seed + i)
        # of one class
        values = {int(n): float(random.random()) for n in np.unique(predicted)}
        parts.append(image(masks(true), masks(predicted, scores=values), true.shape, f"i{i}", f"c{i % 2}"))
        counts = dict.fromkeys(COUNTS, 0) | {"tp": 9}
        pixels += [{"item": f"i{i}", "cluster": f"c{i % 2}", "class_index": k, "class_name": "ab"[k], **counts}
                   | {"pixels": 1600} for k in range(2)]  # fmt: skip
    objects = table(*parts)
    run, found = EvaluatedObjects(objects, 0.3, [Path()]), scores(pd.DataFrame(pixels), [1], objects, 0.3)
    truths, predictions = run.status
    assert run.f1.mean() == pytest.approx(found["f1_50/image/b"])
    assert (truths["status"] == "found").mean() == pytest.approx(found["object_recall_50/dataset/b"])
    assert (predictions["status"] == "found").mean() == pytest.approx(found["object_precision_50/dataset/b"])
    assert run.counts["predicted"].sum() / run.counts["true"].sum() - 1 == pytest.approx(
        found["count_bias/dataset/b"]
    )
    assert run.merged.sum() <= found["merged/dataset/b"] * len(truths) + 1e-9


@pytest.mark.parametrize("objects", [1, 9, 25, 400])
def test_bins_have_all_objects_in_about_equal_numbers(objects: int) -> None:
    areas = np.random.default_rng(objects).permutation(np.arange(objects)) + 5
    truths = pd.DataFrame({"area": areas, "status": ["found"] * objects, "counted": True})
    ends = size_bins(areas)
    inside, found = found_by_size(truths, ends)
    assert inside.sum() == objects and (inside == found).all() and len(inside) <= 6
    assert inside.max() - inside.min() <= max(2, 0.1 * inside.max()) and (
        len(inside) == 1 or inside.min() >= 9
    )


def test_bins_of_equal_or_no_objects() -> None:
    assert list(size_bins(np.array([4] * 100))) == [4, 5]
    assert list(size_bins(np.array([4] * 100 + [7]))) == [4, 8]
    assert len(size_bins(np.zeros(0, int))) == 0
