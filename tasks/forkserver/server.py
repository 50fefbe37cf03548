"""The process from which stages are forked (tasks/forkserver/client.py says why).

`python -m tasks.forkserver.server SOCKET`.

Only packages are warm. What segflow itself is made of is read from its files by every fork, as by a process of its
own, so that the code that DVC has hashed is the code that runs. Nothing that a fork could not share is begun before
it: no thread, no CUDA, no connection.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from tasks.forkserver.client import BEGUN, STAGES, Job

# what stages import late, so that --help and mistaken arguments need not wait for it
_LATE = (
    "segcore.evaluation.evaluate",
    "segcore.training.loop",
    "tasks.tracking.pictures",
    "torch._dynamo",
    "torchvision.models",
)
_OURS = ("flows", "segcore", "tasks")
_LONGEST = 8 * 2**20  # bytes of a request


class _Server:
    """Forks a process a request, and tells each who asked how it ended.

    Told to end (SIGTERM) it takes no more requests, tells its forks, and ends when they have: each closes its run in
    MLflow first, and who asked hears of it.

    Args:
        listener: bound and listening.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.listener, self.selector = listener, selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ)
        # by the asking socket: pid, and a file that is readable at its end
        self.forks: dict[int, tuple[int, int]] = {}
        self.woken, self.waker = socket.socketpair()
        self.waker.setblocking(False)
        self.selector.register(self.woken, selectors.EVENT_READ)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.set_wakeup_fd(self.waker.fileno(), warn_on_full_buffer=False)

    def serve(self) -> Job | None:
        """Answer requests; returns in every fork, with its work, and here (None) at the end."""
        while True:
            for key, _ in self.selector.select():
                found: Any = key.fileobj
                if found is self.listener:
                    job = self._accept()
                    if job is not None:
                        return job
                elif found is self.woken:
                    self._end()
                elif isinstance(found, socket.socket):
                    self._hear(found)
                else:
                    self._ended(key.data)
            if self.listener.fileno() < 0 and not self.forks:
                return None

    def _end(self) -> None:
        self.woken.recv(64)
        if self.listener.fileno() >= 0:
            self.selector.unregister(self.listener)
            self.listener.close()
        for pid, _ in self.forks.values():
            os.kill(pid, signal.SIGTERM)

    def _accept(self) -> Job | None:
        line, _ = self.listener.accept()
        files: list[int] = []
        # a fork must not miss it before it is a stage
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            job = _request(line, files)
            pid = os.fork()
            if pid == 0:
                self._leave(line)
                for number, file in enumerate(files):
                    os.dup2(file, number)
                return job
            self._note(line, pid)
        except (OSError, ValueError) as error:  # who asked finds the line closed, and does its work itself
            print(f"warm process: {error}", file=sys.stderr, flush=True)
            line.close()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            for file in files:
                os.close(file)
        return None

    def _note(self, line: socket.socket, pid: int) -> None:
        """A fork has begun."""
        try:
            end = os.pidfd_open(pid)
        except OSError:  # too many files: it must not work unseen beside who asked
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self.forks[line.fileno()] = pid, end
        self.selector.register(line, selectors.EVENT_READ)
        self.selector.register(end, selectors.EVENT_READ, line)
        with suppress(OSError):  # who asked is gone, which `_hear` will hear
            line.send(BEGUN)

    def _leave(self, line: socket.socket) -> None:
        """In a fork: close what is the warm process's own, whose end others wait for."""
        for key in list(self.selector.get_map().values()):
            found: Any = key.fileobj
            if isinstance(found, socket.socket):
                found.close()
            else:
                os.close(found)
        self.selector.close()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.waker.close()
        line.close()

    def _hear(self, line: socket.socket) -> None:
        """A request to end, or the end of who asked, who was killed then: so is the fork."""
        if line.fileno() not in self.forks:
            return  # its fork has ended at the same moment
        pid, _ = self.forks[line.fileno()]
        try:
            asked = line.recv(64)
        except OSError:
            asked = b""
        os.kill(pid, signal.SIGTERM if asked else signal.SIGKILL)  # not yet waited for, so the pid is its own
        if not asked:
            self.selector.unregister(line)

    def _ended(self, line: socket.socket) -> None:
        pid, end = self.forks.pop(line.fileno())
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.selector.unregister(end)
        os.close(end)
        if line in {key.fileobj for key in self.selector.get_map().values()}:
            self.selector.unregister(line)
        with suppress(OSError):  # who asked was killed at the same moment
            line.send(bytes([status if status >= 0 else 128 - status]))
        line.close()


def _request(line: socket.socket, files: list[int]) -> Job:
    """What is asked for; the files that come with it go to `files`, whatever else goes wrong.

    Raises:
        OSError: the request is not whole.
        ValueError: it is none.
    """
    line.settimeout(30)
    head, received, _, _ = socket.recv_fds(line, 4, 3)
    files += received
    size = int.from_bytes(head, "big")
    if len(files) != 3 or not 0 < size < _LONGEST:
        raise OSError(f"a request of {size} bytes with {len(files)} files")
    request = b""
    while len(request) < size:
        piece = line.recv(size - len(request))
        if not piece:
            raise OSError("the request ended early")
        request += piece
    return Job(*json.loads(request))


def preload() -> None:
    """Import what stages need, then forget segflow's own modules, which every fork reads anew."""
    for name in (*(f"tasks.{stage}" for stage in STAGES), *_LATE):
        importlib.import_module(name)
    from tasks.tracking import store
    from tasks.versioning import stages

    store.preload()
    stages.preload()
    for name in list(sys.modules):
        package, _, rest = name.partition(".")
        if package in _OURS and rest:
            del sys.modules[name]
            parent, _, child = name.rpartition(".")
            if parent in sys.modules:
                vars(sys.modules[parent]).pop(child, None)


def run(job: Job) -> NoReturn:
    """Be the stage, as `python -m` would run it; what was only borrowed is not taken apart, which takes seconds."""
    os.chdir(job.folder)
    os.environ.clear()
    os.environ.update(job.environment)
    sys.argv = ["tasks", *job.arguments]
    status = 0
    try:
        runpy.run_module("tasks", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = _status(end)
    except BaseException:  # noqa: BLE001  (as the interpreter: told, and 1)
        traceback.print_exc()
        status = 1
    # what an interpreter does at its end, but for the taking apart
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _status(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


def main(arguments: Sequence[str]) -> None:
    """Listen at once, so that who comes early waits; then load."""
    os.close(os.pidfd_open(os.getpid()))  # where the system has none, this ends before anybody asks
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(arguments[0])
        listener.listen(64)
        preload()
        gc.freeze()  # a collection in a fork would copy every page that it looks at
        job = _Server(listener).serve()
    if job is not None:
        run(job)
    os._exit(128 + signal.SIGTERM)  # without taking apart what was loaded, of which libraries complain


if __name__ == "__main__":
    main(sys.argv[1:])
