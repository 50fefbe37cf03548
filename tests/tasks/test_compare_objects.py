"""The compare stage on data with objects: evaluations, the limit of components, and annotators."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from segcore import params
from segcore.data.prepared import PreparedData
from segcore.errors import ParamsError, StageError
from segcore.objects.components import components
from segcore.objects.count_interval import count_interval
from segcore.tables.objects import objects_table
from tasks import compare
from tests.support import object_tables
from tests.tasks.test_compare import ITEMS, SIZE, project

__all__ = ["project"]

# two objects that touch, and one by itself
NUMBERS = np.zeros((SIZE, SIZE), np.uint32)
NUMBERS[2:6, 2:6], NUMBERS[2:6, 6:10], NUMBERS[9:13, 9:13] = 1, 2, 3
# true and predicted objects of validation clusters
COUNTS = [[3, 2], [4, 3], [6, 4]]


@pytest.fixture
def with_objects(project: Path) -> Path:
    """The project with three objects per image; the first network joins two, the second finds all."""
    packed = project / "data/packed/all.safetensors"
    tensors, label = load_file(packed), (NUMBERS > 0).astype(np.uint8)
    tensors["labels"][:], tensors["valid"][:] = label, 1
    tensors["baselines"][:] = label
    # this annotator left out the object that stands alone, and labelled no pixel of the last rows
    tensors["baselines"][:, :, 9:13, 9:13] = 0
    tensors["baselines"][:, :, 14:] = 255
    save_file(tensors | {"instances": np.broadcast_to(NUMBERS, tensors["labels"].shape).copy()}, packed)
    meta_file = project / "data/prepared/prepared.json"
    meta = json.loads(meta_file.read_text()) | {"instances": True, "truth_of_objects": "given"}
    meta_file.write_text(json.dumps(meta))
    items = pd.read_parquet(project / "data/prepared/items.parquet")
    items.assign(depth=1).to_parquet(project / "data/prepared/items.parquet")
    names = [f"item-{i:02d}" for i in range(ITEMS + 1)]
    objects = {"item": np.repeat(names, 3), "id": [1, 2, 3] * len(names), "class_index": 1, "area": 16}
    pd.DataFrame(objects).to_parquet(project / "data/prepared/objects.parquet")
    joined = components(label, [1])
    for run, numbers in (("fcn-0", joined), ("fcn-1", joined), ("unet-0", NUMBERS), ("unet-1", NUMBERS)):
        folder = project / f"evaluations/{run}"
        true, predicted = object_tables.masks(NUMBERS), object_tables.masks(numbers)
        images = [object_tables.image(true, predicted, NUMBERS.shape, name) for name in names[:ITEMS]]
        objects_table(images).to_parquet(folder / "objects.parquet")
        found = {"method": "components", "score": 0.4, "precision": 0.9, "recall": 0.8, "count_bias": 0.1}
        found["counts"] = {"building": COUNTS}
        summary = json.loads((folder / "summary.json").read_text())
        summary |= {"objects": found | {"truth": "given"}}
        (folder / "summary.json").write_text(json.dumps(summary))
    return project


def write_params(project: Path, metric: str = "iou", instances: bool | str = True, **evaluate: str) -> Path:
    values = yaml.safe_load((project / "params.yaml").read_text())
    values["data"]["instances"] = instances
    values["compare"]["metric"] = metric
    values["evaluate"] = evaluate
    (project / "params.yaml").write_text(yaml.safe_dump(values))
    return project / "params.yaml"


def test_objects_of_models_limit_and_annotator_are_compared(with_objects: Path) -> None:
    result = compare.build(with_objects, params.load(write_params(with_objects, "f1_50")))
    rows = {row.architecture: row for row in result.leaderboard}
    assert [row.kind for row in result.leaderboard] == ["model", "model", "limit", "human"]
    assert result.models[0].architecture == "unet" and result.models[0].scores[result.headline].estimate == 1
    # of three objects one is found, and one of two predictions is right
    for name in ("fcn", "components-of-truth"):
        assert rows[name].scores["f1_50/dataset/building"].estimate == pytest.approx(0.4)
        assert rows[name].scores["merged/dataset/building"].estimate == pytest.approx(2 / 3, abs=1e-6)
    assert rows["components-of-truth"].scores["iou/dataset/building"].estimate == 1
    assert rows["second-annotator"].scores["object_recall_50/dataset/building"].estimate == 0
    assert result.objects.counts["fcn"]["building"] == {
        "true": 3 * ITEMS,
        "predicted": 2 * ITEMS,
        **dict(zip(("low", "high"), count_interval(2 * ITEMS, COUNTS), strict=True)),
    }
    compare.write(result, with_objects / "comparison")
    board = pd.read_csv(with_objects / "comparison/leaderboard.csv")
    assert board["kind"].tolist() == ["model", "model", "limit", "human"]
    assert board["rank"].isna().tolist() == [False, False, True, True]
    assert set(json.loads((with_objects / "comparison/metrics.json").read_text())) == {"unet", "fcn"}


def test_objects_of_an_annotator_reach_into_ignored_pixels_as_those_of_a_network(with_objects: Path) -> None:
    packed = with_objects / "data/packed/all.safetensors"
    tensors = load_file(packed)
    mask = (NUMBERS > 0).astype(np.uint8)
    scored = np.ones(NUMBERS.shape, bool)
    # half of the two objects that touch, and most of the other
    scored[:, 6:9], scored[9:12, :] = False, False
    tensors["labels"][:], tensors["baselines"][:] = np.where(scored, mask, 255), mask
    tensors["instances"][:] = np.where(scored, NUMBERS, 0)
    save_file(tensors, packed)
    masks = compare._Masks(PreparedData(with_objects / "data/prepared"), 2, True)
    (found,) = masks.annotator("second-annotator").objects
    true = [object_tables.Mask(m.pixels, area_full=16) for m in object_tables.masks(NUMBERS)]
    predicted = object_tables.masks(components(mask, [1]))
    expected = object_tables.image(true, predicted, NUMBERS.shape, scored=scored)
    columns = ["kind", "area", "area_full", "ignored_share", "out", "intersection"]
    one = found[found["item"] == found["item"].iloc[0]]
    pd.testing.assert_frame_equal(one[columns].reset_index(drop=True), expected[columns])
    assert one.loc[one["kind"] == "prediction", "out"].tolist() == [False, True]


def test_components_as_truth_have_no_limit_but_a_note(with_objects: Path) -> None:
    path = with_objects / "data/prepared/prepared.json"
    meta = json.loads(path.read_text()) | {"truth_of_objects": "components"}
    path.write_text(json.dumps(meta))
    for summary in with_objects.glob("evaluations/*/summary.json"):
        summary.write_text(summary.read_text().replace('"given"', '"components"'))
    result = compare.build(with_objects, params.load(write_params(with_objects, instances="components")))
    assert all(row.kind != "limit" for row in result.leaderboard)
    assert any("favours methods by components" in note for note in result.notes)


def test_volumes_have_a_note_that_their_objects_are_those_of_planes(with_objects: Path) -> None:
    p, path = params.load(write_params(with_objects)), with_objects / "data/prepared/items.parquet"
    items = pd.read_parquet(path)
    for depth, noted in ((1, False), (ITEMS + 1, True)):
        items.assign(depth=depth).to_parquet(path)
        notes = compare.build(with_objects, p).notes
        assert any("counted in each plane" in note for note in notes) == noted


def test_an_object_table_that_is_missing_is_named_with_the_remedy(with_objects: Path) -> None:
    (with_objects / "evaluations/unet-1/objects.parquet").unlink()
    with pytest.raises(StageError, match=r"no objects\.parquet(.|\n)*dvc repro evaluate@unet-1"):
        compare.build(with_objects, params.load(write_params(with_objects)))


def test_an_evaluation_without_objects_among_others_leaves_them_all_out(with_objects: Path) -> None:
    for seed in (0, 1):
        path = with_objects / f"evaluations/fcn-{seed}/summary.json"
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "objects"}))
    result = compare.build(with_objects, params.load(write_params(with_objects)))
    assert result.objects is None and [row.kind for row in result.leaderboard] == ["model", "model", "human"]


def test_a_metric_of_objects_without_objects_is_refused_when_params_are_read(project: Path) -> None:
    for metric in ("pq", "ap", "count_bias"):
        with pytest.raises(
            ParamsError,
            match=rf"compare\.metric: {metric} is a metric of objects, but no objects are used: set data",
        ):
            params.load(write_params(project, metric, instances=False))
    with pytest.raises(ParamsError, match=r"evaluate\.objects is none: set it to components or watershed"):
        params.load(write_params(project, "pq", objects="none"))
    assert params.load(write_params(project, "pq")).compare.metric == "pq"
    assert params.load(write_params(project, "iou", instances=False, objects="none")).compare.metric == "iou"
