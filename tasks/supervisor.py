"""Child processes that end with their parent: on Linux however it ends, elsewhere unless it is killed by SIGKILL.

Run as a script, this file is the supervisor of one process group: it starts a command, ends the whole group when its
own parent dies or on SIGTERM, and returns the command's exit status. Import-light (standard library only), because
every stage starts one.
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

# between SIGTERM and SIGKILL: long enough to close a tracking run
GRACE_SECONDS = 8.0
TAIL_BYTES = 4000
TERMINATED = 128 + signal.SIGTERM

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# process groups of the running supervisors that this process started
_groups: set[int] = set()
_stopped = threading.Event()
_watchers: list[subprocess.Popen[bytes]] = []


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _terminate(number: int, frame: FrameType | None) -> None:
    # a second SIGTERM must not interrupt the clean-up
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(TERMINATED)


def die_with_parent() -> None:
    """Make SIGTERM raise SystemExit(143), and have SIGTERM sent when the parent dies; call first in a stage's `main`.

    A killed DVC does not end the command that it runs; with this, the command ends as well.
    """
    exit_on_sigterm()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def exit_on_sigterm() -> None:
    """Make SIGTERM raise SystemExit(143) in the main thread, so that clean-up runs."""
    signal.signal(signal.SIGTERM, _terminate)


@contextmanager
def deferred_stop() -> Iterator[Callable[[], None]]:
    """Let SIGINT and SIGTERM take effect only where the yielded function is called, and at the end of the block.

    An exception between any two instructions can leave a reading thread or GDAL's state behind. A second signal takes
    effect at once. Without effect outside of the main thread.
    """
    is_main = threading.current_thread() is threading.main_thread()
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)} if is_main else {}
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        if len(noted) > 1:
            take_effect()

    def take_effect() -> None:
        handler = handlers[signal.Signals(noted[0])]
        assert callable(handler)
        handler(noted[0], None)

    def check() -> None:
        if noted:
            take_effect()

    for number, handler in handlers.items():
        if callable(handler):
            signal.signal(number, note)
    try:
        yield check
    finally:
        for number, handler in handlers.items():
            # a handler that has taken effect may have set another one, which stays
            if signal.getsignal(number) is note:
                signal.signal(number, handler)
    check()


def run_in_group(
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    live: Callable[[str], object] | None = None,
) -> tuple[int, str, str]:
    """Run `command` in a new process group and wait for it.

    Whatever ends the wait (an error, Ctrl-C, a cancelled flow, a kill of this process) also ends the whole group.

    Args:
        command: program and arguments.
        env: complete environment; None: that of this process.
        live: called with each piece of standard error as it arrives, until `end_groups`.

    Returns:
        Exit status, standard output, and the last TAIL_BYTES of standard output and error in order of arrival.

    Raises:
        StageError: `end_groups` was called in this process.
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
def in_background(
    command: Sequence[str], env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` in a new process group during the `with` block; the group ends with the block.

    Its standard error is that of this process; its standard output is discarded.

    Args:
        command: program and arguments.
        env: complete environment; None: that of this process.
    """
    with _supervised(command, env, None) as child:
        yield child


@contextmanager
def _supervised(
    command: Sequence[str], env: Mapping[str, str] | None, pipe: int | None
) -> Iterator[subprocess.Popen[bytes]]:
    """A supervised command that ends with the block; `pipe`: for both outputs, or None as in `in_background`.

    Raises:
        StageError: `end_groups` was called in this process.
    """
    if _stopped.is_set():
        # for example a retry of a command that was just ended; imported here, because a script (-I) finds no segcore
        from segcore.errors import StageError

        raise StageError("no command is started: this process is being stopped", "run again")
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
    """End all process groups of this process and start no more; for the main thread, while other threads wait.

    Args:
        wait: return only when all have ended, at most GRACE_SECONDS + 2 s later.
    """
    _stopped.set()
    for group in list(_groups):
        _signal_group(group, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS + 2
    while wait and _groups and time.monotonic() < deadline:
        time.sleep(0.05)


def end_with_this_process(pid: int) -> None:
    """End another process when this one ends, even by SIGKILL: by SIGTERM, and after GRACE_SECONDS by SIGKILL."""
    watcher = [sys.executable, "-I", str(Path(__file__).resolve()), "watch", str(pid)]
    # the pipe closes when this process ends, because no other process has its write end open
    _watchers.append(subprocess.Popen(watcher, stdin=subprocess.PIPE, start_new_session=True))


def _watch(pid: int) -> int:
    sys.stdin.read()
    # until it has ended
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline:
            time.sleep(0.1)
            os.kill(pid, 0)
        os.kill(pid, signal.SIGKILL)
    return 0


def _text(live: Callable[[str], object] | None) -> Callable[[bytes], object]:
    # while this process is being stopped, the errors of stopped commands are no news
    return lambda piece: live(piece.decode(errors="replace")) if live and not _stopped.is_set() else None


def _drain(stream: IO[bytes], sinks: list[Callable[[bytes], object]]) -> None:
    with stream:
        while piece := os.read(stream.fileno(), 65536):
            for sink in sinks:
                sink(piece)


def _signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; returns whether it had a member."""
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


# Code of the supervisor process.


def _reap() -> bool:
    """Collect ended children; returns whether a child or an adopted orphan is still running."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def _end_group(*_: object) -> None:
    """Send SIGTERM to all others of the group, then SIGKILL after GRACE_SECONDS; returns when none is left."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while _reap():
        if time.monotonic() > deadline:
            # kills this process as well
            os.killpg(0, signal.SIGKILL)
        time.sleep(0.02)


def _terminated(*_: object) -> None:
    _end_group()
    os._exit(TERMINATED)


def _end_with(parent: int) -> None:
    """Have SIGTERM sent to this process when its parent dies; a killed parent cannot end its children."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        # the parent died before the call above
        os._exit(TERMINATED)


def _supervise(parent: int, command: list[str]) -> int:
    signal.signal(signal.SIGTERM, _terminated)
    # orphans of the command become children of this process
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _end_with(parent)
    supervisor = os.getpid()
    # preexec_fn is safe: this process has no other thread
    status = subprocess.Popen(command, preexec_fn=lambda: _end_with(supervisor)).wait()
    if _reap():
        _end_group()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(
        _watch(int(sys.argv[2])) if sys.argv[1] == "watch" else _supervise(int(sys.argv[1]), sys.argv[2:])
    )
