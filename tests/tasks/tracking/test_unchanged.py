"""An unchanged rerun skips MLflow only where MLflow could have nothing to be told."""

from pathlib import Path

import pytest

from segcore.params import Params, load
from tasks.tracking import store, unchanged

ROOT = Path(__file__).parents[3]


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Of a folder with a result and a store that has the dataset's experiment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "dvc.lock").write_text("stages: {}\n")
    found = load(tmp_path / "params.yaml")
    store.experiment(store.client(found), found.data.name)
    return found


def test_settled_until_results_store_or_comparison_change(params: Params) -> None:
    assert not unchanged.is_settled(params), "nothing was logged yet"
    unchanged.settle(params)
    assert unchanged.is_settled(params)
    assert not unchanged.is_settled(params.model_copy(update={"seeds": [0, 1, 2]}))

    Path("dvc.lock").write_text("stages: {a: 1}\n")
    assert not unchanged.is_settled(params), "another result"
    unchanged.settle(params)
    assert unchanged.is_settled(params)

    client = store.client(params)
    run = client.create_run(store.experiment(client, params.data.name)).info.run_id
    assert not unchanged.is_settled(params), "somebody logged, or deleted, something"
    unchanged.settle(params)
    assert not unchanged.is_settled(params), "a run under way may die, which the next flow must notice"
    client.set_terminated(run)
    unchanged.settle(params)
    assert unchanged.is_settled(params)


def test_a_server_is_always_asked(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    unchanged.settle(params)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert not unchanged.is_settled(params)
