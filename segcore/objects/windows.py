"""Overlapping windows that cover a scene."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Windows:
    """Overlapping windows that cover a scene.

    Attributes:
        height, width: of the scene in pixels.
        rows, cols: first pixels of the windows along each axis, ascending; neighbours share at least two pixels.
        tall, wide: size of each window in pixels.
    """

    height: int
    width: int
    rows: Sequence[int]
    cols: Sequence[int]
    tall: int
    wide: int

    @classmethod
    def over(cls, height: int, width: int, side: int, overlap: int) -> "Windows":
        """Windows of one size over a scene, spread evenly.

        Args:
            height: of the scene in pixels.
            width: of the scene in pixels.
            side: largest height and width of a window.
            overlap: pixels that neighbours share at least; at most half of `side`.
        """
        (rows, tall), (cols, wide) = _spread(height, side, overlap), _spread(width, side, overlap)
        return cls(height, width, rows, cols, tall, wide)

    def core(self, i: int, j: int) -> tuple[float, float, float, float]:
        """First row, first column, and end of both, of what the window of row i and column j owns."""
        top, bottom = _core(self.rows, self.tall, self.height, i)
        left, right = _core(self.cols, self.wide, self.width, j)
        return top, left, bottom, right


def _spread(length: int, side: int, overlap: int) -> tuple[list[int], int]:
    """First pixels and size of the fewest windows along an axis, as small as they can be."""
    count = max(1, math.ceil((length - overlap) / (side - overlap)))
    size = min(length, math.ceil((length + (count - 1) * overlap) / count))
    return [(length - size) * index // max(count - 1, 1) for index in range(count)], size


def _core(starts: Sequence[int], size: int, length: int, index: int) -> tuple[float, float]:
    first = 0.0 if index == 0 else (starts[index - 1] + size + starts[index]) / 2
    last = index + 1 == len(starts)
    return first, float(length) if last else (starts[index] + size + starts[index + 1]) / 2
