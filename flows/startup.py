"""The fork server of a flow: started once something has to run, ended with the flow."""

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
    """Start the process from which stages are forked (tasks/forkserver/server.py), if it does not run yet.

    Args:
        environment: variables of that process besides this process's.
    """
    if _variables or sys.platform != "linux":
        return
    folder = _server.enter_context(TemporaryDirectory(prefix="segflow-"))
    address = str(Path(folder) / "socket")
    command = [sys.executable, "-m", "tasks.forkserver.server", address]
    _server.enter_context(in_background(command, {**os.environ, **environment}))
    _variables[client.VARIABLE] = address


def variables() -> dict[str, str]:
    """Environment by which a stage finds the fork server; empty where none runs."""
    return dict(_variables)


def stop_fork_server() -> None:
    """End the fork server and all processes forked from it."""
    _variables.clear()
    _server.close()
