"""Windows that are predicted side by side on a CPU."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from segcore.inference.device import worker_threads

Strip = TypeVar("Strip")
Result = TypeVar("Result")
# windows of a strip in batches, and what gives the result of each batch
Jobs = list[tuple[list[int], Callable[[], Result]]]
# with fewer batches, all cores predict one after the other
_LEAST_BATCHES = 4


def two_at_a_time(
    planned: Iterator[tuple[Strip, Jobs[Result]]], device: torch.device, batches: int
) -> Generator[tuple[Strip, Jobs[Result]], None, None]:
    """Strips and the results of their windows.

    On a CPU workers share the cores, two of them if their number is even: threads that share the work of one operator
    wait for the slowest of them, which may also read or write a file. All workers have as many threads, because results
    can depend on their number in the last digits. On a GPU, and for few windows, jobs stay as they are.

    Args:
        planned: strips, and what predicts their windows; results are to be taken in this order.
        device: of the network.
        batches: number of jobs.
    """
    threads = torch.get_num_threads()
    workers = next((number for number in (2, 3) if threads % number == 0), 1)
    if device.type != "cpu" or workers == 1 or batches < _LEAST_BATCHES:
        yield from planned
        return
    with worker_threads([threads // workers] * workers, own=1) as pool:
        begun, waiting = _Begun(pool, 2 * workers), deque[tuple[Strip, Jobs[Result]]]()
        for strip, jobs in planned:
            waiting.append((strip, [(windows, begun.result_of(job)) for windows, job in jobs]))
            if len(waiting) > 1:
                yield waiting.popleft()
        yield from waiting


class _Begun:
    """Begins jobs in their order; a limited number of results is in memory.

    Args:
        pool: that works on them.
        most: number of jobs that have begun and whose results are not taken.
    """

    def __init__(self, pool: ThreadPoolExecutor, most: int) -> None:
        self._pool, self._free = pool, most
        self._later = deque[tuple[Callable[[], Any], list[Future[Any]]]]()

    def result_of(self, job: Callable[[], Result]) -> Callable[[], Result]:
        """A function that waits for the result of a job and gives it away; called in the order of the jobs."""
        own = list[Future[Any]]()
        self._later.append((job, own))
        self._begin()

        def result() -> Result:
            found: Result = own.pop().result()
            self._free += 1
            self._begin()
            return found

        return result

    def _begin(self) -> None:
        while self._later and self._free:
            job, own = self._later.popleft()
            own.append(self._pool.submit(job))
            self._free -= 1
