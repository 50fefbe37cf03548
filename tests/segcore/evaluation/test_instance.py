"""Evaluation of an instance network, beside that of a semantic one that sees the same."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch

from segcore.constants import IGNORE
from segcore.data.prepared import PreparedData
from segcore.data.prepared import test_regions as regions_of_test
from segcore.errors import DataError, ModelError, ParamsError
from segcore.evaluation.evaluate import evaluate, fitted
from segcore.evaluation.objects import find_settings
from segcore.inference.objects import predict_objects
from segcore.objects.find import FindSettings
from segcore.params import Params
from tests.support.object_scene import Oracle, object_scene
from tests.support.toy_instance import Toy

SCORE = 0.88


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Params, PreparedData]:
    return object_scene(tmp_path_factory.mktemp("objects"))[:2]


def network() -> Toy:
    """Finds the components that `Oracle` has, with other scores: the mean over pixels of a sigmoid."""
    toy = Toy()
    with torch.no_grad():
        toy.encoder.weight.zero_()[0, 0] = 0.05
        toy.encoder.bias.fill_(-5.0)
    return toy.eval()


def _evaluated(scene, settings=None, keep=lambda *_: None):
    p, data = scene
    return evaluate(
        network(), data, settings or p.evaluate, "fp32", keep, objects=FindSettings("network", SCORE)
    )


def test_the_object_table_has_the_objects_of_every_score(scene):
    p, data = scene
    found = _evaluated(scene).objects
    same = evaluate(Oracle(), data, p.evaluate, "fp32", objects=FindSettings()).objects
    pd.testing.assert_frame_equal(found.drop(columns="score"), same.drop(columns="score"))
    scores = found.loc[found["kind"] == "prediction", "score"]
    assert min((scores < SCORE).sum(), (scores >= SCORE).sum()) > 5


def test_pixels_are_of_the_objects_of_the_operating_score(scene):
    _, data = scene
    kept = {}
    evaluated = _evaluated(
        scene, keep=lambda region, classes, objects: kept.update({region: (classes, objects)})
    )
    matrix = np.zeros((2, 2), np.int64)
    confidence, correct = [], []
    for region in regions_of_test(data)["id"]:
        patch = data.read_input(region)
        found = predict_objects(network(), patch, 64, 16)
        classes, probability = np.zeros(patch.label.shape, np.uint8), np.ones(patch.label.shape)
        for box, mask, score in zip(found.boxes, found.masks, found.scores, strict=True):
            place = np.s_[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
            classes[place][mask] = score >= np.float32(SCORE)
            probability[place][mask] = score if score >= np.float32(SCORE) else 1 - score
        assert np.array_equal(kept[region][0], classes) and kept[region][0].dtype == np.uint8
        assert len(kept[region][1]) == len(found)
        scored = patch.label != IGNORE
        np.add.at(matrix, (patch.label[scored], classes[scored]), 1)
        confidence.append(probability[scored])
        correct.append((classes == patch.label)[scored])
    assert np.array_equal(evaluated.confusion, matrix) and matrix.min() > 100
    assert evaluated.counts.loc[evaluated.counts["class_index"] == 1, "tp"].sum() == matrix[1, 1]
    sure, right = np.concatenate(confidence), np.concatenate(correct)
    curve = evaluated.calibration
    assert sum(curve["count"]) == len(sure)
    assert np.isclose(np.dot(curve["count"], curve["confidence"]), sure.sum(), rtol=1e-6)
    assert np.isclose(np.dot(curve["count"], curve["accuracy"]), right.sum(), rtol=1e-6)


def test_without_an_object_table_the_pixels_are_the_same(scene):
    p, _ = scene
    plain = _evaluated(scene, p.evaluate.model_copy(update={"objects": "none"}))
    found = _evaluated(scene)
    assert plain.objects is None and found.objects is not None
    pd.testing.assert_frame_equal(plain.counts, found.counts)
    assert np.array_equal(plain.confusion, found.confusion) and plain.calibration == found.calibration


def test_a_bundle_predicts_in_its_own_windows(scene):
    p, _ = scene
    facts = {"tile": 48, "objects": {"side": 29.1}}
    toy = network()
    assert fitted(p.evaluate, Oracle(), facts) == p.evaluate
    assert fitted(p.evaluate, toy, facts) == p.evaluate.model_copy(update={"overlap": 30})
    toy.is_position_dependent = True
    assert fitted(p.evaluate, toy, facts) == p.evaluate.model_copy(update={"tile": 48, "overlap": 24})


def test_an_instance_network_needs_objects_an_operating_score_and_no_flips(scene):
    p, data = scene
    described = {"kind": "instance", "title": "Toy", "objects": {"network": {"score": 0.35}}}
    for asked in ("components", "watershed", "none"):
        assert find_settings(described, asked, data) == FindSettings("network", 0.35)
    with pytest.raises(ModelError, match=r"no entry objects\.network"):
        find_settings({**described, "objects": {}}, "components", data)
    without = copy.copy(data)
    without.instances = False
    with pytest.raises(DataError, match="Toy finds objects, but the data have none"):
        find_settings(described, "components", without)
    with pytest.raises(ParamsError, match="Toy finds objects"):
        _evaluated(scene, p.evaluate.model_copy(update={"flips": True}))
