"""A stage hands its work to a warm process, so that it need not load torch, MLflow and DVC anew.

A flow starts the warm process (tasks/forkserver/server.py) once. DVC runs a stage by its command as ever, `python -m
tasks train unet 0`. That process finds SEGFLOW_WARM in its environment, hands arguments, environment, folder and open
files to the warm process, which forks, and ends as the fork ends. Signals go the same way: a stage that is told to
end, or killed, is so as if it were a process of DVC's own. Without a warm process, or off Linux, a command runs by
itself.

Standard library only, because every stage reads this file before anything else.
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

VARIABLE = "SEGFLOW_WARM"
STAGES = ("ingest", "prepare", "train", "evaluate", "compare", "report")
BEGUN = b"B"  # the first answer; the second is the exit status
_PR_SET_PDEATHSIG = 1
_GONE = 128 + signal.SIGKILL


class Job(NamedTuple):
    """What a stage's process hands over: its arguments, environment and folder."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str


def hand_over() -> None:
    """Let the warm process do this process's work, and end as it does; return where there is none, or other work.

    It returns as well where the warm process ends, or cannot fork, before the work has begun: it is done here then.
    """
    address = os.environ.pop(VARIABLE, "")
    words = sys.orig_argv
    if sys.platform != "linux" or words[1:3] != ["-m", "tasks"] or not set(words[3:4]) & set(STAGES):
        return
    line = socket.socket(socket.AF_UNIX)
    told: list[int] = []

    def pass_on(number: int, _: object) -> None:
        told.append(number)
        with suppress(OSError):  # it is ending, and its forks with it
            line.send(b"T")

    with line, suppress(OSError):
        line.connect(address)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        request = json.dumps(Job(words[3:], dict(os.environ), str(Path.cwd()))).encode()
        signal.signal(signal.SIGTERM, pass_on)
        with suppress(OSError):
            socket.send_fds(line, [len(request).to_bytes(4, "big")], [0, 1, 2])
            line.sendall(request)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        if line.recv(1) == BEGUN:
            os._exit(_answer(line))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if told:
        os._exit(128 + told[0])


def _answer(line: socket.socket) -> int:
    """The status of the fork, or what a killed process has where the warm process is gone."""
    try:
        answer = line.recv(1)
    except OSError:
        answer = b""
    return answer[0] if answer else _GONE
