"""benchmarks/published: scores as defined in publications, and a plan that matches the examples."""

import numpy as np
import pytest
import yaml

from benchmarks import _scored, published
from segcore import params
from segcore.metrics import METRICS
from segcore.tables.counts import count, counts_table
from tasks.configure import configure

TRUE = [np.array([[0, 0, 0, 1]]), np.array([[1, 1, 0, 0]]), np.array([[1, 1, 1, 1]])]
FOUND = [np.array([[0, 0, 1, 1]]), np.array([[1, 1, 0, 0]]), np.array([[1, 0, 1, 1]])]


@pytest.fixture
def counted(tmp_path):
    """Three images of two patients."""
    rows = [
        (f"i{i}", cluster, count(found.astype(np.uint8), true.astype(np.uint8), 2))
        for i, (true, found, cluster) in enumerate(zip(TRUE, FOUND, "aab", strict=True))
    ]
    counts_table(rows, ["no", "yes"]).to_parquet(tmp_path / "counts.parquet")
    return _scored.read(tmp_path / "counts.parquet")


def once(name, counted):
    return _scored.MEASURES[name](counted, np.ones((1, 3)), [1])[0]


def test_each_definition_on_an_example_by_hand(counted):
    assert once("pooled_iou", counted) == pytest.approx(6 / 8)
    assert once("pooled_dice", counted) == pytest.approx(12 / 14)
    assert once("image_iou", counted) == pytest.approx((1 / 2 + 1 + 3 / 4) / 3)
    assert once("image_class_iou", counted) == pytest.approx((7 / 12 + 1 + 3 / 8) / 3)
    assert once("patient_dice", counted) == pytest.approx((6 / 7 + 6 / 7) / 2)
    assert once("weighted_iou", counted) == pytest.approx((3 / 4 * 2 / 3 + 1 / 4 * 1 / 2 + 1 + 3 / 4) / 3)
    precision = (3 / 4 + 1 / 4 * 1 / 2 + 1 + 1) / 3
    recall = np.mean([np.mean(t == f) for t, f in zip(TRUE, FOUND, strict=True)])  # weighted, it is accuracy
    assert once("weighted_f1", counted) == pytest.approx(2 * precision * recall / (precision + recall))


def test_the_estimate_is_the_mean_of_seeds_within_its_interval(counted):
    mean, low, high, own = _scored.estimate([counted, counted], _scored.weighted_iou, [1])
    assert own == [mean, mean] and low < mean < high


@pytest.mark.parametrize(
    "name", [name for name, plan in yaml.safe_load(published.PLAN.read_text()).items() if "title" in plan]
)
def test_the_plan_matches_its_example_and_uses_existing_measures(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGFLOW_DATA", str(tmp_path))
    plan = yaml.safe_load(published.PLAN.read_text())[name]
    used = {*plan["measures"], *(key for row in plan["published"].values() for key in row)}
    used |= {key for goal in plan["goals"] for key in goal if key != "of"}
    of_goals = {key for goal in plan.get("objects", {}).get("goals", []) for key in goal if key != "of"}
    assert used <= _scored.MEASURES.keys() and set(plan["goals"][0] if plan["goals"] else {}) - {"of"} <= used
    of_objects = plan.get("objects", {"measures": {}, "published": {}})
    assert {key for row in of_objects["published"].values() for key in row} <= of_objects["measures"].keys()
    for key in of_objects["measures"]:
        assert METRICS[key.split("/")[0]].of_objects
    assert of_goals <= set(of_objects["measures"])
    path = tmp_path / "params.yaml"
    path.write_text((published.ROOT / "params.yaml").read_text())
    configure(plan.get("example", name), path, published.ROOT / "examples")
    values = params.merge(yaml.safe_load(path.read_text()), plan["params"])
    values["architectures"] = plan.get("architectures", published.SEMANTIC)
    path.write_text(yaml.safe_dump(values))
    p = params.load(path)
    assert p.train["common"]["steps"] == plan["params"]["train"]["common"]["steps"]
    for architecture in p.architectures:
        p.for_architecture(architecture)


def test_verdicts_show_the_difference_to_each_goal():
    plan = {
        "measures": {"pooled_iou": "IoU"},
        "goals": [{"of": "best", "pooled_iou": 0.8}, {"of": "fcn", "pooled_iou": 0.8}],
    }
    lines = published.verdicts(plan, {"unet": {"pooled_iou": 0.83}, "fcn": {"pooled_iou": 0.7}})
    assert lines[0].startswith("Goal met by unet (best)") and "+0.030" in lines[0]
    assert lines[1].startswith("Goal MISSED by fcn") and "-0.100" in lines[1]


def test_a_goal_of_instance_networks_is_judged_by_the_best_of_them():
    plan = {"measures": {"pq": "PQ"}, "goals": [{"of": "instance", "pq": 0.8}]}
    means = {"unet": {"pq": 0.9}, "solo": {"pq": 0.7}, "yolact": {"pq": 0.75}}
    (line,) = published.verdicts(plan, means, ["solo", "yolact"])
    assert line.startswith("Goal MISSED by yolact (best instance network)") and "-0.050" in line
    assert published.verdicts(plan, {"unet": {"pq": 0.9}}, []) == ["Goal of instance: not measured."]
