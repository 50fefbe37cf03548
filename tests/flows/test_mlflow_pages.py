"""Addresses in MLflow's UI open in its view of model trainings."""

from pathlib import Path

import pytest

from flows import mlflow_pages, ui
from tasks.tracking.tracker import Tracker
from tests.support.tiny import params_for


def test_make_ui_prints_the_page_of_the_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    params = params_for("source")
    monkeypatch.setattr(ui.parameters, "load", lambda: params)
    ui.start({"MLflow": ("http://127.0.0.1:5009", None)})
    assert capsys.readouterr().out == "MLflow:   http://127.0.0.1:5009\n", "there is no experiment yet"
    experiment = Tracker.open(params).experiment()
    ui.start({"MLflow": ("http://127.0.0.1:5009", None)})
    page = f"/#/experiments/{experiment}?workflowType=machine_learning"
    assert capsys.readouterr().out == f"MLflow:   http://127.0.0.1:5009{page}\n"
    assert mlflow_pages.page(params) == f"http://127.0.0.1:5000{page}"
