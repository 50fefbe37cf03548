"""Objects and classes of a plane as horizontal runs of pixels, which need little memory, also for large scenes."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from segcore.objects.groups import groups_of

# pixels that are read at a time
_STRIP = 2**21
# runs whose neighbours are looked up at a time
_RUNS = 2**20
# pairs of runs may be at most this number of columns apart
FARTHEST = 8


class Runs(NamedTuple):
    """Horizontal runs of pixels of one object number and one class, in the order of their first pixels.

    Pixels without an object number and of no foreground class are in no run.

    Attributes:
        shape: height and width of the plane in pixels.
        row: (N,) int64 row of each run.
        start: (N,) int64 first column.
        stop: (N,) int64 column after the last one.
        number: (N,) int64 object number, 0 for none.
        class_index: (N,) uint8 class index, IGNORE included.
    """

    shape: tuple[int, int]
    row: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    number: np.ndarray
    class_index: np.ndarray

    @property
    def length(self) -> np.ndarray:
        """(N,) int64 pixels of each run."""
        length: np.ndarray = self.stop - self.start
        return length


def read_runs(numbers: Any, classes: Any, foreground: Sequence[int]) -> Runs:
    """Runs of a plane, which is read in strips from top to bottom.

    Args:
        numbers: (H, W) object numbers, 0 for none: an object with `shape` whose row slices are arrays.
        classes: (H, W) uint8 class indices, likewise.
        foreground: indices of the classes that have objects.
    """
    height, width = classes.shape
    wanted = np.zeros(256, bool)
    wanted[list(foreground)] = True
    strip = max(1, _STRIP // max(width, 1))
    parts = [
        _runs_of(np.asarray(numbers[row : row + strip]), np.asarray(classes[row : row + strip]), wanted, row)
        for row in range(0, height, strip)
    ]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Runs((height, width), *columns)


def _runs_of(numbers: np.ndarray, classes: np.ndarray, wanted: np.ndarray, first: int) -> list[np.ndarray]:
    """Row, start, stop, number and class of the runs of a strip whose first row is `first`."""
    begins = np.ones(classes.shape, bool)
    begins[:, 1:] = (numbers[:, 1:] != numbers[:, :-1]) | (classes[:, 1:] != classes[:, :-1])
    at = np.flatnonzero(begins)
    length = np.diff(at, append=classes.size)
    number, class_index = numbers.ravel()[at].astype(np.int64), classes.ravel()[at]
    kept = (number > 0) | wanted[class_index]
    row, start = np.divmod(at[kept], classes.shape[1])
    return [row + first, start, start + length[kept], number[kept], class_index[kept]]


def near(runs: Runs, down: int, across: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of different runs as indices (n,) of both, part by part; the second run is the later one.

    Args:
        runs: of a plane.
        down: the second run is this number of rows below the first, 0 or more.
        across: largest distance of their nearest columns, 0 to FARTHEST; 0: they share a column, 1: or are adjacent.
    """
    # So many columns that runs near both ends of two rows are never within reach.
    wide = runs.shape[1] + 2 * FARTHEST
    begins, ends = runs.row * wide + runs.start, runs.row * wide + runs.stop
    for part in range(0, len(begins), _RUNS):
        these = slice(part, part + _RUNS)
        first = np.searchsorted(ends, begins[these] + down * wide - across, side="right")
        last = np.searchsorted(begins, ends[these] + down * wide + across, side="left")
        one = np.arange(part, part + len(first))
        if down == 0:
            first = one + 1
        count = np.maximum(last - first, 0)
        before = np.cumsum(count) - count
        yield np.repeat(one, count), np.arange(count.sum()) + np.repeat(first - before, count)


def joined(runs: Runs, values: np.ndarray) -> np.ndarray:
    """Number (N,) from 0 of each run's 4-connected group of pixels with the same value.

    Args:
        runs: of a plane.
        values: (N,) value of each run; runs of negative values are groups of their own.
    """
    if not len(values):
        return np.zeros(0, np.int64)
    pairs = [_same(values, *pair) for down, across in ((0, 1), (1, 0)) for pair in near(runs, down, across)]
    one, other = (np.concatenate(ends) for ends in zip(*pairs, strict=True))
    return groups_of(one, other, len(values))


def _same(values: np.ndarray, one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kept = (values[one] == values[other]) & (values[one] >= 0)
    return one[kept], other[kept]
