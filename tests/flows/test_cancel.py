"""A cancelled retraining stops its training within seconds, and the next one resumes at the checkpoint."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import SyncPrefectClient
from prefect.states import Cancelling

from tests.support import retraining, workspaces
from tests.support.serving import served_runs, serving, wait_for

# seconds for the training to end
GONE = 15
STEPS, EVERY = 800, 20


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose training is long enough to be cancelled twice, with a checkpoint every few steps."""
    folder = retraining.project(tmp_path_factory.mktemp("cancelled") / "project")
    text = (folder / "params.yaml").read_text()
    text = text.replace("steps: 4\n", f"steps: {STEPS}\n").replace(
        "validate_every: 2\n", f"validate_every: {EVERY}\n"
    )
    (folder / "params.yaml").write_text(text)
    return folder


def checkpointed(folder: Path) -> float:
    """Time at which the training last wrote its checkpoint; 0 if there is none."""
    found = list((folder / "work/checkpoints").glob("*/checkpoint.safetensors"))
    return found[0].stat().st_mtime if found else 0.0


def trains(folder: Path) -> bool:
    return any("-m tasks train" in words for words in workspaces.processes_in(folder))


def forked(folder: Path) -> bool:
    """Whether a process works that was forked from the fork server, beside it and its supervisor."""
    return sum("-m tasks.forkserver.server" in words for words in workspaces.processes_in(folder)) > 2


def validated(folder: Path) -> list[int]:
    """Steps of the validations that MLflow has for the only training."""
    (run,) = workspaces.runs(folder, "training")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    return sorted(metric.step for metric in client.get_metric_history(run.info.run_id, "val/iou"))


def stop_in_training(folder: Path, stop: Callable[[], object]) -> None:
    """Call `stop` after the training has written a new checkpoint, and check that the training ends soon."""
    before = checkpointed(folder)
    wait_for(lambda: checkpointed(folder) > before, 150)
    assert forked(folder)
    stop()
    wait_for(lambda: not trains(folder), GONE)
    (run,) = workspaces.runs(folder, "training")
    assert run.info.status == "KILLED", "closed by the training"


@pytest.mark.slow
def test_cancelling_a_run_stops_its_training_and_the_next_run_resumes_it(project: Path, server: str) -> None:
    runs = served_runs(server)
    with serving(project, server), SyncPrefectClient(server) as client:
        wait_for(lambda: "are being served" in (project / "serve.log").read_text(), 90)
        deployment = client.read_deployment_by_name("retrain/retrain")
        run = client.create_flow_run_from_deployment(deployment.id)
        # as the button in the UI does
        stop_in_training(project, lambda: client.set_flow_run_state(run.id, Cancelling(), force=True))
        wait_for(lambda: runs()[0].state_name == "Cancelled", GONE)
    first = validated(project)
    assert first and first[0] == EVERY

    process = retraining.start(project, PREFECT_API_URL=server)
    stop_in_training(project, process.terminate)
    process.communicate(timeout=GONE)
    assert process.returncode != 0
    wait_for(lambda: not workspaces.processes_in(project), GONE)
    second = validated(project)
    assert len(second) > len(first)

    status, output = retraining.retrain(project, PREFECT_API_URL=server)
    assert status == 0 and "First:" in output, output
    third = validated(project)
    assert third[-1] == STEPS and len(third) == len(set(third)), "no step was trained twice"
    (run_of_all,) = workspaces.runs(project, "training")
    assert run_of_all.info.status == "FINISHED"
