"""Work on hostile files: processes that may crash, hang or ask for all memory, and take nothing else with them."""

import errno
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures import as_completed
from multiprocessing import forkserver
from typing import Any, TypeVar

from segcore.errors import DataError

T = TypeVar("T")
Result = Any
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_MEMORY = 4 * 2**30  # of address space that a process may take beyond what it has at its start, in bytes
# What a process that reads needs. It also loads the module of the command anew, which must therefore load little.
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
    """Start loading what reading needs in the background, long before `run_each` has anything to run.

    Args:
        modules: to be loaded as well, because the module of the command imports them.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload([*_READING, *modules])
    if threading.current_thread() is not threading.main_thread():
        forkserver.ensure_running()
        return
    # Ctrl-C while it loads is reported by this process alone.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open("/proc/self/statm") if os.path.exists("/proc/self/statm") else open(os.devnull) as stream:  # noqa: PTH110, PTH123
        pages = int((stream.read() or "0").split()[0])
    limit = pages * resource.getpagesize() + _MEMORY
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(
        resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)
    )


def run_each(
    function: Callable[[T], Result],
    jobs: Sequence[T],
    names: Sequence[str],
    seconds: Sequence[float],
    workers: int | None = None,
) -> Iterator[tuple[int, Result | DataError]]:
    """Run `function` on each job in processes of its own, on all cores.

    Args:
        function: importable; its DataError is a result.
        jobs: arguments.
        names: of the files, for errors.
        seconds: that a job may take.
        workers: processes; None: one a core.

    Yields:
        index of the job and what became of it, as they finish.

    Raises:
        DataError: the disk is full.
    """
    from pebble import CONSTS, ProcessPool

    if not jobs:
        return
    warm_up()
    CONSTS.sleep_unit = 0.02  # what the pool waits at its end, and between looks at what may have hung
    cores = workers or len(os.sched_getaffinity(0))
    with ProcessPool(
        max_workers=min(cores, len(jobs)),
        initializer=_begin,
        context=multiprocessing.get_context("forkserver"),
    ) as pool:
        futures: dict[Any, int] = {
            pool.schedule(function, args=[job], timeout=limit): index
            for index, (job, limit) in enumerate(zip(jobs, seconds, strict=True))
        }
        for future in as_completed(futures):
            index = futures[future]
            error = future.exception()
            yield index, future.result() if error is None else _failed(names[index], error, seconds[index])


def _failed(name: str, error: BaseException, seconds: float) -> DataError:
    """What became of a file, whatever its reader raised: it concerns that file alone, unless the disk is full."""
    from pebble import ProcessExpired

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
            "free disk space, then run again; what was packed so far is kept",
        ) from error
    if isinstance(error, MemoryError):
        reason = "ran out of memory"
    elif isinstance(error, ProcessExpired):
        reason = f"crashed ({error})"
    else:
        reason = f"failed ({type(error).__name__}: {error})"
    return DataError(
        f"{name}: its reader {reason}",
        "the file is damaged or far too large: restore or remove it; report it if it is sound",
        kind="crashed",
    )
