"""The fork server of a flow: started when a stage has to run, ended with the flow."""

import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from tasks.forkserver import client
from tasks.supervisor import in_background

_server = ExitStack()
_variables: dict[str, str] = {}


def start_fork_server(environment: Mapping[str, str]) -> None:
    """Start the process from which stages are forked (tasks/forkserver/server.py), unless it is running; Linux only.

    Args:
        environment: environment variables of that process, in addition to those of this process.
    """
    if _variables or sys.platform != "linux":
        return
    folder = _server.enter_context(TemporaryDirectory(prefix="segflow-"))
    address = str(Path(folder) / "socket")
    command = [sys.executable, "-m", "tasks.forkserver.server", address]
    _server.enter_context(in_background(command, {**os.environ, **environment}))
    _variables[client.VARIABLE] = address


def variables() -> dict[str, str]:
    """Environment variables with the fork server's address; empty without a fork server."""
    return dict(_variables)


def stop_fork_server() -> None:
    """End the fork server and all processes forked from it."""
    _variables.clear()
    _server.close()
