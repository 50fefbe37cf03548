"""One Prefect server for all tests of flows: an embedded one each flow would cost more than the flows."""

import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest

from flows.ui import HOST, free_port
from tasks.processes import end_with_this_process
from tests.flows import workspaces


def _healthy(process: subprocess.Popen[bytes], api: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{api}/health", timeout=5).read()
            return True
        except (URLError, TimeoutError):
            time.sleep(0.3)
    return False


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Address of the API of a running Prefect server.

    Its database is created by many small synchronised writes. They lie in memory where that is possible, because
    beside the other tests' writes they take a slow disk minutes.
    """
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        dir=memory if memory.is_dir() else None, ignore_cleanup_errors=True
    ) as name:
        folder, port = Path(name), free_port(0)
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
        quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "true"}
        env = workspaces.environment(folder, **quiet)
        with (folder / "log").open("w") as out:
            process = subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=out)
        end_with_this_process(process.pid)
        api = f"http://{HOST}:{port}/api"
        try:
            assert _healthy(process, api, 240), (folder / "log").read_text()
            yield api
        finally:
            process.terminate()
            process.wait(30)
