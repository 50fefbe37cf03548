"""The fork server: stages are forked from it, with their packages already loaded (see tasks/forkserver/client.py).

`python -m tasks.forkserver.server SOCKET`.

Only third-party packages are preloaded. Every fork imports segflow's own modules from their files, as a new process
would, so that the code that DVC has hashed is the code that runs. The server starts nothing that a fork cannot share:
no thread, no CUDA, no connection.
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

# imported late by stages, so that --help and wrong arguments are answered fast
_LATE = (
    "segcore.evaluation.evaluate",
    "segcore.training.loop",
    "tasks.tracking.pictures",
    "torch._dynamo",
    "torchvision.models",
)
_OURS = ("flows", "segcore", "tasks")
_MAX_REQUEST_BYTES = 8 * 2**20


class _Server:
    """Forks one process per request, and sends its exit status to the client.

    On SIGTERM it takes no more requests, sends SIGTERM to its forks, and ends after them: each closes its MLflow run
    first, and its client receives the exit status.

    Args:
        listener: bound and listening.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.listener, self.selector = listener, selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ)
        # by the client's socket: pid, and a file descriptor that is readable when the fork has ended
        self.forks: dict[int, tuple[int, int]] = {}
        self.woken, self.waker = socket.socketpair()
        self.waker.setblocking(False)
        self.selector.register(self.woken, selectors.EVENT_READ)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.set_wakeup_fd(self.waker.fileno(), warn_on_full_buffer=False)

    def serve(self) -> Job | None:
        """Answer requests. Returns the job in every fork, and None in the server at its end."""
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
                    self._receive(found)
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
        # SIGTERM waits until the fork has become a stage, which handles it
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
        except (OSError, ValueError) as error:
            # the client finds its connection closed, and runs the stage itself
            print(f"fork server: {error}", file=sys.stderr, flush=True)
            line.close()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            for file in files:
                os.close(file)
        return None

    def _note(self, line: socket.socket, pid: int) -> None:
        """Register a fork, and report its start to the client."""
        try:
            end = os.pidfd_open(pid)
        except OSError:
            # too many open files: the client runs the stage itself, so the fork must not
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self.forks[line.fileno()] = pid, end
        self.selector.register(line, selectors.EVENT_READ)
        self.selector.register(end, selectors.EVENT_READ, line)
        # an error means that the client has ended, which `_receive` finds
        with suppress(OSError):
            line.send(BEGUN)

    def _leave(self, line: socket.socket) -> None:
        """In a fork: close the server's sockets, so that clients notice when the server itself ends."""
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

    def _receive(self, line: socket.socket) -> None:
        """SIGTERM for the fork where the client asks for it; SIGKILL where the client was killed."""
        if line.fileno() not in self.forks:
            # its fork has ended at the same moment
            return
        pid, _ = self.forks[line.fileno()]
        try:
            asked = line.recv(64)
        except OSError:
            asked = b""
        # not yet waited for, so the pid is still that of the fork
        os.kill(pid, signal.SIGTERM if asked else signal.SIGKILL)
        if not asked:
            self.selector.unregister(line)

    def _ended(self, line: socket.socket) -> None:
        pid, end = self.forks.pop(line.fileno())
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.selector.unregister(end)
        os.close(end)
        if line in {key.fileobj for key in self.selector.get_map().values()}:
            self.selector.unregister(line)
        # an error means that the client was killed at the same moment
        with suppress(OSError):
            line.send(bytes([status if status >= 0 else 128 - status]))
        line.close()


def _request(line: socket.socket, files: list[int]) -> Job:
    """Read one request; received file descriptors are added to `files`, also on an error.

    Raises:
        OSError: the request is incomplete.
        ValueError: it is not valid JSON.
    """
    line.settimeout(30)
    head, received, _, _ = socket.recv_fds(line, 4, 3)
    files += received
    size = int.from_bytes(head, "big")
    if len(files) != 3 or not 0 < size < _MAX_REQUEST_BYTES:
        raise OSError(f"a request of {size} bytes with {len(files)} files")
    request = b""
    while len(request) < size:
        piece = line.recv(size - len(request))
        if not piece:
            raise OSError("the request ended early")
        request += piece
    return Job(*json.loads(request))


def preload() -> None:
    """Import what stages need, then drop segflow's own modules, which every fork imports anew."""
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
    """Run the stage as `python -m tasks` would, and exit without the interpreter's clean-up, which takes seconds."""
    os.chdir(job.folder)
    os.environ.clear()
    os.environ.update(job.environment)
    sys.argv = ["tasks", *job.arguments]
    status = 0
    try:
        runpy.run_module("tasks", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = _status(end)
    except BaseException:  # noqa: BLE001  (as the interpreter does: traceback and status 1)
        traceback.print_exc()
        status = 1
    # what the interpreter does at its end, except for the clean-up
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
    """Listen first, so that early clients wait; then import."""
    # raises on systems without pidfd, before a client connects
    os.close(os.pidfd_open(os.getpid()))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(arguments[0])
        listener.listen(64)
        preload()
        # a garbage collection in a fork would copy every page that it visits
        gc.freeze()
        job = _Server(listener).serve()
    if job is not None:
        run(job)
    # without the interpreter's clean-up, during which libraries print warnings
    os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1:])
