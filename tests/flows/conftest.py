"""One Prefect server for all tests of flows: an embedded one each flow would cost more than the flows."""

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import pytest

from flows.ui import HOST, free_port
from tasks.supervisor import end_with_this_process
from tests.support import nights, workspaces

# With two workers: each gets two files at the beginning, in turn, and then the next one whenever it is nearly done.
# So the kills, which take as long as all the rest, go together with the shortest one.
FIRST = ("test_crash", "test_cancel", "test_dvc_yaml", "test_compare_flow", "test_retrain_flow", "test_serve")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def _healthy(process: subprocess.Popen[bytes], api: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{api}/health", timeout=5).read()
            return True
        except (URLError, TimeoutError):
            time.sleep(0.3)
    return False


@contextmanager
def _started() -> Iterator[tuple[str, bool, str]]:
    """Address, whether it answers, and the log of a server whose database lies in memory where that is possible."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        dir=memory if memory.is_dir() else None, ignore_cleanup_errors=True
    ) as name:
        folder, port = Path(name), free_port(0)
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
        quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "true"}
        env = workspaces.environment(folder, **quiet)
        with (folder / "log").open("w") as out:
            process = subprocess.Popen(
                command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        end_with_this_process(process.pid)
        api = f"http://{HOST}:{port}/api"
        try:
            yield api, _healthy(process, api, 75), (folder / "log").read_text()
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(20)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Address of the API of a running Prefect server; one that hangs at its start is started anew, twice."""
    logs = []
    for _ in range(3):
        with _started() as (api, answers, log):
            if answers:
                yield api
                return
        logs.append(log)
    pytest.fail(f"no Prefect server after three tries; the last one said:\n{logs[-1]}")


@pytest.fixture(scope="session")
def after_first_night(tmp_path_factory: pytest.TempPathFactory, server: str) -> Path:
    """A project whose first night is over, to be copied by `nights.copy`: all workers share the one."""
    base = tmp_path_factory.getbasetemp()
    return nights.first_night(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base, server)
