"""Work on hostile files: processes that may crash, hang or ask for all memory, and take nothing else with them."""

import errno
import multiprocessing
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

from segcore.errors import DataError

T = TypeVar("T")
Result = Any
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_MEMORY = 4 * 2**30  # of address space that a process may take beyond what it has at its start, in bytes


def _begin() -> None:
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
    """
    from pebble import ProcessPool

    if not jobs:
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["segcore.inspection"])
    cores = workers or len(os.sched_getaffinity(0))
    with ProcessPool(max_workers=min(cores, len(jobs)), initializer=_begin, context=context) as pool:
        futures: dict[Any, int] = {
            pool.schedule(function, args=[job], timeout=limit): index
            for index, (job, limit) in enumerate(zip(jobs, seconds, strict=True))
        }
        from concurrent.futures import as_completed

        for future in as_completed(futures):
            index = futures[future]
            try:
                yield index, future.result()
            except DataError as error:
                yield index, error
            except FutureTimeout:
                yield (
                    index,
                    DataError(
                        f"{names[index]}: reading took longer than {seconds[index]:.0f} s",
                        "the file is damaged or far too complex: restore or remove it",
                        kind="slow",
                    ),
                )
            except OSError as error:  # pebble's own ProcessExpired among them
                if error.errno not in _NO_SPACE:
                    yield index, _failed(names[index], error)
                    continue
                raise DataError(
                    f"{names[index]}: cannot be packed ({error.strerror})",
                    "free disk space, then run again; what was packed so far is kept",
                ) from error
            except Exception as error:  # noqa: BLE001 - whatever a reader raises concerns its own file alone
                yield index, _failed(names[index], error)


def _failed(name: str, error: Exception) -> DataError:
    from pebble import ProcessExpired

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
