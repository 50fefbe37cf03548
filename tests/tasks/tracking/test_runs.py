"""Trainings, evaluations and comparisons logged to a real embedded MLflow store."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from segcore.comparison.results import LeaderboardRow, Score, read_comparison
from segcore.errors import StageError
from segcore.params import Params, load
from tasks.tracking import runs as tracking
from tasks.tracking import store
from tasks.tracking.tracker import Tracker

ROOT = Path(__file__).parents[3]
OLD = ROOT / "tests/support/old"
HEADLINE = "iou/dataset/foreground_mean"
SUMMARY = {"parameters": 1, "macs": 1, "receptive_field": 1}
TRAIN = """\
import sys, time
from pathlib import Path
from segcore.params import load
from tasks.tracking import runs as tracking
from tasks.tracking.tracker import Tracker
params = load(sys.argv[1])
with tracking.training_run(Tracker.open(params), params, "unet", int(sys.argv[2]), "U-Net") as run:
    for step in range(int(sys.argv[3])):
        run.log_step({"train/loss": 1.0, "val/iou": 0.5}, step)
    Path(f"ready-{sys.argv[2]}").touch()
    while sys.argv[3] == "0":
        time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder without a store: the first test opens it from several processes at the same time."""
    folder = tmp_path_factory.mktemp("project")
    text = (ROOT / "params.yaml").read_text().replace("system_metrics: true", "system_metrics: false")
    (folder / "params.yaml").write_text(text)
    (folder / "train.py").write_text(TRAIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield folder


@pytest.fixture
def params(project: Path) -> Params:
    return load(project / "params.yaml")


def start(project: Path, seed: int, steps: int) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "train.py", "params.yaml", str(seed), str(steps)]
    return subprocess.Popen(command, cwd=project, env=env)


def runs(params: Params, seed: int) -> list[Run]:
    client = Tracker.open(params).client
    experiment = Tracker.open(params).experiment()
    return list(client.search_runs([experiment], f"tags.seed = '{seed}' and tags.kind = 'training'"))


def test_several_processes_that_log_to_a_new_store_lose_nothing(project: Path, params: Params) -> None:
    together = [start(project, seed, 25) for seed in (10, 11, 12)]
    assert [process.wait(120) for process in together] == [0, 0, 0]
    client = MlflowClient(store.uri(params))
    for seed in (10, 11, 12):
        (run,) = runs(params, seed)
        assert run.info.status == "FINISHED"
        assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 25


def test_sigterm_sets_a_run_to_killed_and_a_run_after_kill_9_is_closed_as_failed(
    project: Path, params: Params
) -> None:
    for seed, number, status in ((20, signal.SIGTERM, "KILLED"), (21, signal.SIGKILL, "RUNNING")):
        process = start(project, seed, 0)
        while not (project / f"ready-{seed}").exists():
            assert process.poll() is None
            time.sleep(0.05)
        if seed == 21:
            assert Tracker.open(params).close_abandoned() == [], "its process is alive"
        process.send_signal(number)
        process.wait(10)
        assert runs(params, seed)[0].info.status == status
    assert Tracker.open(params).close_abandoned() == [runs(params, 21)[0].info.run_id]
    assert runs(params, 21)[0].info.status == "FAILED"


@pytest.fixture
def sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> dict[str | None, str]:
    """Run keys by stage, in place of DVC's; None is the stage of this process."""
    by_stage: dict[str | None, str] = {}
    monkeypatch.setattr(tracking.stages, "run_key", lambda stage=None: by_stage.get(stage))
    monkeypatch.setattr(tracking.stages, "run_keys", lambda: by_stage)
    return by_stage


@pytest.mark.usefixtures("project", "sigterm")
def test_failed_training_resumes_its_run_and_a_finished_one_does_not(
    params: Params, keys: dict[str | None, str]
) -> None:
    keys[None] = "a" * 64
    with (
        pytest.raises(ValueError, match="broken"),
        tracking.training_run(Tracker.open(params), params, "unet", 30, "U-Net") as first,
    ):
        raise ValueError("broken")
    assert runs(params, 30)[0].info.status == "FAILED"
    with tracking.training_run(Tracker.open(params), params, "unet", 30, "U-Net") as second:
        second.log_step({"train/loss": 0.5}, 1)
    assert second.id == first.id and runs(params, 30)[0].info.status == "FINISHED"
    with tracking.training_run(Tracker.open(params), params, "unet", 30, "U-Net") as third:
        pass
    assert third.id != first.id


