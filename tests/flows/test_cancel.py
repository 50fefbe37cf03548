"""A retraining that is cancelled ends its training within seconds, and the next one goes on at the checkpoint."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import SyncPrefectClient
from prefect.states import Cancelling

from tests.support import nights, workspaces
from tests.support.serving import served_runs, serving, wait_for

GONE = 15  # seconds for the training to end
STEPS, EVERY = 800, 20


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose training takes so long that it can be cancelled twice, with a checkpoint every few steps."""
    folder = nights.project(tmp_path_factory.mktemp("cancelled") / "project")
    text = (folder / "params.yaml").read_text()
    text = text.replace("steps: 4\n", f"steps: {STEPS}\n").replace(
        "validate_every: 2\n", f"validate_every: {EVERY}\n"
    )
    (folder / "params.yaml").write_text(text)
    return folder


def checkpointed(folder: Path) -> float:
    """When the training last wrote its checkpoint; 0 where it has none."""
    found = list((folder / "work/checkpoints").glob("*/checkpoint.safetensors"))
    return found[0].stat().st_mtime if found else 0.0


def trains(folder: Path) -> bool:
    return any("-m tasks train" in words for words in workspaces.processes_in(folder))


def forked(folder: Path) -> bool:
    """Whether a process works that was forked from the fork server, beside it and its supervisor."""
    return sum("-m tasks.forkserver.server" in words for words in workspaces.processes_in(folder)) > 2


def validated(folder: Path) -> list[int]:
    """Steps of the validations that MLflow has of the one training there is."""
    (run,) = workspaces.runs(folder, "training")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    return sorted(metric.step for metric in client.get_metric_history(run.info.run_id, "val/iou"))


def stop_in_training(folder: Path, stop: Callable[[], object]) -> None:
    """Call `stop` once the training has written a checkpoint of its own; it must be gone soon after."""
    before = checkpointed(folder)
    wait_for(lambda: checkpointed(folder) > before, 150)
    assert forked(folder)
    stop()
    wait_for(lambda: not trains(folder), GONE)
    (run,) = workspaces.runs(folder, "training")
    assert run.info.status == "KILLED", "closed by the training itself"


def test_cancelled_runs_end_their_training_and_the_next_one_resumes_it(project: Path, server: str) -> None:
    runs = served_runs(server)
    with serving(project, server), SyncPrefectClient(server) as client:
        wait_for(lambda: "are being served" in (project / "serve.log").read_text(), 90)
        deployment = client.read_deployment_by_name("retrain/retrain")
        run = client.create_flow_run_from_deployment(deployment.id)
        # what the UI's button does
        stop_in_training(project, lambda: client.set_flow_run_state(run.id, Cancelling(), force=True))
        wait_for(lambda: runs()[0].state_name == "Cancelled", GONE)
    first = validated(project)
    assert first and first[0] == EVERY

    process = nights.start(project, PREFECT_API_URL=server)
    stop_in_training(project, process.terminate)
    process.communicate(timeout=GONE)
    assert process.returncode != 0
    wait_for(lambda: not workspaces.processes_in(project), GONE)
    second = validated(project)
    assert len(second) > len(first)

    status, output = nights.retrain(project, PREFECT_API_URL=server)
    assert status == 0 and "First:" in output, output
    third = validated(project)
    assert third[-1] == STEPS and len(third) == len(set(third)), (
        "no step was trained twice: it went on, not anew"
    )
    (run_of_all,) = workspaces.runs(project, "training")
    assert run_of_all.info.status == "FINISHED"
