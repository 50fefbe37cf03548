"""How objects are found is chosen on the validation split, by the policy of the object table."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from segcore.constants import IGNORE
from segcore.data.prepared import PreparedData
from segcore.models.base.semantic import SemanticModel
from segcore.objects.find import FindSettings, find
from segcore.objects.pairs import pairs
from segcore.training import object_matches, object_settings
from segcore.training.object_settings import choose_objects, text
from tasks.ingest import ingest
from tasks.prepare import prepare
from tests.support.discs import VALUES, make_discs
from tests.support.tiny import params_for

METHODS = ("components", "watershed")


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    """Prepared data of twelve images of numbered discs."""
    root = tmp_path_factory.mktemp("discs")
    p = params_for(make_discs(root / "source"), data=VALUES)
    ingest(p.data, root / "ingested")
    return PreparedData(prepare(p, root / "ingested", root / "prepared"))


class Oracle(SemanticModel):
    """Knows the class of each pixel from its brightness."""

    def __init__(self, sign: float = 1) -> None:
        super().__init__(3, 2, "oracle", 1)
        self.unused, self.sign = nn.Conv2d(1, 1, 1), sign

    def segment(self, x):
        score = self.sign * (x[:, :1] - 120) / 20
        return torch.cat([-score, score], dim=1)


def scored(model, data, settings):
    """Precision, recall, count bias and counts by the rows of the object table."""
    true = predicted = hits = 0
    counts = {}
    for region in data.regions[data.regions["split"] == "validation"].itertuples():
        patch = data.read_input(region.id, instances=True)
        image = torch.from_numpy(patch.image.astype(np.float32)).permute(2, 0, 1)[None]
        probabilities = model.predict(image)[0].numpy()
        found = find(probabilities, probabilities.argmax(0).astype(np.uint8), [1], settings)
        index = data.objects[data.objects["item"] == region.item]
        table = pairs(patch.instances, patch.label, index, found, 2)
        areas = table.pairs.merge(table.truths, on="truth").merge(
            table.predictions, on="prediction", suffixes=("_true", "_predicted")
        )
        union = areas["area_true"] + areas["area_predicted"] - areas["intersection"]
        same = areas[(areas["intersection"] / union > 0.5) & ~areas["out_predicted"]]
        kept = len(table.predictions) - table.predictions["out"].sum() - same["out_true"].sum()
        here = int((~table.truths["out"]).sum()), int(kept)
        counts[region.cluster] = [
            a + b for a, b in zip(counts.get(region.cluster, (0, 0)), here, strict=True)
        ]
        true, predicted = true + here[0], predicted + here[1]
        hits += int((~same["out_true"]).sum())
    return hits / predicted, hits / true, predicted / true - 1, [counts[name] for name in sorted(counts)]


def test_scores_are_those_of_the_object_table_and_no_candidate_is_better(discs):
    data = discs
    model = Oracle()
    entry = choose_objects(model, data, 64, "fp32")
    for method in METHODS:
        chosen = entry[method]
        precision, recall, bias, counts = scored(model, data, FindSettings.of({"objects": entry}, method))
        assert chosen["precision"] == pytest.approx(precision, abs=1e-6)
        assert chosen["recall"] == pytest.approx(recall, abs=1e-6)
        assert chosen["count_bias"] == pytest.approx(bias, abs=1e-6)
        assert chosen["f1"] == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-6)
        assert chosen["counts"] == {"square": counts}
    # the discs touch, so that components merge some of them
    assert entry["watershed"]["f1"] > entry["components"]["f1"] + 0.05
    assert entry["components"]["count_bias"] < -0.1
    for seeds, depth in (("distance", 0.5), ("distance", 2.0), ("probability", 0.1)):
        precision, recall, *_ = scored(model, data, FindSettings("watershed", 0.5, seeds, depth))
        assert 2 * precision * recall / (precision + recall) <= entry["watershed"]["f1"] + 1e-6


def test_the_entry_has_what_predictions_need_and_goes_through_json_unchanged(discs):
    data = discs
    entry = choose_objects(Oracle(), data, 64, "fp32")
    assert json.loads(json.dumps(entry, allow_nan=False)) == entry
    assert entry["truth"] == "given" and entry["touching"] is False and entry["classes"] == [1]
    assert set(entry["components"]) == {"score", "f1", "precision", "recall", "count_bias", "counts"}
    assert set(entry["watershed"]) == set(entry["components"]) | {"seeds", "depth"}
    training = data.objects[
        data.objects["region"].isin(data.regions.loc[data.regions["split"] == "train", "id"])
    ]
    longer = np.maximum(training["height"], training["width"])
    assert entry["side"] == pytest.approx(np.quantile(longer, 0.95), abs=1e-6)
    assert "components at score" in text(entry) and "watershed (" in text(entry) and "\n" not in text(entry)


def without_objects(data):
    """The data with a validation split without objects."""
    kept = data.objects[
        ~data.objects["region"].isin(data.regions.loc[data.regions["split"] == "validation", "id"])
    ]
    names = ("regions", "classes", "foreground", "truth_of_objects", "read_input")
    return SimpleNamespace(**{name: getattr(data, name) for name in names}, objects=kept)


def test_a_validation_split_without_objects_gives_the_defaults_and_says_so(discs):
    data = discs
    entry = choose_objects(Oracle(), without_objects(data), 64, "fp32")
    assert [entry[method]["score"] for method in METHODS] == [0.5, 0.5]
    assert entry["watershed"]["seeds"] == "distance" and entry["components"]["recall"] == 0
    assert all(true == 0 for true, _ in entry["components"]["counts"]["square"])
    assert "validation split has no object" in text(entry)


def test_where_nothing_is_found_the_score_stays_at_one_half(discs):
    data = discs
    entry = choose_objects(Oracle(sign=-1), data, 64, "fp32")
    assert entry["components"]["f1"] == 0 and entry["components"]["score"] == 0.5
    assert text(entry).startswith(
        "objects: no true object is found by components, so that nothing is chosen: the"
    )
    assert "precision" not in text(entry)
    assert text(entry).endswith("the score is 0.5; usually it was trained for too few steps")


def test_data_without_objects_have_no_entry(prepared_scene):
    _, data = prepared_scene
    assert choose_objects(Oracle(), data, 64, "fp32") is None


def table(rows):
    return pd.DataFrame(rows, columns=["cluster", "class_index", "score", "hit"]).astype({"score": "float32"})


def test_of_equal_f1_the_simplest_candidate_and_the_lowest_score_are_chosen():
    truths = pd.DataFrame({"cluster": ["a", "a"], "class_index": [1, 1]})
    rows = [("a", 1, 0.9, True), ("a", 1, 0.7, True), ("a", 1, 0.32, False)]
    candidates = [FindSettings("watershed", depth=depth) for depth in (4.0, 2.0)]
    found = object_settings._Found(truths, dict.fromkeys(candidates, table(rows)), ["a"])
    assert found.best(candidates) == FindSettings("watershed", 0.35, depth=4.0)
    assert found.facts(FindSettings("watershed", 0.35, depth=4.0), {1: "house"}) == {
        "score": 0.35,
        "f1": 1.0,
        "precision": 1.0,
        "recall": 1.0,
        "count_bias": 0.0,
        "counts": {"house": [[2, 2]]},
    }


def test_counts_of_many_clusters_share_pairs_so_that_model_json_stays_small():
    clusters = [f"c{i:05d}" for i in range(5000)]
    truths = pd.DataFrame({"cluster": clusters, "class_index": 1})
    found = object_settings._Found(truths, {FindSettings(): table([("c00001", 1, 0.9, True)])}, clusters)
    counts = found.facts(FindSettings(score=0.5), {1: "house"})["counts"]["house"]
    assert len(counts) == 2000 and sum(true for true, _ in counts) == 5000
    assert counts[1] == [3, 1] and sum(predicted for _, predicted in counts) == 1


def matched(true, areas, predicted, classes=(1,), ignored=None):
    true, predicted = np.array(true), np.array(predicted)
    is_scored = np.ones(true.shape, bool) if ignored is None else ~np.array(ignored, bool)
    ids = sorted(set(true.ravel().tolist()) - {0})
    index = pd.DataFrame({"id": ids, "class_index": 1, "area": areas})
    truth = object_matches._numbered(true, is_scored, index)
    kept, hit, _ = object_matches.matched(truth, predicted, np.array(classes), is_scored)
    return truth.required.tolist(), kept.tolist(), hit.tolist()


def test_an_iou_of_one_half_is_no_match_and_the_class_must_be_the_same():
    assert matched([[5, 5, 0]], [2], [[1, 1, 1]]) == ([True], [True], [True])
    assert matched([[5, 0, 0]], [1], [[1, 1, 0]]) == ([True], [True], [False])
    assert matched([[5, 5, 0]], [2], [[1, 1, 1]], classes=[2]) == ([True], [True], [False])


def test_a_true_object_outside_of_the_region_for_the_most_part_is_neither_required_nor_wrong_to_find():
    assert matched([[5, 5, 0]], [5], [[1, 1, 0]]) == ([False], [False], [False])
    # so that of two regions with half of it, none counts it twice
    assert matched([[5, 5, 0]], [4], [[1, 1, 0]]) == ([False], [False], [False])
    assert matched([[5, 5, 0]], [3], [[1, 1, 0]]) == ([True], [True], [True])


def test_a_prediction_that_is_ignored_for_the_most_part_does_not_count():
    assert matched([[0, 0, 0]], [], [[1, 1, 1]], ignored=[[1, 1, 0]]) == ([], [False], [False])
    assert matched([[0, 0, 0, 0]], [], [[1, 1, 1, 1]], ignored=[[1, 1, 0, 0]]) == ([], [True], [False])
    # its area is that of pixels that are not ignored
    assert matched([[5, 5, 5, 5]], [3], [[1, 1, 0, 0]], ignored=[[0, 0, 1, 1]]) == ([True], [True], [True])


class Everywhere(Oracle):
    """Finds foreground everywhere, as a network may in pixels without data."""

    def segment(self, x):
        return torch.stack([torch.zeros_like(x[:, 0]), torch.full_like(x[:, 0], 3.0)], dim=1)


def test_pixels_without_data_belong_to_no_object(discs):
    class Blank:
        """The data, without data in more than half of each image."""

        def __getattr__(self, name):
            return getattr(discs, name)

        def read_input(self, region, instances):
            patch = discs.read_input(region, instances=instances)
            patch.valid[:, :40], patch.label[:, :40] = False, IGNORE
            return patch

    entry = choose_objects(Everywhere(), Blank(), 64, "fp32")
    # an object that reached into them would be ignored
    assert [predicted for _, predicted in entry["components"]["counts"]["square"]] == [1, 1]
