"""Nights of a tiny project: a first champion, a batch, nothing new, bad items; and two at a time are one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort

from tests.flows import nights, workspaces


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def aliases(folder: Path) -> dict[str, str]:
    """Version by alias."""
    found = dict(MlflowClient(f"sqlite:///{folder}/mlflow.db").get_registered_model("tiny").aliases)
    return {alias: str(version) for alias, version in found.items()}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, server: str) -> Path:
    """A project after its first night: the inbox was empty, but there was no champion yet."""
    folder = nights.project(tmp_path_factory.mktemp("nights") / "project")
    status, output = nights.retrain(folder, PREFECT_API_URL=server)
    assert status == 0, output
    assert "First:" in output
    return folder


def test_the_first_night_makes_a_champion_and_commits_the_decision(first: Path) -> None:
    assert aliases(first)["champion"] == "1"
    message = git(first, "log", "-1", "--format=%B")
    assert message.startswith("Retraining of tiny on batch 0")
    changed = git(first, "show", "--name-only", "--format=", "HEAD").split()
    assert {"dvc.lock", "splits/tiny.csv", "reports/tiny/scores.md"} <= set(changed)
    assert any(name.startswith("decisions/tiny/") for name in changed)
    assert git(first, "status", "--porcelain", "--untracked-files=no") == ""


def test_a_night_without_anything_new_stops_early_and_says_so(first: Path, server: str) -> None:
    before = git(first, "rev-parse", "HEAD")
    status, output = nights.retrain(first, PREFECT_API_URL=server)
    assert status == 0 and "Unchanged: Nothing new" in output
    assert "train@unet-0" not in output and git(first, "rev-parse", "HEAD") == before


def test_a_new_batch_is_judged_and_bad_items_stay_in_the_inbox(first: Path, server: str) -> None:
    old = pd.read_parquet(first / "data/prepared/regions.parquet").set_index("id")["split"]
    nights.arrive(first, ["n1", "n2", "n3", "n4"], seed=300)
    nights.arrive(first, ["broken"], seed=400)
    (first / "data/inbox/masks/broken.png").unlink()
    status, output = nights.retrain(first, PREFECT_API_URL=server)
    assert status == 0, output
    (batch,) = nights.batches(first)
    decision = nights.record(first, batch)
    assert decision["outcome"] in ("promoted", "kept") and decision["acted"] and decision["reason"] in output
    assert f"data/tiny/{batch}" in git(first, "tag")
    assert "broken.png: has no mask" in output and (first / "data/inbox/images/broken.png").exists()
    now = pd.read_parquet(first / "data/prepared/regions.parquet").set_index("id")["split"]
    assert len(now) == len(old) + 4 and now[old.index].equals(old), "no item ever changes its split"
    page = (first / "reports/tiny/index.html").read_text()
    assert '<section id="champion">' in page and f"on batch {batch}" in page
    assert (aliases(first)["champion"] == "2") == (decision["outcome"] == "promoted")
    statuses = {
        run.info.status for kind in ("training", "comparison") for run in workspaces.runs(first, kind)
    }
    assert statuses == {"FINISHED"}


def test_of_two_at_once_one_runs(first: Path, server: str) -> None:
    nights.arrive(first, ["m1"], seed=500)
    one, two = (nights.start(first, PREFECT_API_URL=server) for _ in range(2))
    outputs = [process.communicate(timeout=300)[0] for process in (one, two)]
    assert [one.returncode, two.returncode] == [0, 0], outputs
    assert sum("Skipped: another retraining is running" in output for output in outputs) == 1
    assert len(nights.batches(first)) == 2


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.5)


@pytest.fixture
def served(
    first: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], list[FlowRun]]]:
    """`make serve` with a schedule of twelve seconds, after a night in which three triggers were missed."""
    text = (first / "params.yaml").read_text()
    (first / "params.yaml").write_text(text + "\nschedule: {interval_minutes: 0.2}\n")
    command = [sys.executable, "-m", "flows.serve"]
    env = workspaces.environment(first, PREFECT_API_URL=server)
    log = (first / "serve.log").open("w")

    def begin() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=first, env=env, stdout=log, stderr=log, start_new_session=True)

    def runs() -> list[FlowRun]:
        with SyncPrefectClient(server) as client:  # this process read its settings before there was a server
            name = DeploymentFilter(name=DeploymentFilterName(any_=["retrain"]))
            return client.read_flow_runs(deployment_filter=name, sort=FlowRunSort.START_TIME_ASC)

    process = begin()
    try:
        wait_for(lambda: any(run.state_name == "Unchanged" for run in runs()), 120)
        process.kill()
        process.wait()
        time.sleep(40)  # three triggers and more are missed
        process = begin()
        yield runs
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        log.close()
        (first / "params.yaml").write_text(text)


def test_scheduled_runs_appear_and_missed_ones_do_not_pile_up(served: Callable[[], list[FlowRun]]) -> None:
    started = {run.id for run in served() if run.state_name == "Unchanged"}
    assert started, "a scheduled run has come and ended"
    wait_for(lambda: len({r.id for r in served() if r.state_name == "Unchanged"} - started) >= 2, 120)
    spans = sorted((r.start_time, r.end_time) for r in served() if r.state_name == "Unchanged" and r.end_time)
    assert all(later[0] >= earlier[1] for earlier, later in pairwise(spans)), "never two at a time"
    late = [
        run
        for run in served()
        if run.state_name in ("Late", "Pending") and run.state.timestamp < spans[-1][0]
    ]
    assert len(late) <= 1, "those that were missed were cancelled, and none waits"
    assert any(run.state_name in ("Cancelled", "Skipped") for run in served())


def test_a_dry_run_decides_and_changes_nothing(first: Path, server: str) -> None:
    before, champion = git(first, "rev-parse", "HEAD"), aliases(first)
    nights.arrive(first, ["d1"], seed=600)
    status, output = nights.retrain(first, "--dry-run", PREFECT_API_URL=server)
    assert status == 0, output
    decision = nights.record(first, nights.batches(first)[-1])
    assert decision["acted"] is None and aliases(first) == champion
    messages = git(first, "log", f"{before.strip()}..HEAD", "--format=%s").splitlines()
    assert [m.partition(":")[0] for m in messages] == ["Data of tiny"], (
        "the data are a version, the decision is not"
    )


def test_wrong_params_are_told_before_anything_starts(first: Path) -> None:
    text = (first / "params.yaml").read_text()
    (first / "params.yaml").write_text(text + "\nretrain: {inboxx: 3}\n")
    status, output = nights.retrain(first)
    (first / "params.yaml").write_text(text)
    assert status == 1 and "inboxx" in output and "Remedy:" in output and "Traceback" not in output
