"""`make serve` as a process of a test, and the flow runs that it starts."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort

from tests.support import workspaces


@contextmanager
def serving(folder: Path, server: str | None) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m flows.serve` that polls for runs every 2 s; server None: it starts its own server."""
    named = {"PREFECT_API_URL": server} if server else {}
    env = workspaces.environment(folder, PREFECT_RUNNER_POLL_FREQUENCY="2", **named)
    command = [sys.executable, "-u", "-m", "flows.serve", "--prefect-port", "0"]
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def served_runs(server: str) -> Callable[[], list[FlowRun]]:
    """A function that returns the runs of the served flow since this call, earliest first."""

    def read(but: frozenset[object] = frozenset()) -> list[FlowRun]:
        # by address: this process read Prefect's settings before the server was started
        with SyncPrefectClient(server) as client:
            others = FlowRunFilter(id=FlowRunFilterId(not_any_=list(but))) if but else None
            found = client.read_flow_runs(flow_run_filter=others, sort=FlowRunSort.START_TIME_ASC)
            return [run for run in found if run.deployment_id is not None]

    before = frozenset(run.id for run in read())
    return lambda: read(before)


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.5)
