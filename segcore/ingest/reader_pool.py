"""Reads untrusted files in separate processes, so that a crash, a hang or a lack of memory costs one file only."""

import errno
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

from segcore.errors import DataError

T = TypeVar("T")
Result = Any
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# bytes of address space that a reader process may use beyond what it has at its start
_MEMORY = 4 * 2**30
# Modules that a reader process needs. It also imports the main module of the command, which must therefore be light.
_READING = (
    *(
        "segcore.ingest.inspection",
        "segcore.io.images.geotiff",
        "segcore.io.images.picture",
        "segcore.io.annotations.masks",
    ),
    *("imagehash", "scipy.fftpack"),
)


class _DiskFullError(DataError):
    """The disk is full: a problem of the run and not of the file."""


def warm_up(modules: Sequence[str] = ()) -> None:
    """Start the fork server, which imports the modules for reading in the background before `run_each` needs them.

    Args:
        modules: further modules to import, such as those that the main module of the command imports.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload([*_READING, *modules])
    if threading.current_thread() is not threading.main_thread():
        forkserver.ensure_running()
        return
    # The fork server ignores Ctrl-C, so that only this process reports it.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


def _limit_memory() -> None:
    statm = Path("/proc/self/statm")
    pages = int(statm.read_text().split()[0]) if statm.exists() else 0
    limit = pages * resource.getpagesize() + _MEMORY
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(
        resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)
    )


def _reader_failed(name: str, reason: str) -> DataError:
    return DataError(
        f"{name}: its reader {reason}",
        "the file is damaged or far too large: restore or remove it; report it if it is sound",
        kind="crashed",
    )


def _attempt(function: Callable[[T], Result], name: str, job: T) -> Result | DataError:
    """The result of a job, or its error as a DataError, which can be sent to the parent process."""
    try:
        return function(job)
    except DataError as error:
        return error
    except MemoryError:
        return _reader_failed(name, "ran out of memory")
    except Exception as error:  # noqa: BLE001  any error concerns this file alone
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return _DiskFullError(
                f"{name}: cannot be packed ({error.strerror})",
                "free disk space, then run again; items that are packed already are kept",
            )
        return _reader_failed(name, f"failed ({type(error).__name__}: {error})")


def _serve(connection: Connection, function: Callable[[Any], Result]) -> None:
    """Main function of a reader process: run jobs until the parent process closes the connection or exits."""
    # After Ctrl-C the parent process kills its readers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _limit_memory()
    try:
        while True:
            connection.send(_attempt(function, *connection.recv()))
    except (EOFError, OSError):
        return


class _Reader:
    """A reader process with a connection of its own; it is replaced when it crashes or exceeds its time limit."""

    def __init__(self, function: Callable[[Any], Result]) -> None:
        self._function = function
        self.index = -1
        self._name, self._seconds, self._deadline = "", 0.0, 0.0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        self.connection, child = context.Pipe()
        self._process = context.Process(target=_serve, args=(child, self._function), daemon=True)
        self._process.start()
        child.close()

    def stop(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.join()
        self.connection.close()

    def begin(self, index: int, name: str, job: Any, seconds: float) -> None:
        """Send a job to the process, which must be idle."""
        try:
            self.connection.send((name, job))
        except OSError:
            # The process was killed while it was idle, which is no fault of this job.
            self.stop()
            self._start()
            self.connection.send((name, job))
        self.index, self._name, self._seconds = index, name, seconds
        self._deadline = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds until the time limit of the job, at least 0."""
        return max(0.0, self._deadline - time.monotonic())

    def outcome(self) -> Result | DataError | None:
        """Result or error of the job; None while it is running."""
        if self.connection.poll():
            try:
                return self.connection.recv()
            except (EOFError, OSError):
                self._process.join()
                code = self._process.exitcode or 0
                error = _reader_failed(self._name, f"crashed ({_exit_text(code)})")
        elif self.remaining() > 0:
            return None
        else:
            error = DataError(
                f"{self._name}: reading took longer than {self._seconds:.0f} s",
                "the file is damaged or far too complex: restore or remove it",
                kind="slow",
            )
        self.stop()
        self._start()
        return error


def _exit_text(code: int) -> str:
    return signal.strsignal(-code) or f"signal {-code}" if code < 0 else f"exit status {code}"


def run_each(
    function: Callable[[T], Result],
    jobs: Sequence[T],
    names: Sequence[str],
    seconds: Sequence[float],
    workers: int | None = None,
) -> Iterator[tuple[int, Result | DataError]]:
    """Run `function` on each job in reader processes, on all cores.

    Args:
        function: importable function of one job; its result must not be None. A DataError counts as a result.
        jobs: arguments, which can be pickled.
        names: file name per job, for error messages.
        seconds: time limit per job.
        workers: number of processes; None: one per core.

    Yields:
        index of a job and its result or error, in the order in which jobs finish.

    Raises:
        DataError: the disk is full.
    """
    if not jobs:
        return
    warm_up()
    waiting = iter(enumerate(zip(names, jobs, seconds, strict=True)))
    count = min(workers or len(os.sched_getaffinity(0)), len(jobs))
    readers = [_Reader(function) for _ in range(count)]
    try:
        busy = readers
        for reader, (index, job) in zip(readers, waiting, strict=False):
            reader.begin(index, *job)
        while busy:
            wait([reader.connection for reader in busy], min(reader.remaining() for reader in busy))
            for reader in list(busy):
                outcome, finished = reader.outcome(), reader.index
                if outcome is None:
                    continue
                following = next(waiting, None)
                if following is None:
                    busy = [other for other in busy if other is not reader]
                else:
                    reader.begin(following[0], *following[1])
                if isinstance(outcome, _DiskFullError):
                    raise outcome
                yield finished, outcome
    finally:
        for reader in readers:
            reader.stop()
