"""Files of an evaluation of data with objects."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
from PIL import Image

from segcore import params
from segcore.data.prepared import PreparedData
from segcore.data.prepared import test_regions as regions_of_test
from segcore.inference.postprocess import Postprocess
from segcore.models.base.bundle import load_description
from tasks.tracking import runs
from tasks.tracking.scores import log_lacking_scores
from tasks.tracking.tracker import Tracker
from tests.support.bundles import rewrite
from tests.support.numbered_project import evaluated, trained

PLAIN = {"counts.parquet", "confusion.csv", "calibration.json", "summary.json", "predictions"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a U-Net that was trained for some steps on images with objects."""
    return trained(tmp_path_factory.mktemp("project"), ["unet"], 40)


def run(project: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Path:
    """The folder of an evaluation with other settings, without measured costs."""
    return evaluated(project, monkeypatch, "unet", **settings)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_objects_are_written_beside_the_pixels_which_stay_the_same(project, monkeypatch, capsys):
    plain = contents(run(project, monkeypatch, objects="none"))
    assert {Path(name).parts[0] for name in plain} == PLAIN
    assert (
        not any(name.endswith(".tif") for name in plain) and "objects" not in plain["summary.json"].decode()
    )

    folder = run(project, monkeypatch)
    found = contents(folder)
    summary = json.loads(found.pop("summary.json"))
    entry = summary.pop("objects")
    assert summary == json.loads(plain.pop("summary.json"))
    assert {name: found[name] for name in plain} == plain
    assert {name for name in found if name not in plain} == {
        "objects.parquet",
        *(name.replace(".png", "_objects.tif") for name in plain if name.endswith(".png")),
    }
    found_by = load_description(project / "models/unet-0")["objects"]
    chosen = found_by["components"]
    assert entry == {
        "method": "components",
        **{key: chosen[key] for key in ("score", "precision", "recall", "count_bias")},
        "validation": {method: found_by[method]["f1"] for method in ("components", "watershed")},
        "counts": chosen["counts"],
        "truth": "given",
    }


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_picture_of_objects_agrees_with_the_table(project, monkeypatch):
    folder = run(project, monkeypatch)
    score = json.loads((folder / "summary.json").read_text())["objects"]["score"]
    table = pd.read_parquet(folder / "objects.parquet")
    data = PreparedData(project / "data/prepared")
    ids = list(regions_of_test(data)["id"])
    assert sorted(table.loc[table["kind"] == "image", "item"]) == ids
    assert len(table[table["kind"] == "prediction"])
    for region in ids:
        of_region = table[(table["item"] == region) & (table["kind"] == "prediction")]
        with rasterio.open(folder / f"predictions/{region}_objects.tif") as file:
            numbers = file.read(1)
        areas = dict(zip(*np.unique(numbers[numbers > 0], return_counts=True), strict=True))
        expected = of_region[of_region["score"] >= score]
        assert areas == dict(zip(expected["prediction"], expected["area_full"], strict=True))


def test_scores_of_objects_are_logged_and_those_that_a_run_lacks_are_added(project, monkeypatch):
    run(project, monkeypatch)
    p = params.load()
    tracker = Tracker.open(p)
    evaluated = runs.training_of(tracker, "train@unet-0", None)
    logged = {
        k: v
        for k, v in evaluated.data.metrics.items()
        if k.startswith("test/") and not k.startswith("test/ece")
    }
    assert {"test/iou.dataset.square", "test/pq.dataset.square", "test/ap.image.foreground_mean"} <= set(
        logged
    )
    with runs.training_run(tracker, p, "unet", 1, "U-Net") as other:
        other.log_step({"test/pq.dataset.square": 0.25})
    earlier = tracker.client.get_run(other.id).data.metrics
    log_lacking_scores(other, earlier, p.data.foreground, Path("evaluations/unet-0"))
    completed = tracker.client.get_run(other.id).data.metrics
    assert completed.pop("test/pq.dataset.square") == 0.25, "earlier values are kept"
    assert completed == {k: v for k, v in logged.items() if k != "test/pq.dataset.square"}


def test_calibration_is_measured_before_and_after_the_temperature_of_the_bundle(project, monkeypatch, capsys):
    entry = load_description(project / "models/unet-0")["calibration"]
    assert entry["temperature"] > 0 and entry["nll_after"] <= entry["nll_before"]
    with_it = contents(run(project, monkeypatch))
    curve = json.loads(with_it.pop("calibration.json"))
    after = curve.pop("after_temperature")
    assert after["temperature"] == entry["temperature"]
    assert sum(after["count"]) == sum(curve["count"]) and after["confidence"] != curve["confidence"]

    content = (project / "models/unet-0/model.json").read_bytes()
    rewrite(project / "models/unet-0", lambda description: description.pop("calibration"))
    without = contents(run(project, monkeypatch))
    (project / "models/unet-0/model.json").write_bytes(content)
    assert json.loads(without.pop("calibration.json")) == curve
    assert without == with_it


def test_class_maps_are_scored_after_post_processing_and_objects_and_calibration_are_not(
    project, monkeypatch, capsys
):
    plain = contents(run(project, monkeypatch))
    folder = project / "models/unet-0"
    before = (folder / "model.json").read_bytes()
    entry = {"background": 0, "steps": [{"operation": "min_area", "class_index": 1, "area": 60}]}
    try:
        rewrite(folder, lambda description: description.update(postprocess=entry))
        changed = contents(run(project, monkeypatch))
    finally:
        (folder / "model.json").write_bytes(before)
    words = f"{load_description(folder)['classes'][1]}: components under 60 pixels removed"
    assert f"evaluate unet-0: post-processing: {words}" in capsys.readouterr().out
    summaries = [json.loads(files.pop("summary.json")) for files in (plain, changed)]
    assert summaries[1] == summaries[0] | {"postprocess": words}
    differing = {Path(name).name for name in plain if plain[name] != changed[name]}
    pictures = {name for name in differing if name.endswith(".png")}
    assert pictures and differing - pictures == {"counts.parquet", "confusion.csv"}
    steps, matrix = Postprocess.of({"postprocess": entry}), np.zeros((2, 2), int)
    data = PreparedData(project / "data/prepared")
    for region in regions_of_test(data)["id"]:
        first, made = (
            np.asarray(Image.open(BytesIO(files[f"predictions/{region}.png"]))) for files in (plain, changed)
        )
        patch = data.read_input(region)
        np.testing.assert_array_equal(made, steps.applied(first, patch.valid))
        np.add.at(matrix, (patch.label[patch.label != 255], made[patch.label != 255]), 1)
    table = pd.read_csv(BytesIO(changed["confusion.csv"]))
    np.testing.assert_array_equal(table.drop(columns="truth"), matrix)
