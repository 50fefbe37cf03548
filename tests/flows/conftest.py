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
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the API of a running Prefect server.

    A free port may be taken by another program before the server binds it, so there is a second and a third try.
    """
    log = ""
    for _ in range(3):
        folder: Path = tmp_path_factory.mktemp("prefect")
        port = free_port(0)
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
        quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "true"}
        env = workspaces.environment(folder, **quiet)
        with (folder / "log").open("w") as out:
            process = subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=out)
        end_with_this_process(process.pid)
        api = f"http://{HOST}:{port}/api"
        if _healthy(process, api, 80):
            yield api
            process.terminate()
            process.wait(30)
            return
        process.kill()
        process.wait(30)
        log = (folder / "log").read_text()
    pytest.fail(f"no Prefect server after three tries; the last one said:\n{log}")
