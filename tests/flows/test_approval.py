"""`gate.approval: person`: the flow pauses, and acts only on a decision that a person has approved."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort

from tests.support import retraining
from tests.support.serving import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, after_first_round: Path) -> Path:
    """A project whose next challenger is always better by the gate, and needs a person's approval."""
    folder = retraining.copy(after_first_round, tmp_path_factory.mktemp("approval") / "project")
    retraining.use_constant_costs(folder)
    retraining.use_lenient_gate(folder, approval="person")
    retraining.edit(folder, train={"common": {"steps": 6}})
    retraining.arrive(folder, ["n1", "n2", "n3"], seed=300)
    return folder


def champion(folder: Path) -> int:
    """Version of the champion."""
    aliases = MlflowClient(f"sqlite:///{folder}/mlflow.db").get_registered_model("tiny").aliases
    return int(aliases["champion"])


def decision(folder: Path) -> dict[str, Any]:
    """The decision on the only batch."""
    (batch,) = retraining.batches(folder)
    return retraining.record(folder, batch)


def forget_decision(folder: Path) -> None:
    """Remove the decision on the only batch, so that the next round judges it again."""
    (batch,) = retraining.batches(folder)
    (folder / "decisions/tiny" / f"{batch}.json").unlink()


def paused(server: str) -> list[FlowRun]:
    with SyncPrefectClient(server) as client:
        runs = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC)
        return [run for run in runs if run.state is not None and run.state.type is StateType.PAUSED]


@contextmanager
def waiting_round(folder: Path, server: str) -> Iterator[subprocess.Popen[str]]:
    """A round that has paused."""
    process = retraining.start(folder, PREFECT_API_URL=server)
    try:
        wait_for(lambda: bool(paused(server)) or process.poll() is not None, 240)
        assert process.poll() is None, process.communicate()[0]
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def answer(server: str, **values: str) -> None:
    """Fill in the form of the paused run."""
    (run,) = paused(server)
    with SyncPrefectClient(server) as client:
        client.resume_flow_run(run.id, run_input=values)


def test_without_a_permanent_server_the_round_ends_before_the_inbox_is_touched(project: Path) -> None:
    status, output = retraining.retrain(project)
    assert status == 1 and "make serve" in output and "PREFECT_API_URL" in output
    assert "Traceback" not in output and retraining.batches(project) == []
    assert (project / "data/inbox/images/n1.png").exists()


def test_without_an_answer_in_time_the_champion_stays(project: Path, server: str) -> None:
    retraining.edit(project, gate={"approval_hours": 0.002})
    status, output = retraining.retrain(project, PREFECT_API_URL=server)
    assert status == 0 and "Kept:" in output, output
    record = decision(project)
    assert record["outcome"] == "kept" and record["acted"] and champion(project) == 1
    assert record["approval"]["answer"] == "timed out" and record["approval"]["by"] is None
    status, output = retraining.retrain(project, PREFECT_API_URL=server)
    assert status == 0 and "Unchanged" in output, "nobody is asked twice"
    retraining.edit(project, gate={"approval_hours": 1})


def test_a_refusal_keeps_the_champion_and_names_the_person(project: Path, server: str) -> None:
    forget_decision(project)
    with waiting_round(project, server) as process:
        page = (project / "reports/tiny/index.html").read_text()
        assert '<section id="champion">' in page, "the report shows the decision that waits"
        answer(server, answer="refuse", name="Ada", comment="the masks look wrong")
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and "Kept:" in output, output
    record = decision(project)
    assert champion(project) == 1 and record["outcome"] == "kept" and record["acted"]
    assert record["approval"]["answer"] == "refused" and record["approval"]["by"] == "Ada"
    assert record["approval"]["comment"] == "the masks look wrong" and record["approval"]["when"]


def test_a_round_killed_during_the_pause_asks_again_and_acts_once_approved(
    project: Path, server: str
) -> None:
    forget_decision(project)
    with waiting_round(project, server) as process:
        (killed,) = paused(server)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert decision(project)["acted"] is None and champion(project) == 1
    process = retraining.start(project, PREFECT_API_URL=server)
    wait_for(lambda: [run.id for run in paused(server)] not in ([], [killed.id]), 240)
    assert killed.id not in {run.id for run in paused(server)}, "the run of the dead process is closed"
    answer(server, answer="approve", name="Ada")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and "Promoted:" in output, output
    record = decision(project)
    assert champion(project) == 2 and record["outcome"] == "promoted" and record["acted"]
    assert record["approval"]["answer"] == "approved" and record["approval"]["by"] == "Ada"
