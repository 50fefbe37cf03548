"""Children that do not outlive their parent: on Linux however it ends, elsewhere save by kill -9.

Run as a script, this file is the supervisor of one process group: it starts a command, ends the whole
group when its own parent dies or it receives SIGTERM, and returns the command's exit status. Standard library
only, because every stage starts one.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO

# between SIGTERM and SIGKILL: enough to close a tracking run, short for who waits
GRACE_SECONDS = 8.0
TAIL_BYTES = 4000
TERMINATED = 128 + signal.SIGTERM

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# live supervisors of this process
_groups: set[int] = set()
_stopped = threading.Event()
_watchers: list[subprocess.Popen[bytes]] = []


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _terminate(number: int, frame: FrameType | None) -> None:
    # a second one must not cut the cleaning up short
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(TERMINATED)


def die_with_parent() -> None:
    """Call first in a stage's `main`: SIGTERM raises SystemExit(143), and comes when the parent dies too.

    DVC, killed, leaves the command it runs behind; with this the command ends as well.
    """
    signal.signal(signal.SIGTERM, _terminate)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def run_in_group(
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    live: Callable[[str], object] | None = None,
) -> tuple[int, str, str]:
    """Run `command` in a process group of its own and wait for it.

    Whatever ends the wait (an error, Ctrl-C, a cancelled flow, this process killed) ends the whole group.

    Args:
        command: program and arguments.
        env: the whole environment; None for this process's.
        live: receives standard error as it comes, in pieces.

    Returns:
        (exit status, standard output, last part of both outputs as they came).
    """
    with _supervised(command, env, subprocess.PIPE) as child:
        assert child.stdout is not None and child.stderr is not None
        output: list[bytes] = []
        tail: deque[bytes] = deque(maxlen=400)
        readers = [
            threading.Thread(target=_drain, args=(child.stdout, [output.append, tail.append]), daemon=True),
            threading.Thread(target=_drain, args=(child.stderr, [tail.append, _text(live)]), daemon=True),
        ]
        for reader in readers:
            reader.start()
        status = child.wait()
        for reader in readers:
            reader.join()
    last = b"".join(tail)[-TAIL_BYTES:]
    return status, b"".join(output).decode(errors="replace"), last.decode(errors="replace")


@contextmanager
def beside(command: Sequence[str], env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Have `command` run in a process group of its own during the block; its end, however it comes, ends the group.

    It writes to standard error as this process does, and nothing to standard output.

    Args:
        command: program and arguments.
        env: the whole environment; None for this process's.
    """
    with _supervised(command, env, None) as child:
        yield child


@contextmanager
def _supervised(
    command: Sequence[str], env: Mapping[str, str] | None, pipe: int | None
) -> Iterator[subprocess.Popen[bytes]]:
    """A supervised command, its outputs in pipes or (None) beside this process's own; ended with the block.

    Raises:
        StageError: this process was told to stop.
    """
    if _stopped.is_set():
        # a retry, say, of what was just ended; imported here, as a script sees the standard library alone
        from segcore.errors import StageError

        raise StageError("nothing is started any more: this process was told to stop", "run again")
    supervised = [sys.executable, "-I", str(Path(__file__).resolve()), str(os.getpid()), *command]
    out = subprocess.DEVNULL if pipe is None else pipe
    child = subprocess.Popen(supervised, env=env, stdout=out, stderr=pipe, start_new_session=True)
    _groups.add(child.pid)
    try:
        yield child
    finally:
        _end(child)
        _groups.discard(child.pid)


def end_groups(wait: bool = False) -> None:
    """For the main thread, while others wait for theirs: end every group of `run_in_group`, and start no more."""
    _stopped.set()
    for group in list(_groups):
        _signal_group(group, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS + 2
    while wait and _groups and time.monotonic() < deadline:
        time.sleep(0.05)


def end_with_this_process(pid: int) -> None:
    """See to it that another process is sent SIGTERM when this one ends, even by kill -9."""
    watcher = [sys.executable, "-I", str(Path(__file__).resolve()), "watch", str(pid)]
    # the pipe closes with this process, and nobody else holds its end
    _watchers.append(subprocess.Popen(watcher, stdin=subprocess.PIPE, start_new_session=True))


def _watch(pid: int) -> int:
    sys.stdin.read()
    with suppress(ProcessLookupError):
        # it has ended by itself
        os.kill(pid, signal.SIGTERM)
    return 0


def _text(live: Callable[[str], object] | None) -> Callable[[bytes], object]:
    return (lambda piece: live(piece.decode(errors="replace"))) if live else (lambda piece: None)


def _drain(stream: IO[bytes], sinks: list[Callable[[bytes], object]]) -> None:
    with stream:
        while piece := os.read(stream.fileno(), 65536):
            for sink in sinks:
                sink(piece)


def _signal_group(group: int, number: int) -> bool:
    """Whether the group still had a member."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        _signal_group(child.pid, signal.SIGTERM)
        try:
            child.wait(GRACE_SECONDS + 2)
        except subprocess.TimeoutExpired:
            _signal_group(child.pid, signal.SIGKILL)
            child.wait()


# The supervisor, from here on.


def _reap() -> bool:
    """Whether a child or an adopted orphan still lives."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def _end_own_group(*_: object) -> None:
    """SIGTERM to all others of the group, after a grace SIGKILL; returns when none is left."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while _reap():
        if time.monotonic() > deadline:
            # this process as well
            os.killpg(0, signal.SIGKILL)
        time.sleep(0.02)


def _terminated(*_: object) -> None:
    _end_own_group()
    os._exit(TERMINATED)


def _end_with(parent: int) -> None:
    """SIGTERM to this process when its parent is killed, who then can end nobody."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        # it died before the line above
        os._exit(TERMINATED)


def _supervise(parent: int, command: list[str]) -> int:
    signal.signal(signal.SIGTERM, _terminated)
    # orphans of the command come here, so none is lost sight of
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _end_with(parent)
    own = os.getpid()
    # no thread runs beside
    status = subprocess.Popen(command, preexec_fn=lambda: _end_with(own)).wait()
    if _reap():
        _end_own_group()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(
        _watch(int(sys.argv[2])) if sys.argv[1] == "watch" else _supervise(int(sys.argv[1]), sys.argv[2:])
    )
