"""Windows that are predicted side by side on a CPU."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

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

    On a CPU two workers share the cores and are one strip ahead: threads that share the work of one operator wait for
    the slowest of them, which may also read or write a file. On a GPU, and for few windows, jobs stay as they are.

    Args:
        planned: strips, and what predicts their windows.
        device: of the network.
        batches: number of jobs.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or batches < _LEAST_BATCHES:
        yield from planned
        return
    with worker_threads([threads - threads // 2, threads // 2], own=1) as pool:
        waiting = deque[tuple[Strip, Jobs[Result]]]()
        for strip, jobs in planned:
            waiting.append((strip, [(windows, pool.submit(job).result) for windows, job in jobs]))
            if len(waiting) > 1:
                yield waiting.popleft()
        yield from waiting
