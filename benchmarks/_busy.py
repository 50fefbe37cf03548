"""Steps of a training on a quiet machine and beside two busy processes, with and without segflow's way of waiting."""

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from segcore.cpu import SPIN_COUNT

# largest ratio of a step beside busy processes to a quiet one, and smallest fraction of the speed that libgomp's own
# choice has on a quiet machine
SLOWER, KEPT = 2.6, 0.97
BUSY = 2
# libgomp's default
DEFAULT_COUNT = "300000"
_LOOP = "while True: pass"


def environment(spin_count: str) -> dict[str, str]:
    """Environment of a process whose OpenMP threads wait with this spin count."""
    return {**os.environ, "GOMP_SPINCOUNT": spin_count}


@contextmanager
def load(count: int = BUSY) -> Iterator[None]:
    """Processes that occupy `count` cores."""
    processes = [subprocess.Popen([sys.executable, "-c", _LOOP]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def table(step: Callable[[Mapping[str, str]], float], rounds: int) -> list[str]:
    """Rows of the table: ratios of steps that follow each other, medians over rounds.

    Args:
        step: seconds of a step of a training in a new process with this environment.
        rounds: of measurements.
    """
    figures: list[dict[str, float]] = []
    for number in range(rounds):
        one = {
            "quiet": step(environment(SPIN_COUNT)),
            "quiet, default": step(environment(DEFAULT_COUNT)),
        }
        with load():
            one |= {"busy": step(environment(SPIN_COUNT)), "busy, default": step(environment(DEFAULT_COUNT))}
        figures.append(one)
        text = ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in one.items())
        print(f"round {number + 1}: {text}", file=sys.stderr, flush=True)

    def row(what: str, above: str, below: str, goal: Callable[[float], str]) -> str:
        ratios = [one[above] / one[below] for one in figures]
        middle, ends = statistics.median(ratios), f"{min(ratios):.2f} to {max(ratios):.2f}"
        first = statistics.median(one[above] for one in figures)
        return f"| {what} | {1000 * first:.0f} ms | {middle:.2f} ({ends}) | {goal(middle)} | |"

    return [
        row(
            f"step beside {BUSY} busy processes / quiet",
            "busy",
            "quiet",
            lambda r: _met(r <= SLOWER, f"≤ {SLOWER:g}"),
        ),
        row("the same, libgomp's own waiting", "busy, default", "quiet, default", lambda _: "|"),
        row(
            "quiet step, libgomp's own waiting / segflow's",
            "quiet, default",
            "quiet",
            lambda r: _met(r >= KEPT, f"≥ {KEPT:g}"),
        ),
    ]


def _met(holds: bool, goal: str) -> str:
    return f"{goal} | {'met' if holds else 'GOAL MISSED'}"


def environment_of(name: str) -> dict[str, str]:
    """Environment of a contestant: those that are not segflow's wait as libgomp's default."""
    ours = {} if name in ("ours", "limit") else {"GOMP_SPINCOUNT": SPIN_COUNT}
    return {key: value for key, value in os.environ.items() if ours.get(key) != value}
