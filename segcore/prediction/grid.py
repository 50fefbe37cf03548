"""The windows of a plane, and the panels in which they are processed."""

import numpy as np

from segcore.inference.tiling import blend_weights, tile_starts


class Grid:
    """The windows of a plane, their weights, and the panels in which they are processed.

    Args:
        height: of the plane in pixels.
        width: of the plane in pixels.
        tile: side of the windows in pixels; a plane smaller than a window is one window.
        overlap: of neighbouring windows in pixels.
        max_columns: width of a panel in pixels; a panel can be up to one window wider.

    Raises:
        ParamsError: the overlap is more than half a tile.
    """

    def __init__(self, height: int, width: int, tile: int, overlap: int, max_columns: int) -> None:
        self.height, self.width, self.overlap = height, width, overlap
        self.rows, self.cols = tile_starts(height, tile, overlap), tile_starts(width, tile, overlap)
        self.tall, self.wide = min(tile, height), min(tile, width)
        self.down = normalized_weights(self.rows, self.tall, height, overlap)
        self.across = normalized_weights(self.cols, self.wide, width, overlap)
        self.panels = panels(self.cols, self.wide, max_columns)

    def __len__(self) -> int:
        return len(self.rows) * len(self.cols)

    def done_rows(self, index: int) -> int:
        """Number of rows of a row of windows that no later row of windows covers."""
        return (self.rows[index + 1] if index + 1 < len(self.rows) else self.height) - self.rows[index]

    def extent(self, panel: tuple[int, int]) -> tuple[int, int, int]:
        """First column of a panel, its width, and the width that no later panel covers."""
        first, end = panel
        left, right = self.cols[first], self.cols[end - 1] + self.wide
        return left, right - left, (self.cols[end] if end < len(self.cols) else right) - left

    def batches(
        self, panel: tuple[int, int], valid: np.ndarray | None, at_once: int
    ) -> list[tuple[list[int], list[slice]]]:
        """Windows of a row of a panel, and their columns within the panel, at most `at_once` together.

        Windows without a valid pixel are left out.

        Args:
            panel: range of windows.
            valid: (H, W) bool, of the row; None: all pixels are valid.
            at_once: number of windows.
        """
        left = self.cols[panel[0]]
        areas = {j: slice(self.cols[j] - left, self.cols[j] - left + self.wide) for j in range(*panel)}
        used = [j for j in areas if valid is None or valid[:, areas[j]].any()]
        groups = [used[first : first + at_once] for first in range(0, len(used), at_once)]
        return [(group, [areas[j] for j in group]) for group in groups]


def normalized_weights(starts: list[int], size: int, length: int, overlap: int) -> list[np.ndarray]:
    """(size,) float32 weights of each window along one axis; they sum to 1 at every pixel."""
    last = len(starts) - 1
    weights = [blend_weights(size, overlap, i == 0, i == last) for i in range(len(starts))]
    total = np.zeros(length, np.float32)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + size] += weight
    return [w / total[s : s + size] for s, w in zip(starts, weights, strict=True)]


def panels(starts: list[int], wide: int, max_columns: int) -> list[tuple[int, int]]:
    """Half-open ranges (first, end) of the windows of each panel.

    The last two windows can overlap by more than the others and share a panel, so that panels overlap by `overlap`.
    """
    borders = [0]
    for index in range(1, len(starts) - 1):
        if starts[index] + wide - starts[borders[-1]] > max_columns:
            borders.append(index)
    return list(zip(borders, [*borders[1:], len(starts)], strict=True))
