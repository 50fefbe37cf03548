"""Surfaces of tiny NIfTI volumes from the files to the table, the scores, the comparison and the pages."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from segcore import params
from segcore.constants import IGNORE
from segcore.data.prepared import PreparedData
from segcore.data.prepared import test_regions as regions_of_test
from segcore.errors import DataError
from segcore.evaluation.evaluate import evaluate as evaluate_model
from segcore.models.base.bundle import load_description, read_bundle
from segcore.tables.surfaces import SUMS, Surfaces, surface_sums
from tasks import compare, evaluate
from tasks.ingest import ingest
from tasks.prepare import prepare
from tasks.promotion import candidates, costs, decision
from tasks.report import report, scores_markdown
from tasks.tracking import runs
from tasks.tracking.scores import log_lacking_scores
from tasks.tracking.tracker import Tracker
from tasks.train import train
from tests.support.numbered_project import COST
from tests.support.tiny import blobs, values_for
from tests.support.volumes import affine_for, write_nifti
from tests.tasks.promotion.test_candidates import _context

pytestmark = pytest.mark.slow

# of the stored axes; planes of (z, y, x) are 3.5, 0.8 and 1.3 mm apart
SPACING = (1.3, 0.8, 3.5)
# stored with axes that are turned and mirrored; rows shift from plane to plane, as with a tilted gantry
AFFINE = affine_for("LPS", SPACING)
AFFINE[1, 2] = 1.1


def write_volumes(source: Path, affine: np.ndarray) -> None:
    """Two scans of each of ten patients, (24, 20, 5), with a ball, and one voxel that is not labelled."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in (24, 20, 5)), indexing="ij"))
    for number in range(20):
        rng = np.random.default_rng(number)
        centre = rng.uniform((9, 8, 1.5), (15, 12, 2.5))
        mask = (((grid - centre.reshape(3, 1, 1, 1)) ** 2).sum(0) < 25).astype(np.uint8)
        image = rng.normal(60, 20, mask.shape) + 80 * mask
        mask[0, 0, 0] = 9
        name = f"p{number // 2}_{number % 2}.nii.gz"
        write_nifti(source / "images" / name, image.astype(np.int16), affine)
        write_nifti(source / "masks" / name, mask, affine)


