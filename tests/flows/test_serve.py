"""`make serve`: rounds by schedule, rounds on arrival, and never two at a time."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import FlowRun

from tests.support import retraining
from tests.support.serving import served_runs, serving, wait_for

# seconds without a process that serves rounds
MISSED = 20


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, after_first_round: Path) -> Path:
    """A project whose inbox gets only broken items, so that each round ends as Unchanged within seconds."""
    return retraining.copy(after_first_round, tmp_path_factory.mktemp("served") / "project")


@contextmanager
def scheduled(folder: Path, **schedule: Any) -> Iterator[None]:
    """Use this section `schedule` in params.yaml, and a settling time of one second."""
    before = (folder / "params.yaml").read_text()
    retraining.edit(folder, schedule=schedule, retrain={"settle_seconds": 1})
    try:
        yield
    finally:
        (folder / "params.yaml").write_text(before)


@pytest.fixture
def runs(server: str) -> Callable[[], list[FlowRun]]:
    """A function that returns the runs of the served flow since the beginning of the test."""
    return served_runs(server)


def ended(found: list[FlowRun]) -> list[FlowRun]:
    return [run for run in found if run.state_name == "Unchanged"]


@pytest.mark.slow
def test_scheduled_runs_appear_and_missed_ones_do_not_pile_up(
    project: Path, server: str, runs: Callable[[], list[FlowRun]]
) -> None:
    with scheduled(project, interval_minutes=0.1):
        with serving(project, server) as process:
            wait_for(lambda: bool(ended(runs())), 120)
            wait_for(lambda: any(run.state_name == "Running" for run in runs()), 60)
            process.kill()
            process.wait()
        # at least three triggers are missed
        time.sleep(MISSED)
        started = {run.id for run in ended(runs())}
        with serving(project, server):
            wait_for(lambda: len({run.id for run in ended(runs())} - started) >= 2, 120)
            found = runs()
    spans = sorted((run.start_time, run.end_time) for run in ended(found) if run.end_time)
    assert all(later[0] >= earlier[1] for earlier, later in pairwise(spans)), "never two at a time"
    late = [r for r in found if r.state_name in ("Late", "Pending") and r.state.timestamp < spans[-1][0]]
    assert len(late) <= 1, "missed runs were cancelled, and none waits"
    assert any(run.state_name in ("Cancelled", "Skipped") for run in found)
    assert any(run.state_name == "Crashed" for run in found), "the killed run holds no slot"


@pytest.mark.slow
def test_without_a_configured_server_serve_starts_one_and_rounds_run_on_it(project: Path) -> None:
    log = project / "serve.log"
    with scheduled(project, interval_minutes=0.1), serving(project, None):
        wait_for(lambda: "are being served" in log.read_text(), 120)
        found = re.search(r"Prefect:\s+(http\S+)", log.read_text())
        assert found
        runs = served_runs(f"{found[1]}/api")
        wait_for(lambda: bool(ended(runs())), 120)
        # in another shell, the printed lines work as they are
        lines = [line for line in log.read_text().splitlines() if line.startswith("  ")][:2]
        env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        done = subprocess.run(["bash", "-ec", "\n".join(lines)], env=env, capture_output=True, text=True)
        assert len(lines) == 2 and done.returncode == 0, (lines, done.stdout + done.stderr)
        assert "temporary server" not in log.read_text(), "two servers would not share their slots"


@pytest.mark.slow
def test_each_arrival_starts_one_run_and_nothing_else_does(
    project: Path, server: str, runs: Callable[[], list[FlowRun]]
) -> None:
    with (
        scheduled(project, on_arrival=True, watch_seconds=1),
        serving(project, server),
    ):
        wait_for(lambda: "are being served" in (project / "serve.log").read_text(), 90)
        time.sleep(4)
        assert runs() == [], "nothing has arrived"
        # an image without a mask is quarantined, so that nothing is trained
        retraining.arrive(project, ["lonely"], seed=700)
        (project / "data/inbox/masks/lonely.png").unlink()
        wait_for(lambda: bool(ended(runs())), 120)
        time.sleep(4)
        assert len(runs()) == 1, "one for the arrival, none for the item left in the inbox"
        # the second item arrives while the round of the first one runs
        for number in range(2):
            retraining.arrive(project, [f"late{number}"], seed=710 + number)
            (project / f"data/inbox/masks/late{number}.png").unlink()
            wait_for(lambda: any(run.state_name == "Running" for run in runs()), 60)
        wait_for(lambda: len(ended(runs())) == 3, 120)
        assert len(runs()) == 3, "the later arrival has its own round, and none was cancelled"
