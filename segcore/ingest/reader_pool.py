"""Reads untrusted files in separate processes, so that a crash, a hang or a lack of memory costs one file only."""

import errno
import fcntl
import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, forkserver
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


def _end_with_parent() -> None:
    """Have this process killed when the process that reads with it dies, however it dies.

    Its parent is the fork server, which itself lives as long as any reader, so PR_SET_PDEATHSIG would not do. The pipe
    to the reading process is closed when that dies. On Linux the kernel then sends SIGKILL, even to a reader that is
    in a loop without Python code; elsewhere, a thread does.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel
    if sys.platform == "linux":
        fcntl.fcntl(sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(sentinel, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)

    def wait() -> None:
        connection.wait([sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def _begin() -> None:
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    statm = Path("/proc/self/statm")
    pages = int(statm.read_text().split()[0]) if statm.exists() else 0
    limit = pages * resource.getpagesize() + _MEMORY
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(
        resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)
    )


# fewer jobs than this, each with a shorter time limit than this (files of less than about 60 MB), use one process
_FEW_JOBS, _SMALL_SECONDS = 16, 150.0


def run_each(
    function: Callable[[T], Result],
    jobs: Sequence[T],
    names: Sequence[str],
    seconds: Sequence[float],
    workers: int | None = None,
) -> Generator[tuple[int, Result | DataError], None, None]:
    """Run `function` on each job in reader processes, on all cores.

    Args:
        function: importable function of one job. A DataError counts as a result.
        jobs: arguments, which can be pickled.
        names: file name per job, for error messages.
        seconds: time limit per job.
        workers: number of processes; None: one per core.

    Yields:
        index of a job and its result or error, in the order in which jobs finish.

    Raises:
        DataError: the disk is full.
    """
    aborted = []
    for index, future in _completed(function, jobs, seconds, workers):
        if isinstance(future.exception(), BrokenProcessPool):
            aborted.append(index)
        else:
            yield index, _outcome(future, names[index], seconds[index])
    # The pool aborts all of its jobs where a process dies before the pool has recorded which job it runs. Each of
    # them runs once more, in a pool of its own, so that only the job that crashes is reported as crashed.
    for index in aborted:
        for _, future in _completed(function, [jobs[index]], [seconds[index]], 1):
            yield index, _outcome(future, names[index], seconds[index])


def _completed(
    function: Callable[[T], Result], jobs: Sequence[T], seconds: Sequence[float], workers: int | None
) -> Iterator[tuple[int, Future[Result]]]:
    """Index and future of each job of one pool, as they finish."""
    from pebble import CONSTS, ProcessPool

    if not jobs:
        return
    warm_up()
    # seconds that the pool sleeps at its end, and between looks at jobs that may exceed their time limit
    CONSTS.sleep_unit = 0.02
    # A second process that starts while the pool of a few small files already ends would fail with a traceback.
    is_short = len(jobs) < _FEW_JOBS and max(seconds) < _SMALL_SECONDS
    cores = workers or (1 if is_short else len(os.sched_getaffinity(0)))
    with ProcessPool(
        max_workers=min(cores, len(jobs)),
        initializer=_begin,
        context=multiprocessing.get_context("forkserver"),
    ) as pool:
        try:
            futures: dict[Future[Result], int] = {
                pool.schedule(function, args=[job], timeout=limit): index
                for index, (job, limit) in enumerate(zip(jobs, seconds, strict=True))
            }
        except BrokenProcessPool as error:
            raise DataError(
                f"the reader processes cannot be started ({error.__cause__ or error})",
                f"check that this user may run {sys.executable}, and the limits on processes and memory",
            ) from error
        try:
            for future in as_completed(futures):
                yield futures[future], future
        except GeneratorExit:
            # Nobody waits for the other jobs.
            pool.stop()  # type: ignore[no-untyped-call]
            raise


def _outcome(future: Future[Result], name: str, seconds: float) -> Result | DataError:
    """The result of a job, or its error, which concerns its file alone unless the disk is full."""
    from pebble import ProcessExpired

    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, DataError):
        return error
    if isinstance(error, FutureTimeout):
        return DataError(
            f"{name}: reading took longer than {seconds:.0f} s",
            "the file is damaged or far too complex: restore or remove it",
            kind="slow",
        )
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        raise DataError(
            f"{name}: cannot be packed ({error.strerror})",
            "free disk space, then run again; items that are packed already are kept",
        ) from error
    if isinstance(error, MemoryError):
        reason = "ran out of memory"
    elif isinstance(error, ProcessExpired | BrokenProcessPool):
        reason = f"crashed ({error})"
    else:
        reason = f"failed ({type(error).__name__}: {error})"
    return DataError(
        f"{name}: its reader {reason}",
        "the file is damaged or far too large: restore or remove it; report it if it is sound",
        kind="crashed",
    )