def values() -> dict[str, Any]:
    of_volumes = {
        "images": "images/{patient}_{scan}.nii.gz",
        "masks": "masks/{patient}_{scan}.nii.gz",
        "group": "{patient}",
        "label_values": {0: 0, 1: 1, 9: "ignore"},
    }
    settings = {"evaluate": {"surface_tolerance": 1.5}, "split": {"links": []}, "architectures": ["unet"]}
    return values_for("source", data=of_volumes, **settings)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a U-Net that was trained for some steps on volumes, evaluated and compared."""
    root = tmp_path_factory.mktemp("volumes")
    write_volumes(root / "source", AFFINE)
    (root / "params.yaml").write_text(yaml.safe_dump(values()))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
        patch.setattr(evaluate, "measure", lambda folders, *_: [{"peak_memory_mb": 700.0} for _ in folders])
        p = params.load()
        ingest(p.data)
        prepare(p, registry=Path("splits/tiny.csv"), work=Path("work"))
        for architecture in p.architectures:
            train(p, architecture, 0)
            evaluate.run_evaluation(p, architecture, 0)
        compare.write(compare.build(root, p), root / "comparison")
    return root


def test_the_table_has_the_surfaces_of_each_volume_by_its_affine(project: Path) -> None:
    folder = project / "evaluations/unet-0"
    table, data = pd.read_parquet(folder / "surfaces.parquet"), PreparedData(project / "data/prepared")
    regions = regions_of_test(data)
    volumes = sorted(set(data.items.loc[regions["item"], "volume"]))
    assert sorted(table["volume"]) == volumes and len(volumes) == 6
    assert set(table["cluster"]) == set(regions["cluster"]) and table["cluster"].nunique() == 3
    for row in table.itertuples():
        stored = [
            np.asarray(nibabel.load(path).dataobj).astype(np.uint8)
            for path in (
                folder / f"volumes/{row.volume}.nii.gz",
                project / f"source/masks/{row.volume}.nii.gz",
            )
        ]
        prediction, label = stored[0], np.where(stored[1] == 9, IGNORE, stored[1])
        (expected,) = surface_sums(prediction, label, [1], AFFINE[:3, :3].T, 1.5)
        assert np.allclose([getattr(row, name) for name in SUMS], expected)
    assert json.loads((folder / "summary.json").read_text())["surfaces"] == {"tolerance": 1.5}


def test_scores_of_surfaces_are_logged_and_those_that_a_run_lacks_are_added(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
    p = params.load()
    tracker = Tracker.open(p)
    logged = runs.training_of(tracker, "train@unet-0", None).data.metrics
    keys = [f"test/{name}.dataset.square" for name in ("hd95", "nsd", "assd")]
    assert set(keys) <= set(logged)
    with runs.training_run(tracker, p, "unet", 1, "U-Net") as other:
        other.log_step({key: value for key, value in logged.items() if key not in keys})
    earlier = tracker.client.get_run(other.id).data.metrics
    log_lacking_scores(other, {"test/iou.dataset.square": 0.5}, p.data.foreground, Path("evaluations/unet-0"))
    completed = tracker.client.get_run(other.id).data.metrics
    assert {key: completed[key] for key in keys} == {key: logged[key] for key in keys} and earlier


def test_the_comparison_has_distances_in_mm_with_intervals(project: Path) -> None:
    content = json.loads((project / "comparison/comparison.json").read_text())
    assert content["surfaces"]["volumes"] == 6 and content["surfaces"]["tolerance"] == 1.5
    for row in content["leaderboard"]:
        table = pd.read_parquet(project / f"evaluations/{row['architecture']}-0/surfaces.parquet")
        hd95 = table[["true_p95", "predicted_p95"]].max(axis=1).groupby(table["cluster"]).mean()
        score = row["scores"]["hd95/dataset/square"]
        assert score["estimate"] == pytest.approx(hd95.mean(), abs=1e-6)
        assert hd95.min() - 1e-6 <= score["low"] <= score["estimate"] <= score["high"] <= hd95.max() + 1e-6
    board = pd.read_csv(project / "comparison/leaderboard.csv")
    assert "hd95/dataset/foreground_mean low" in board and "nsd/image/square" in board


@pytest.mark.parametrize("metric", ["iou", "hd95", "nsd"])
def test_the_pages_show_surfaces_also_as_ranking(
    project: Path, monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    monkeypatch.chdir(project)
    loaded = params.load()
    p = loaded.model_copy(update={"compare": loaded.compare.model_copy(update={"metric": metric})})
    comparison = compare.build(project, p)
    compare.write(comparison, project / "comparison")
    folder = report(project, p, PreparedData(project / "data/prepared"))
    page = (folder / "index.html").read_text()
    assert "NSD: surfaces within 1.5 mm" in page and "Surfaces of volumes" in page
    others = [name for name in ("HD95 (mm)", "NSD (%)", "ASSD (mm)") if not name.startswith(metric.upper())]
    assert all(f">{name}</span>" in page for name in others)
    assert ('<th class="group" colspan="2">Surfaces (mm)</th>' in page) == (metric == "hd95")
    pooled = f"scores of pixels pool those of all {comparison.test_images} test images"
    assert f"Scores of surfaces are means of the {comparison.clusters} groups" in page and pooled in page
    assert "Scores pool the pixels" not in page and "0 mm in distances of surfaces" in page
    for text in ((folder / "report.md").read_text(), scores_markdown(comparison)):
        assert "0 mm in distances of surfaces." in text
        assert "NSD: surfaces within 1.5 mm" in text and "HD95 dataset, foreground (mm)" in text
    if metric == "hd95":
        assert " mm" in comparison.verdict and "(dataset HD95 " in comparison.verdict


def test_pages_of_a_file_have_no_surfaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(10):
        planes = [blobs(32, 32, seed=3 * number + k) for k in range(3)]
        save_pages(tmp_path / f"source/images/a{number}.tif", [image[..., 0] for image, _ in planes])
        save_pages(tmp_path / f"source/masks/a{number}.tif", [mask for _, mask in planes])
    p = params.Params.model_validate(
        values_for(
            "source",
            data={
                "images": "images/*.tif",
                "masks": "masks/{stem}.tif",
                "label_values": {0: 0, 1: 1},
                "pages": "planes",
            },
            split={"links": []},
        )
    )
    ingest(p.data)
    prepare(p, registry=Path("splits/tiny.csv"), work=Path("work"))
    data = PreparedData(Path("data/prepared"))
    surfaces = Surfaces(data, 2.0)
    for region in regions_of_test(data)["id"]:
        label = data.read(region).label
        surfaces.add(region, label, label)
    assert surfaces.table() is None


def test_a_volume_without_some_of_its_planes_is_an_error(project: Path) -> None:
    data = PreparedData(project / "data/prepared")
    first, *others = regions_of_test(data)["id"]
    surfaces = Surfaces(data, 2.0)
    for region in others:
        label = data.read(region).label
        surfaces.add(region, label, label)
    with pytest.raises(DataError, match=f"1 volumes lack planes.*{data.volume_of(first)[0]}"):
        surfaces.table()
    # a part of a plane is none
    surfaces.add(first, label[:10], label[:10])
    with pytest.raises(DataError, match="1 volumes lack planes"):
        surfaces.table()


def test_a_choice_of_regions_has_no_surfaces(project: Path) -> None:
    data, bundle = PreparedData(project / "data/prepared"), read_bundle(project / "models/unet-0")
    chosen = regions_of_test(data).iloc[1:4]
    found = evaluate_model(bundle.model(), data, params.load().evaluate, "fp32", regions=chosen)
    assert found.surfaces is None and set(found.counts["item"]) == set(chosen["id"])


def save_pages(path: Path, pages: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = [Image.fromarray(page) for page in pages]
    first.save(path, save_all=True, append_images=others)


def test_the_gate_decides_by_distances_of_a_champion_that_is_evaluated_once(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    p, data, folder = params.load(), PreparedData(project / "data/prepared"), tmp_path / "unet-0"
    shutil.copytree(project / "models/unet-0", folder)
    p = p.model_copy(update={"compare": p.compare.model_copy(update={"metric": "hd95"})})
    context, description = _context(p, data, tmp_path), load_description(folder)
    counts, objects, surfaces, curves = candidates._evaluated(context, folder, description)
    stored = pd.read_parquet(project / "evaluations/unet-0/surfaces.parquet")
    for found in (surfaces, candidates._evaluated(context, folder, description)[2]):
        pd.testing.assert_frame_equal(found.reset_index(drop=True), stored)
    champion = candidates.Model(folder, description, counts, 0.5, curves, objects, surfaces=surfaces)
    distances = [name for name in SUMS if name.endswith(("_distance", "_p95"))]
    exact = surfaces.assign(**dict.fromkeys(distances, 0.0))
    other = description | {"weights_sha256": "0" * 64, "title": "Other"}
    challenger = replace(champion, description=other, surfaces=exact)
    monkeypatch.setattr(candidates, "champion", lambda *_: champion)
    monkeypatch.setattr(costs, "measure", lambda folders, *_: [dict(COST) for _ in folders])
    holder: Any = SimpleNamespace(version=1, run_id="run")
    record = decision.new_decision(context, [challenger], holder, [], "inputs", "key")
    assert record.challengers[0].scores["frozen"] == 0 < record.champion.scores["frozen"]
    assert record.outcome == "refused" and "Other scores 0 mm (better by " in record.reason
