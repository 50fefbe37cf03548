"""The fork server: stages are forked from it, with their packages already loaded (see tasks/forkserver/client.py).

`python -m tasks.forkserver.server SOCKET`.

Only third-party packages stay loaded. Every fork imports segflow's modules from their files, as a new process would,
so that the code that DVC has hashed is the code that runs. The server starts nothing that a fork cannot share: no
thread, no CUDA, no connection.
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

from tasks.forkserver.client import STAGES, STARTED, Job

# modules that stages import inside functions, so that --help and wrong arguments are answered fast
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

    On SIGTERM it accepts no more requests, sends SIGTERM to its forks and waits for their end, so that each closes its
    MLflow run and its client receives the exit status.

    Args:
        listener: bound and listening socket.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.listener, self.selector = listener, selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ)
        # key: file number of the client's socket; value: pid, and a file descriptor that is readable when the fork
        # has ended
        self.forks: dict[int, tuple[int, int]] = {}
        # Python writes to `signal_writer` when a signal arrives, which ends the wait in `serve`
        self.signal_reader, self.signal_writer = socket.socketpair()
        self.signal_writer.setblocking(False)
        self.selector.register(self.signal_reader, selectors.EVENT_READ)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.set_wakeup_fd(self.signal_writer.fileno(), warn_on_full_buffer=False)

    def serve(self) -> Job | None:
        """Answer requests. Returns the job in each fork, and None in the server when it ends."""
        while True:
            for key, _ in self.selector.select():
                source: Any = key.fileobj
                if source is self.listener:
                    job = self._accept()
                    if job is not None:
                        return job
                elif source is self.signal_reader:
                    self._end()
                elif isinstance(source, socket.socket):
                    self._receive(source)
                else:
                    self._reap(key.data)
            if self.listener.fileno() < 0 and not self.forks:
                return None

    def _end(self) -> None:
        self.signal_reader.recv(64)
        if self.listener.fileno() >= 0:
            self.selector.unregister(self.listener)
            self.listener.close()
        for pid, _ in self.forks.values():
            os.kill(pid, signal.SIGTERM)

    def _accept(self) -> Job | None:
        line, _ = self.listener.accept()
        files: list[int] = []
        # SIGTERM is blocked until the fork runs the stage, which handles it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            job = _request(line, files)
            pid = os.fork()
            if pid == 0:
                self._close_sockets(line)
                for number, file in enumerate(files):
                    os.dup2(file, number)
                return job
            self._register(line, pid)
        except (OSError, ValueError) as error:
            # closes the connection, whereupon the client runs the stage in its own process
            print(f"fork server: {error}", file=sys.stderr, flush=True)
            line.close()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            for file in files:
                os.close(file)
        return None

    def _register(self, line: socket.socket, pid: int) -> None:
        """Watch a fork for its end, and report its start to the client."""
        try:
            end = os.pidfd_open(pid)
        except OSError:
            # too many open files: the client will run the stage in its own process, so the fork must not
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self.forks[line.fileno()] = pid, end
        self.selector.register(line, selectors.EVENT_READ)
        self.selector.register(end, selectors.EVENT_READ, line)
        # on an error the client has ended, which `_receive` handles
        with suppress(OSError):
            line.send(STARTED)

    def _close_sockets(self, line: socket.socket) -> None:
        """In a fork: close the server's sockets, so that clients notice the end of the server."""
        for key in list(self.selector.get_map().values()):
            source: Any = key.fileobj
            if isinstance(source, socket.socket):
                source.close()
            else:
                os.close(source)
        self.selector.close()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.signal_writer.close()
        line.close()

    def _receive(self, line: socket.socket) -> None:
        """Send the fork SIGTERM if the client requests it, and SIGKILL if the client was killed."""
        if line.fileno() not in self.forks:
            # the fork has ended at the same moment
            return
        pid, _ = self.forks[line.fileno()]
        try:
            request = line.recv(64)
        except OSError:
            request = b""
        # the fork is not yet reaped, so the pid is still its own
        os.kill(pid, signal.SIGTERM if request else signal.SIGKILL)
        if not request:
            self.selector.unregister(line)

    def _reap(self, line: socket.socket) -> None:
        """Send the exit status of an ended fork to its client."""
        pid, end = self.forks.pop(line.fileno())
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.selector.unregister(end)
        os.close(end)
        if line in {key.fileobj for key in self.selector.get_map().values()}:
            self.selector.unregister(line)
        # on an error the client was killed at the same moment
        with suppress(OSError):
            line.send(bytes([status if status >= 0 else 128 - status]))
        line.close()


def _request(line: socket.socket, files: list[int]) -> Job:
    """Read one request; the received file descriptors are added to `files`, also when an error is raised.

    Raises:
        OSError: the request is incomplete.
        ValueError: it is not valid JSON.
    """
    line.settimeout(30)
    head, received, _, _ = socket.recv_fds(line, 4, 3)
    files += received
    size = int.from_bytes(head, "big")
    if len(files) != 3 or not 0 < size < _MAX_REQUEST_BYTES:
        raise OSError(f"invalid request: {size} bytes, {len(files)} file descriptors")
    request = b""
    while len(request) < size:
        piece = line.recv(size - len(request))
        if not piece:
            raise OSError("incomplete request")
        request += piece
    return Job(*json.loads(request))


def preload() -> None:
    """Import what stages need, then unload segflow's own modules, which every fork imports again."""
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
    """Run the stage as `python -m tasks` would; exits without the interpreter's clean-up, which takes seconds."""
    os.chdir(job.folder)
    os.environ.clear()
    os.environ.update(job.environment)
    sys.argv = ["tasks", *job.arguments]
    status = 0
    try:
        runpy.run_module("tasks", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = _status(end)
    # as the interpreter does: traceback and status 1
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        status = 1
    # the steps of the interpreter's exit, without the clean-up
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
    """Serve requests on a socket; listens before it imports, so that early clients wait.

    Args:
        arguments: path of the socket.
    """
    # raises on systems without pidfd, before a client connects
    os.close(os.pidfd_open(os.getpid()))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(arguments[0])
        listener.listen(64)
        preload()
        # otherwise a garbage collection in a fork would copy all memory pages that it visits
        gc.freeze()
        job = _Server(listener).serve()
    if job is not None:
        run(job)
    # skips the interpreter's clean-up, during which libraries print warnings
    os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1:])
