"""Files of an evaluation of an instance network, and a comparison of it with a semantic one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from segcore import params
from segcore.comparison.leaderboard import network_kind
from segcore.data.prepared import PreparedData
from segcore.data.prepared import test_regions as regions_of_test
from segcore.errors import ParamsError
from segcore.models.base.bundle import load_description
from tasks import compare, measure
from tests.support.numbered_project import evaluated, trained


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a U-Net and a SOLOv2 that were trained for some steps on images with objects."""
    return trained(tmp_path_factory.mktemp("project"), ["unet", "solo"], 8)


def run(project: Path, monkeypatch: pytest.MonkeyPatch, architecture: str = "solo", **settings: Any) -> Path:
    """The folder of an evaluation with other settings, without measured costs."""
    return evaluated(project, monkeypatch, architecture, **settings)


def test_the_summary_says_how_an_instance_network_was_evaluated(project, monkeypatch):
    folder = run(project, monkeypatch)
    summary = json.loads((folder / "summary.json").read_text())
    description = load_description(project / "models/solo-0")
    chosen = description["objects"]["network"]
    assert (summary["kind"], summary["score"], summary["tile"]) == (
        "instance",
        chosen["score"],
        description["tile"],
    )
    assert summary["objects"] == {
        "method": "network",
        **{key: chosen[key] for key in ("score", "precision", "recall", "count_bias")},
        "validation": {"network": chosen["f1"]},
        "counts": chosen["counts"],
        "truth": "given",
    }
    table = pd.read_parquet(folder / "objects.parquet")
    assert set(table["kind"]) >= {"image", "truth"}


def test_without_objects_the_pixels_are_the_same(project, monkeypatch):
    with_objects = (run(project, monkeypatch) / "counts.parquet").read_bytes()
    folder = run(project, monkeypatch, objects="none")
    assert (folder / "counts.parquet").read_bytes() == with_objects
    assert not (folder / "objects.parquet").exists()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["kind"] == "instance" and "objects" not in summary
    assert not list(folder.glob("predictions/*.tif"))


def test_both_kinds_are_compared_by_pixels_and_by_objects(project, monkeypatch):
    for architecture in ("unet", "solo"):
        run(project, monkeypatch, architecture)
    comparison = compare.build(project, params.load())
    rows = {row.architecture: row for row in comparison.models}
    assert {name: network_kind(row) for name, row in rows.items()} == {
        "unet": "semantic, components",
        "solo": "instance, own objects",
    }
    for row in rows.values():
        assert {"iou/dataset/foreground_mean", "pq/dataset/foreground_mean"} <= set(row.scores)
    assert (
        "SOLOv2" in comparison.verdict
        and " GMACs for 256x256 pixels; SOLOv2 predicts 64x64 pixels in " in comparison.verdict
    )
    assert comparison.objects is not None and set(comparison.objects.operating) >= set(rows)
    compare.write(comparison, project / "comparison")
    board = pd.read_csv(project / "comparison/leaderboard.csv")
    assert board.set_index("architecture").loc["solo", "network"] == "instance, own objects"


def test_flips_are_refused(project, monkeypatch):
    with pytest.raises(ParamsError, match="SOLOv2 finds objects"):
        run(project, monkeypatch, flips=True)


def test_an_instance_network_is_measured_on_pixels_with_an_object(project, monkeypatch):
    monkeypatch.chdir(project)
    bundles = [Path("models/unet-0"), Path("models/solo-0")]
    prepared = Path("data/prepared")
    assert measure.pixels_of_objects(bundles[:1], prepared, 40) is None
    assert measure.pixels_of_objects(bundles, Path("nowhere"), 40) is None
    pixels = measure.pixels_of_objects(bundles, prepared, 40)
    data = PreparedData(prepared)
    crops = [
        data.crop(row.item, row.row, row.col, *pixels.shape[:2], instances=True)
        for row in regions_of_test(data).itertuples()
    ]
    (same,) = [crop for crop in crops if np.array_equal(crop.image, pixels)]
    assert same.instances.any() and min(pixels.shape[:2]) >= 40
    # in a process of its own
    (cost,) = measure.measure(bundles[1:], 40, rounds=1)
    assert cost["latency_tile"] == 40 and cost["latency_ms"] > 0 and cost["peak_memory_mb"] > 50
