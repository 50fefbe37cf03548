"""Client of the fork server: a stage runs in a fork of a process that has already loaded torch, MLflow and DVC.

A flow starts the fork server (tasks/forkserver/server.py) once. DVC starts a stage by its command, `python -m tasks
train unet 0`. That process reads the server's address from SEGFLOW_FORKSERVER, sends its arguments, environment, folder
and standard streams, and exits with the status of the fork. If this process receives SIGTERM or SIGKILL, so does the
fork. Without a server, or on systems other than Linux, the command runs in this process.

Import-light: standard library only, because every stage imports this file first.
"""

import ctypes
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

VARIABLE = "SEGFLOW_FORKSERVER"
# and `complete`, which checks the networks before the first of them
STAGES = ("complete", "ingest", "prepare", "train", "evaluate", "compare", "report")
# first answer of the server: the fork has started; the second answer is its exit status
STARTED = b"B"
_PR_SET_PDEATHSIG = 1
_KILLED = 128 + signal.SIGKILL


class Job(NamedTuple):
    """Arguments, environment and working folder of a stage."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str


def run_in_fork() -> None:
    """Run this process's command in a fork of the server, and exit with its status.

    Returns if no server is configured, if the command is not a stage, or if the server ends or cannot fork before the
    stage has started: the caller then runs the command in this process.
    """
    address = os.environ.pop(VARIABLE, "")
    words = sys.orig_argv
    if sys.platform != "linux" or words[1:3] != ["-m", "tasks"] or not set(words[3:4]) & set(STAGES):
        return
    line = socket.socket(socket.AF_UNIX)
    received: list[int] = []

    def forward(number: int, _: object) -> None:
        received.append(number)
        # on an error the server is ending, and its forks with it
        with suppress(OSError):
            line.send(b"T")

    with line, suppress(OSError):
        line.connect(address)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        request = json.dumps(Job(words[3:], dict(os.environ), str(Path.cwd()))).encode()
        signal.signal(signal.SIGTERM, forward)
        with suppress(OSError):
            socket.send_fds(line, [len(request).to_bytes(4, "big")], [0, 1, 2])
            line.sendall(request)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        if line.recv(1) == STARTED:
            os._exit(_exit_status(line))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if received:
        os._exit(128 + received[0])


def _exit_status(line: socket.socket) -> int:
    """Exit status of the fork; that of a killed process if the server has ended."""
    try:
        answer = line.recv(1)
    except OSError:
        answer = b""
    return answer[0] if answer else _KILLED