@pytest.mark.usefixtures("project", "sigterm")
def test_a_workers_measurements_are_copied_to_the_client_and_its_dead_run_is_closed(
    tmp_path: Path, params: Params, keys: dict[str | None, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys |= {None: "e" * 64, "train@unet-60": "e" * 64}
    monkeypatch.setenv("SEGFLOW_FLOW_RUN_ID", "flow-run-of-a-worker")
    with tracking.training_run(Tracker.open(params), params, "unet", 60, "U-Net") as run:
        assert Tracker.open(params).close_of_flow_run("another") == []
        assert Tracker.open(params).close_of_flow_run("flow-run-of-a-worker") == [run.id]
    (tmp_path / "unet-60-0123456789ab.json").write_text('{"latency_ms": 3}')
    assert not tracking.fetch_costs(Tracker.open(params), "unet", 60, tmp_path / "client"), (
        "nothing was measured yet"
    )
    measured = tmp_path / "unet-60-0123456789ab.json"
    tracking.log_evaluation(
        Tracker.open(params), "unet", 60, {"iou/dataset/foreground_mean": 0.5}, costs=measured
    )
    assert tracking.fetch_costs(Tracker.open(params), "unet", 60, tmp_path / "client")
    fetched = tmp_path / "client/work/costs" / measured.name
    assert fetched.read_text() == measured.read_text()
    assert [p.name for p in (tmp_path / "client/work").iterdir()] == ["costs"]


@pytest.mark.usefixtures("project", "sigterm")
def test_evaluation_and_comparison_find_the_original_run(
    tmp_path: Path, params: Params, keys: dict[str | None, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking.stages, "data_version", lambda: "f" * 32)
    params = params.model_copy(update={"architectures": ["unet", "fcn"], "seeds": [40]})
    keys |= {None: "b" * 64, "train@unet-40": "b" * 64, "train@fcn-40": "c" * 64, "report": "d" * 64}
    with tracking.training_run(Tracker.open(params), params, "unet", 40, "U-Net"):
        pass
    Image.new("RGB", (8, 8)).save(tmp_path / "case.png")
    scores = {"iou/dataset/bâtiment (dur)": 0.5}
    run_id = tracking.log_evaluation(
        Tracker.open(params), "unet", 40, scores, [tmp_path], {"test_gallery": [tmp_path / "case.png"]}
    )
    client = Tracker.open(params).client
    (run,) = runs(params, 40)
    assert run.info.run_id == run_id and run.data.metrics["test/iou.dataset.bâtiment _dur_"] == 0.5
    assert {f.path for f in client.list_artifacts(run_id)} == {"evaluation", "images"}
    assert tracking.log_evaluation(Tracker.open(params), "fcn", 40, scores) is None, "trained elsewhere"
    row = LeaderboardRow("unet", "U-Net", "model", 1, 1, {HEADLINE: Score(0.5, 0.4, 0.6, None)}, SUMMARY)
    comparison = replace(read_comparison(OLD / "comparison.json"), leaderboard=[row])
    first = tracking.log_comparison(Tracker.open(params), params, comparison, [tmp_path])
    again = tracking.log_comparison(Tracker.open(params), params, comparison, [tmp_path])
    assert again == first, "nothing has changed, so there is no new run"
    created = client.get_run(first)
    (dataset,) = created.inputs.dataset_inputs
    assert dataset.dataset.digest == "f" * 12 and dataset.tags[0].value == "evaluation"
    assert created.info.status == "FINISHED" and created.data.tags["runs_elsewhere"] == "train@fcn-40"
    assert runs(params, 40)[0].data.tags["comparison"] == created.data.tags["comparison"]
    keys["report"] = "e" * 64
    assert tracking.log_comparison(Tracker.open(params), params, comparison) != first


@pytest.mark.usefixtures("project")
def test_experiments_are_of_model_trainings_unless_another_kind_was_chosen(params: Params) -> None:
    client, kind = Tracker.open(params).client, "mlflow.experimentKind"
    # of an earlier version of segflow
    client.create_experiment("earlier")
    client.create_experiment("chosen", tags={kind: "classification"})
    wanted = {
        "earlier": "custom_model_development",
        "chosen": "classification",
        "new": "custom_model_development",
    }
    for name, value in wanted.items():
        tracker = Tracker.open(params)._replace(dataset=name)
        assert client.get_experiment(tracker.experiment()).tags[kind] == value


@pytest.mark.usefixtures("project")
def test_a_file_that_is_not_a_store_is_reported(params: Params, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, but as long as the header of one" * 20)
    with pytest.raises(StageError, match=r"mlflow\.db") as caught:
        store.ensure_store(f"sqlite:///{tmp_path}/mlflow.db")
    assert "tracking.uri" in caught.value.remedy


@pytest.mark.usefixtures("project")
def test_a_store_whose_creation_was_killed_is_created_again(tmp_path: Path) -> None:
    """At any moment of it: SQLite keeps the tables of the steps that were finished."""
    create = f"from tasks.tracking.store import ensure_store; ensure_store('sqlite:///{tmp_path}/mlflow.db')"
    process = subprocess.Popen([sys.executable, "-c", create], cwd=ROOT)
    file = tmp_path / "mlflow.db"
    while not (file.exists() and file.stat().st_size > 100_000) and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    store.ensure_store(f"sqlite:///{file}")
    assert MlflowClient(f"sqlite:///{file}").search_experiments()


def test_any_number_of_scores_is_logged(project: Path, params: Params) -> None:
    scores = {f"test/{i}": float(i) for i in range(1001)}
    with tracking.training_run(Tracker.open(params), params, "unet", 78, "U-Net") as run:
        run.log_step(scores)
    assert run.client.get_run(run.id).data.metrics == scores


def test_a_parameter_that_cannot_change_becomes_a_tag(project: Path, params: Params) -> None:
    with tracking.training_run(Tracker.open(params), params, "unet", 77, "U-Net") as run:
        run.log_params({"machine.threads": 2})
        run.log_params({"machine.threads": 4, "machine.device": "cpu"})
    (logged,) = runs(params, 77)
    assert logged.data.params["machine.threads"] == "2" and logged.data.tags["machine.threads"] == "4"
    assert logged.data.params["machine.device"] == "cpu" and "machine.device" not in logged.data.tags


def test_classes_of_any_script_keep_their_own_keys(project: Path, params: Params) -> None:
    tracker = Tracker.open(params)
    run = tracker.create("names", "training")
    names = ["背景", "水体", "林地", "建筑", "лес", "луг", "غابة", "tree (dead)", "पानी", "पाना"]
    run.log_step({f"test/iou.dataset.{name}": index for index, name in enumerate(names)})
    logged = tracker.client.get_run(run.id).data.metrics
    assert sorted(logged.values()) == list(range(len(names)))
    assert logged["test/iou.dataset.水体"] == 1 and logged["test/iou.dataset.tree _dead_"] == 7
    tracker.client.set_terminated(run.id, "FINISHED")
