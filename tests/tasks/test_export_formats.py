"""Exports of one model in several formats, compared with it on held-out regions."""

import json
from pathlib import Path

import pytest

from segcore import params
from segcore.errors import ExportError
from segcore.files import sha256
from tasks.export import run_export
from tests.support.numbered_project import trained
from tests.support.stac_validation import validate_item

pytestmark = pytest.mark.slow
_MODEL = "models/unet-0"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("project"), ["unet"], 40)


@pytest.fixture(autouse=True)
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_formats_that_do_not_round_give_the_score_of_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    folders = run_export(params.load(), _MODEL, ["pt2", "deepness"])
    assert folders == [Path("exports/unet-0/pt2"), Path("exports/unet-0/deepness")]
    for folder in folders:
        record = json.loads((folder / "export.json").read_text())
        assert record["parity"]["largest_difference"] <= record["tolerance"]
        # images are smaller than the tiles of Deepness, and are padded there
        assert abs(record["parity"]["score"]["loss"]) <= (0.01 if "deepness" in folder.parts else 0)
        assert record["max_loss"] is None
        assert record["sha256"] == sha256(folder / record["file"])
    item = validate_item(folders[0] / "model.pt2.stac.json")
    assert item.properties["segflow:weights_sha256"] == record["weights_sha256"]
    assert "pt2: largest difference 0.0e+00" in capsys.readouterr().out


def test_rounded_weights_are_accepted_by_their_loss_of_score(capsys: pytest.CaptureFixture[str]) -> None:
    (folder,) = run_export(params.load(), _MODEL, ["onnx_int8"], max_loss=1.0)
    record = json.loads((folder / "export.json").read_text())
    score = record["parity"]["score"]
    assert score["loss"] == score["eager"] - score["exported"]
    assert record["tolerance"] is None and record["max_loss"] == 1.0
    text = (folder / "parity.md").read_text()
    assert "has rounded weights: its score is worse by" in text
    assert " pixels with 8-bit weights, the model itself " in text and "pixels in fp32" not in text
    assert "of the model itself" in capsys.readouterr().out


def test_a_larger_loss_of_score_than_accepted_leaves_nothing(tmp_path: Path) -> None:
    # of rounding that loses nothing, too
    with pytest.raises(
        ExportError, match=r"rounded weights change IoU from .* %; a loss of -100\.000 points is accepted"
    ) as error:
        run_export(params.load(), _MODEL, ["onnx_int8"], output=tmp_path, max_loss=-1.0)
    assert "--max-loss" in error.value.remedy
    assert list(tmp_path.rglob("*.onnx")) == []


def test_rounded_weights_without_held_out_data_are_refused(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text((project / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match="what rounded weights lose is unknown"):
        run_export(params.load(), str(project / _MODEL), ["onnx_int8"])
    assert list(tmp_path.rglob("*.onnx")) == []
