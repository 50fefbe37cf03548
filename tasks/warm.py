"""A warm process from which stages are forked, so that none of them loads torch, MLflow and DVC anew.

A flow starts `python -m tasks.warm SOCKET` once. DVC runs a stage by its command as ever, `python -m tasks.train
unet 0`. That process finds SEGFLOW_WARM in its environment, hands arguments, environment, folder and open files to the
warm process, which forks, and ends as the fork ends (`hand_over`). Signals go the same way: a stage that is told to
end, or killed, is so as if it were a process of DVC's own. Without a warm process, or off Linux, a command runs by
itself.

Only packages are warm. What segflow itself is made of is read from its files by every fork, as by a process of its
own, so that the code that DVC has hashed is the code that runs. Nothing that a fork could not share is begun before
it: no thread, no CUDA, no connection. Standard library only at the top, because every stage reads this file.
"""

import atexit
import ctypes
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
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

VARIABLE = "SEGFLOW_WARM"
STAGES = tuple(f"tasks.{name}" for name in ("ingest", "prepare", "train", "evaluate", "compare", "report"))
# what stages import late, so that --help and mistaken arguments need not wait for it
_LATE = (
    "segcore.evaluation", "segcore.training", "tasks.run_pictures", "torch._dynamo", "torchvision.models",
)  # fmt: skip
_OURS = ("flows", "segcore", "tasks")
_LONGEST = 8 * 2**20  # bytes of a request
_PR_SET_PDEATHSIG = 1
_GONE = 128 + signal.SIGKILL


class Job(NamedTuple):
    """What a stage's process hands over: its module, arguments, environment and folder."""

    module: str
    arguments: list[str]
    environment: dict[str, str]
    folder: str


# In the stage's own process, from here on.


def hand_over() -> None:
    """Let the warm process do this process's work, and end as it does; return where there is none, or other work."""
    address = os.environ.pop(VARIABLE, "")
    words = sys.orig_argv
    if sys.platform != "linux" or words[1:2] != ["-m"] or words[2] not in STAGES:
        return
    line = socket.socket(socket.AF_UNIX)
    try:
        line.connect(address)
    except OSError:  # it has ended: the command runs by itself
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    request = json.dumps(Job(words[2], words[3:], dict(os.environ), str(Path.cwd()))).encode()
    socket.send_fds(line, [len(request).to_bytes(4, "big")], [0, 1, 2])
    line.sendall(request)
    signal.signal(signal.SIGTERM, lambda *_: line.send(b"T"))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    answer = line.recv(1)
    os._exit(answer[0] if answer else _GONE)


# In the warm process, from here on.


class _Server:
    """Forks a process a request, and tells each who asked how it ended.

    Args:
        listener: bound and listening.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.listener, self.selector = listener, selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ)
        self.forks: dict[
            int, tuple[int, int]
        ] = {}  # by the asking socket: pid, and a file that is readable at its end

    def serve(self) -> Job:
        """Answer requests for ever; returns in every fork, with its work."""
        while True:
            for key, _ in self.selector.select():
                found: Any = key.fileobj
                if found is self.listener:
                    job = self._accept()
                    if job is not None:
                        return job
                elif isinstance(found, socket.socket):
                    self._hear(found)
                else:
                    self._ended(key.data)

    def _accept(self) -> Job | None:
        line, _ = self.listener.accept()
        line.settimeout(30)
        try:
            head, files, _, _ = socket.recv_fds(line, 4, 3)
            size = int.from_bytes(head, "big")
            if len(files) != 3 or not 0 < size < _LONGEST:
                raise OSError(f"a request of {size} bytes with {len(files)} files")
            request = b""
            while len(request) < size:
                piece = line.recv(size - len(request))
                if not piece:
                    raise OSError("the request ended early")
                request += piece
            job = Job(*json.loads(request))
        except (OSError, ValueError) as error:  # who asked is told by the closed line, and ends
            print(f"warm process: {error}", file=sys.stderr, flush=True)
            line.close()
            return None
        pid = os.fork()
        if pid == 0:
            self._leave(line)
            for number, file in enumerate(files):
                os.dup2(file, number)
                os.close(file)
            return job
        for file in files:
            os.close(file)
        end = os.pidfd_open(pid)
        self.forks[line.fileno()] = pid, end
        self.selector.register(line, selectors.EVENT_READ)
        self.selector.register(end, selectors.EVENT_READ, line)
        return None

    def _leave(self, line: socket.socket) -> None:
        """In a fork: close what is the warm process's own, whose end others wait for."""
        for key in list(self.selector.get_map().values()):
            found: Any = key.fileobj
            if isinstance(found, socket.socket):
                found.close()
            else:
                os.close(found)
        self.selector.close()
        line.close()

    def _hear(self, line: socket.socket) -> None:
        """A request to end, or the end of who asked, who was killed then: so is the fork."""
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


def preload() -> None:
    """Import what stages need, then forget segflow's own modules, which every fork reads anew."""
    for name in (*STAGES, *_LATE):
        importlib.import_module(name)
    from tasks import tracking_store, versioning

    tracking_store.preload()
    versioning.preload()
    for name in list(sys.modules):
        package, _, rest = name.partition(".")
        if package in _OURS and rest and name != "tasks.warm":
            del sys.modules[name]
            parent, _, child = name.rpartition(".")
            if parent in sys.modules:
                vars(sys.modules[parent]).pop(child, None)


def run(job: Job) -> NoReturn:
    """Be the stage, as `python -m` would run it; what was only borrowed is not taken apart, which takes seconds."""
    os.chdir(job.folder)
    os.environ.clear()
    os.environ.update(job.environment)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.argv = [job.module, *job.arguments]
    status = 0
    try:
        runpy.run_module(job.module, run_name="__main__", alter_sys=True)
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
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(arguments[0])
        listener.listen(64)
        preload()
        gc.freeze()  # a collection in a fork would copy every page that it looks at
        job = _Server(listener).serve()
    run(job)


if __name__ == "__main__":
    main(sys.argv[1:])
