"""A Prefect server for one pytest process: an embedded server per flow would take longer than the flows."""

import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

from flows.ui import HOST, free_port
from tasks.supervisor import end_with_this_process
from tests.support import workspaces


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
def started() -> Iterator[tuple[str, bool, str]]:
    """Start a server whose database is kept in /dev/shm if that exists.

    Yields:
        Address of the API, whether it answers, and the server's log.
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
