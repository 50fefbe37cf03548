"""The command `export`, and the commands that run what it wrote."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from segcore import params
from segcore.data.prepared import PreparedData
from segcore.errors import DataError, ExportError, ModelError, ParamsError
from segcore.export import RECORD
from segcore.models.base.bundle import save_bundle
from segcore.models.base.factory import build_model
from segcore.params import Params
from tasks.costs import RUNTIME_SPEED, read_cost
from tasks.evaluate_exported import evaluate_exported
from tasks.export import run_export
from tasks.ingest import ingest
from tasks.predict import run_prediction
from tasks.prepare import prepare
from tasks.project import PREPARED, data_fingerprint
from tasks.reporting.runtimes import runtimes_view
from tasks.runtime_speed import measure_runtimes
from tests.support.tiny import make_pairs, values_for

MODEL = "models/unet-0"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with prepared data, a model of random weights, and its ONNX file."""
    folder = tmp_path_factory.mktemp("project")
    make_pairs(folder / "source")
    (folder / "params.yaml").write_text(yaml.safe_dump(values_for("source", architectures=["unet"])))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        p = params.load()
        ingest(p.data)
        prepare(p, registry=Path("splits/tiny.csv"), work=Path("work"))
        data = PreparedData(PREPARED)
        torch.manual_seed(0)
        model = build_model("unet", 3, 2, encoder="plain", width=4).eval()
        model.set_normalization([90.0] * 3, [40.0] * 3)
        Path(MODEL).mkdir(parents=True)
        facts = {"classes": data.classes, "colors": data.colors, "foreground": data.foreground, "tile": 64}
        facts |= {"versions": {"data": data_fingerprint(PREPARED)}, "parameters": {"precision": "fp32"}}
        save_bundle(Path(MODEL), model, "unet", facts)
        run_export(p, MODEL, ["onnx"])
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Parameters of a copy of the project, which is the current folder."""
    folder = shutil.copytree(made, tmp_path / "project")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return params.load()


def test_an_export_has_the_file_its_record_and_the_comparison(project: Params):
    folder = Path("exports/unet-0/onnx")
    assert {path.name for path in folder.iterdir()} == {"model.onnx", RECORD, "parity.md"}
    record = json.loads((folder / RECORD).read_text())
    parity = record["parity"]
    assert record["weights_sha256"] == json.loads(Path(MODEL, "model.json").read_text())["weights_sha256"]
    assert parity["pixels"] == "regions of the test split" and parity["changed"] == 0
    assert 0 < parity["largest_difference"] < 1e-5 or parity["largest_difference"] == 0
    assert parity["score"]["eager"] == pytest.approx(parity["score"]["exported"], abs=1e-6)
    names = {row["input"] for row in parity["inputs"]}
    assert {"3 x 97 x 131, mirrored", "3 x 97 x 131, parts without data", "2 x 5 x 70"} <= names
    assert "| 3 x 97 x 131 |" in (folder / "parity.md").read_text()


def test_a_file_that_differs_leaves_the_earlier_export(project: Params):
    before = {path: path.read_bytes() for path in Path("exports").rglob("*") if path.is_file()}
    with pytest.raises(ExportError, match="differ by up to"):
        run_export(project, MODEL, ["onnx"], tolerance=0.0)
    assert {path: path.read_bytes() for path in Path("exports").rglob("*") if path.is_file()} == before
    with pytest.raises(ExportError, match="differ by up to"):
        run_export(project, MODEL, ["onnx"], Path("others"), tolerance=0.0)
    assert not list(Path("others").glob("*"))


def test_a_model_of_other_data_is_compared_on_random_pixels(
    project: Params, capsys: pytest.CaptureFixture[str]
):
    shutil.rmtree(PREPARED)
    (folder,) = run_export(project, MODEL, ["onnx"], Path("others"))
    assert "random pixels" in capsys.readouterr().out
    assert json.loads((folder / RECORD).read_text())["parity"]["score"] is None


def test_what_is_wrong_is_reported_before_anything_is_computed(project: Params):
    with pytest.raises(ParamsError, match="'onyx' is unknown") as caught:
        run_export(project, MODEL, ["onnx", "onyx"])
    assert "onnx" in caught.value.remedy and "pt2" in caught.value.remedy
    with pytest.raises(ParamsError, match="is empty"):
        run_export(project, MODEL, [])
    with pytest.raises(ModelError, match="no model bundle"):
        run_export(project, "models/nothing", ["onnx"])
    Path("file").touch()
    with pytest.raises(DataError, match="file is a file"):
        run_export(project, MODEL, ["onnx"], Path("file"))


def test_scenes_are_predicted_by_the_file_and_again_by_another_runtime(project: Params):
    scenes = ["source/images/a0.png"]
    assert run_prediction(project, scenes, MODEL)["predicted"] == 1
    assert run_prediction(project, scenes, MODEL, runtime="onnx") == {"predicted": 1, "done before": 0}
    assert run_prediction(project, scenes, MODEL, runtime="onnx") == {"predicted": 0, "done before": 1}
    settings = json.loads(Path("predictions/predictions.json").read_text())["settings"]
    assert settings["runtime"][0] == "onnx" and settings["precision"] == "fp32"
    assert run_prediction(project, scenes, MODEL)["predicted"] == 1


def test_a_missing_or_damaged_export_is_refused_with_the_command_that_writes_it(project: Params):
    with pytest.raises(ExportError, match="there is no exported model") as caught:
        run_prediction(project, ["source/images/a0.png"], MODEL, runtime="pt2")
    assert caught.value.remedy == "run `python -m tasks export --model models/unet-0 --format pt2`"
    os.truncate("exports/unet-0/onnx/model.onnx", 1000)
    with pytest.raises(ExportError, match="damaged") as caught:
        run_prediction(project, ["source/images/a0.png"], MODEL, runtime="onnx")
    assert "--format onnx" in caught.value.remedy
    assert not Path("predictions").exists()


def test_an_evaluation_by_the_file_is_written_beside_it(project: Params, capsys: pytest.CaptureFixture[str]):
    folder = evaluate_exported(project, "unet-0", "onnx")
    assert folder == Path("exports/unet-0/onnx/evaluation-onnx") and (folder / "counts.parquet").is_file()
    assert not Path("evaluations").exists()
    assert "by ONNX Runtime" in capsys.readouterr().out
    shutil.copytree(folder, "evaluations/unet-0")
    evaluate_exported(project, "unet-0", "onnx")
    assert ", of the model itself " in capsys.readouterr().out


def test_latencies_are_measured_once_for_models_with_an_export(project: Params):
    assert measure_runtimes(project) == ["unet-0"] and measure_runtimes(project) == []
    cost = read_cost(Path(), "unet-0")
    assert cost is not None and {"eager", "onnx"} <= set(cost[RUNTIME_SPEED]["figures"])
    view = runtimes_view({"unet": cost}, {"unet": "U-Net"})
    assert view is not None and view["columns"][:2] == ["PyTorch", "ONNX Runtime"]
    assert view["rows"][0]["title"] == "U-Net" and all(cell[0] != "–" for cell in view["rows"][0]["cells"])
    shutil.rmtree("exports")
    assert measure_runtimes(project, again=True) == []
    assert runtimes_view({"unet": {"latency_ms": 3.0}}, {"unet": "U-Net"}) is None
