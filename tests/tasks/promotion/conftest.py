"""A project with an MLflow store of its own."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from segcore.params import Params
from tasks.tracking import store, tracker
from tests.support.tiny import params_for


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store without runs; to make one takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        store.ensure_store(f"sqlite:///{folder}/mlflow.db")
    return folder


@pytest.fixture
def p(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Params]:
    """Parameters of a project in the current folder, with an empty store of its own."""
    folder = tmp_path / "project"
    shutil.copytree(empty_store, folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (folder / "mlruns").mkdir(exist_ok=True)
    yield params_for("source", data={"name": "x"})
    tracker._client.cache_clear()
