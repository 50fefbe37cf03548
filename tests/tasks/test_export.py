"""The command `export`, and the commands that run what it wrote."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

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
from tasks.export import main, run_export
from tasks.ingest import ingest
from tasks.predict import run_prediction
from tasks.prepare import prepare
from tasks.project import PREPARED, data_fingerprint
from tasks.reporting.runtimes import runtimes_view
from tasks.runtime_speed import measure_runtimes
from tests.support.bundles import rewrite
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
    with pytest.raises(ParamsError, match=r"^format 'onyx' is unknown") as caught:
        run_export(project, MODEL, ["onnx", "onyx"])
    assert "onnx" in caught.value.remedy and "pt2" in caught.value.remedy
    with pytest.raises(ParamsError, match=r"^no format is named"):
        run_export(project, MODEL, [])
    with pytest.raises(ModelError, match="no model bundle"):
        run_export(project, "models/nothing", ["onnx"])
    Path("file").touch()
    with pytest.raises(DataError, match="file is a file"):
        run_export(project, MODEL, ["onnx"], Path("file"))


def test_formats_that_a_model_cannot_have_are_named_with_the_others(project: Params):
    with pytest.raises(ModelError, match=r"Deepness cannot run .*; nothing was written") as caught:
        run_export(project, MODEL, ["onnx", "deepness", "pt2"], Path("others"))
    assert "leave out deepness, and ask for onnx,pt2" in caught.value.remedy
    with pytest.raises(ModelError) as caught:
        run_export(project, MODEL, ["deepness"], Path("others"))
    assert "leave out" not in caught.value.remedy and not Path("others").exists()


def test_a_bundle_without_colors_is_refused_at_once(project: Params, capsys: pytest.CaptureFixture[str]):
    rewrite(Path(MODEL), lambda description: description.pop("colors"))
    with pytest.raises(ModelError, match="colors"):
        run_export(project, MODEL, ["onnx"])
    assert capsys.readouterr().out == ""


def other_model(folder: Path) -> str:
    """A bundle of other weights."""
    torch.manual_seed(1)
    model = build_model("unet", 3, 2, encoder="plain", width=4).eval()
    folder.mkdir(parents=True)
    save_bundle(folder, model, "unet", {"classes": ["a", "b"], "colors": [[0, 0, 0], [1, 1, 1]]})
    return str(folder)


def test_a_model_of_the_same_name_does_not_replace_an_export(project: Params):
    before = Path("exports/unet-0/onnx/model.onnx").read_bytes()
    address = other_model(Path("elsewhere/unet-0"))
    with pytest.raises(
        ExportError, match=r"has an export of another model, that at the address models/unet-0\n"
    ):
        run_export(project, address, ["onnx"])
    assert Path("exports/unet-0/onnx/model.onnx").read_bytes() == before
    # trained again
    shutil.rmtree(MODEL)
    other_model(Path(MODEL))
    run_export(project, f"./{MODEL}", ["onnx"])
    assert Path("exports/unet-0/onnx/model.onnx").read_bytes() != before


def test_what_an_export_did_not_write_stays(project: Params):
    folder = Path("mine/unet-0/onnx")
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"mine/unet-0/onnx: is in the way, and no export"):
        run_export(project, MODEL, ["onnx"], Path("mine"))
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    shutil.rmtree(folder)
    folder.touch()
    with pytest.raises(ExportError, match="is in the way"):
        run_export(project, MODEL, ["onnx"], Path("mine"))
    assert folder.is_file()
    # in place of the model's folder
    shutil.rmtree("mine/unet-0")
    Path("mine/unet-0").touch()
    with pytest.raises(DataError) as caught:
        run_export(project, MODEL, ["onnx"], Path("mine"))
    assert "move away" in caught.value.remedy


def test_an_export_that_fails_leaves_no_folder(project: Params):
    with pytest.raises(ExportError):
        run_export(project, MODEL, ["onnx"], Path("fresh"), tolerance=0)
    assert not Path("fresh").exists()


@pytest.mark.slow
def test_an_export_waits_for_another_one_of_the_same_folder(project: Params):
    command = [sys.executable, "-m", "tasks", "export", "--model", MODEL, "--output", "others"]
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    both = [subprocess.Popen(command, env=here, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [one.communicate()[1] for one in both]
    assert [one.returncode for one in both] == [0, 0], errors


@pytest.mark.parametrize("text", ["abc", "nan", "inf", "-1"])
def test_a_tolerance_that_is_no_finite_number_is_refused(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.argv", ["export", "--tolerance", text])
    with pytest.raises(SystemExit):
        main()
    assert f"argument --tolerance: {text!r} is not a number from 0 on" in capsys.readouterr().err


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
    line = next(line for line in capsys.readouterr().out.splitlines() if "by ONNX Runtime" in line)
    # the model is evaluated as well: an evaluation in evaluations/ may be of other weights
    by_file, by_model = line.partition("by ONNX Runtime ")[2].split(", of the model itself ")
    assert by_file == by_model and not Path("evaluations").exists()


def test_latencies_are_measured_once_for_models_with_an_export(project: Params):
    assert measure_runtimes(project) == ["unet-0"] and measure_runtimes(project) == []
    cost = read_cost(Path(), "unet-0")
    assert cost is not None and {"eager", "onnx"} <= set(cost[RUNTIME_SPEED]["figures"])
    view = runtimes_view({"unet": cost}, {"unet": "U-Net"})
    assert view is not None and view["columns"][:2] == ["PyTorch", "ONNX Runtime"]
    assert view["rows"][0]["title"] == "U-Net" and all(cell[0] != "–" for cell in view["rows"][0]["cells"])
    # as of a registered version
    Path("exports/unet-0").rename("exports/tiny-3")
    assert measure_runtimes(project, again=True) == ["unet-0"]
    shutil.rmtree("exports")
    assert measure_runtimes(project) == []
    assert RUNTIME_SPEED not in (read_cost(Path(), "unet-0") or {})


def test_the_first_seed_with_an_export_is_measured(project: Params):
    seeds = project.model_copy(update={"seeds": [4, 0]})
    shutil.copytree(MODEL, "models/unet-4")
    assert measure_runtimes(seeds) == ["unet-4"]
    Path("models/unet-4/model.json").unlink()
    assert measure_runtimes(seeds) == ["unet-0"]


def test_latencies_are_not_of_a_file_with_another_description(project: Params):
    record = Path("exports/unet-0/onnx/export.json")
    record.write_text(json.dumps({**json.loads(record.read_text()), "description_sha256": "0" * 64}))
    assert measure_runtimes(project) == []


def test_latencies_of_files_are_per_megapixel_and_8_bit_weights_are_named():
    def figure(title: str, *milliseconds: float) -> dict[str, Any]:
        keys = ("latency_ms", "latency_low_ms", "latency_high_ms")
        facts = {"title": title, "latency_tile": 500, "latency_rounds": 9, "precision": "bf16"}
        return {**dict(zip(keys, milliseconds, strict=True)), **facts}

    figures = {"eager": figure("PyTorch", 50, 48, 51), "onnx": figure("ONNX Runtime", 40, 39, 49)}
    speed = {"machine": "CPU", "figures": figures}
    view = runtimes_view({"unet": {RUNTIME_SPEED: speed}}, {"unet": "U-Net"})
    assert view["rows"][0]["cells"] == [("200.0", "192.0 to 204.0"), ("160.0", "156.0 to 196.0")]
    assert "exported files in fp32; CPU" in view["note"]
    assert "No order of times is shown for U-Net: rounds disagree by 25 %." in view["note"]
    figures |= {"onnx": figure("ONNX Runtime", 40, 39, 41), "onnx_int8": figure("8 bits", 60, 59, 61)}
    note = runtimes_view({"unet": {RUNTIME_SPEED: speed}}, {"unet": "U-Net"})["note"]
    assert "8-bit weights partly in integers of 8 bits" in note and "No order" not in note


def test_views_without_measured_files_are_none():
    assert runtimes_view({"unet": {"latency_ms": 3.0}}, {"unet": "U-Net"}) is None
