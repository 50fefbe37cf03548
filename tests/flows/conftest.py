"""One Prefect server for all tests of flows: an embedded one each flow would cost more than the flows."""

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest

from flows.ui import HOST, free_port
from tasks.processes import end_with_this_process
from tests.flows import workspaces


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the API of a running Prefect server."""
    folder: Path = tmp_path_factory.mktemp("prefect")
    port = free_port(0)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "true"}
    env = workspaces.environment(folder, **quiet)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
    end_with_this_process(process.pid)
    api = f"http://{HOST}:{port}/api"
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"{api}/health", timeout=5).read()
            break
        except (URLError, TimeoutError):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.3)
    yield api
    process.terminate()
    process.wait(30)
