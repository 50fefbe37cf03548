"""Training windows: windows on a regular grid that are in the training area, with the buffer around them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from segcore.params import Prepare, Split
from segcore.splits.assignment import Assignment
from segcore.splits.blocks import BLOCKS, block_edges, block_splits

# label pixels that are read at a time
_STRIP_BYTES = 2**21
# counts of up to this number of rows fit into 8 bits, which makes their addition ten times as fast
_STRIP_ROWS = 255


def _starts(length: int, window: int, stride: int) -> np.ndarray:
    """First pixels of windows that cover all pixels; the last window may overhang by less than a stride."""
    return np.arange(0, max(length - window + stride, 1), stride)


def _column_counts(label: Any, first: int, stop: int, classes: int) -> np.ndarray:
    """(classes, W) int64 pixels of each class in rows first to stop, read in strips of bounded size."""
    width = label.shape[1]
    strip = min(max(1, _STRIP_BYTES // max(width, 1)), _STRIP_ROWS)
    counts = np.zeros((classes, width), np.int64)
    for row in range(first, stop, strip):
        part = np.asarray(label[row : min(row + strip, stop)])
        for index in range(classes):
            counts[index] += (part == index).view(np.uint8).sum(axis=0, dtype=np.uint8)
    return counts


def _counts_by_row(
    label: Any, rows: np.ndarray, cols: np.ndarray, window: int, classes: int
) -> Iterator[np.ndarray]:
    """(len(cols), classes) int64 for each row of windows; label rows are added to and removed from running counts."""
    height, width = label.shape
    right = np.minimum(cols + window, width)
    counts, first, stop = np.zeros((classes, width), np.int64), 0, 0
    for row in rows:
        until = min(int(row) + window, height)
        if row < stop:
            counts += _column_counts(label, stop, until, classes)
            counts -= _column_counts(label, first, int(row), classes)
        else:
            counts = _column_counts(label, int(row), until, classes)
        first, stop = int(row), until
        running = np.pad(np.cumsum(counts, axis=1), ((0, 0), (1, 0)))
        yield (running[:, right] - running[:, cols]).T


def class_counts(label: Any, rows: np.ndarray, cols: np.ndarray, window: int, classes: int) -> np.ndarray:
    """Pixels of each class in windows on a grid.

    Args:
        label: (H, W) uint8 class indices: an object with `shape` whose row slices are arrays.
        rows: first rows of the windows, ascending.
        cols: first columns of the windows, ascending.
        window: side of a window in pixels.
        classes: number of classes.

    Returns:
        (len(rows), len(cols), classes) int64.
    """
    out = np.zeros((len(rows), len(cols), classes), dtype=np.int64)
    for i, counts in enumerate(_counts_by_row(label, rows, cols, window, classes)):
        out[i] = counts
    return out


def _inside_training(
    rows: np.ndarray,
    cols: np.ndarray,
    anchor: str,
    shape: tuple[int, int],
    window: int,
    split: Split,
    fold: int | None,
) -> np.ndarray:
    """(len(rows), len(cols)) bool, True if the window and its buffer are in training blocks only."""
    assert split.block is not None
    row_edges, col_edges = block_edges(shape[0], split.block), block_edges(shape[1], split.block)
    grid = block_splits(anchor, len(row_edges) - 1, len(col_edges) - 1, split, fold)
    other = np.pad(np.cumsum(np.cumsum(grid != "train", axis=0), axis=1), ((1, 0), (1, 0)))

    def span(starts: np.ndarray, edges: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        first = np.clip(starts - split.buffer, 0, length - 1)
        last = np.clip(starts + window + split.buffer, 1, length) - 1
        return np.searchsorted(edges, first, "right") - 1, np.searchsorted(edges, last, "right")

    r0, r1 = span(rows, row_edges, shape[0])
    c0, c1 = span(cols, col_edges, shape[1])
    total = other[r1][:, c1] - other[r0][:, c1] - other[r1][:, c0] + other[r0][:, c0]
    return np.asarray(total == 0)


def index_item(
    row: Any, label: Any, classes: int, prepare: Prepare, split: Split, decision: Assignment
) -> np.ndarray:
    """Training windows of one item with their pixels per class; none if the item is not in the training split.

    Args:
        row: of the prepared items: id, group, and `volume`, the id in the catalogue, if it differs.
        label: (H, W) uint8 class indices: an object with `shape` whose row slices are arrays. It is read once or twice
            from top to bottom, a few MB at a time.
        classes: number of classes.
        prepare: window and stride in pixels.
        split: settings.
        decision: splits of the groups.

    Returns:
        (n, 4 + classes) int32: row, col, height, width, and pixels of each class.
    """
    height, width = label.shape
    rows = _starts(height, prepare.window, prepare.stride)
    cols = _starts(width, prepare.window, prepare.stride)
    catalogued = getattr(row, "volume", row.id)
    place = None if catalogued in decision.aside else decision.groups[row.group]
    if place == BLOCKS:
        anchor = decision.anchors[catalogued]
        keep = _inside_training(rows, cols, anchor, (height, width), prepare.window, split, decision.fold)
    else:
        keep = np.full((len(rows), len(cols)), place == "train")
    parts: list[np.ndarray] = []
    if keep.any():
        for i, counts in enumerate(_counts_by_row(label, rows, cols, prepare.window, classes)):
            c = np.flatnonzero(keep[i] & (counts.sum(axis=-1) > 0))
            tall = np.full(len(c), min(prepare.window, height - rows[i]))
            wide = np.minimum(prepare.window, width - cols[c])
            parts.append(np.column_stack([np.full(len(c), rows[i]), cols[c], tall, wide, counts[c]]))
    return np.concatenate(parts or [np.zeros((0, 4 + classes))], dtype=np.int32, casting="unsafe")


def tabulated(items: Sequence[str], windows: Sequence[np.ndarray], classes: int) -> pd.DataFrame:
    """Windows of several items as one table: item, row, col, height, width, and a column `class_<k>` per class."""
    names = ["row", "col", "height", "width", *(f"class_{index}" for index in range(classes))]
    cells = np.concatenate([*windows, np.zeros((0, len(names)), np.int32)], dtype=np.int32)
    table = pd.DataFrame(dict(zip(names, cells.T.copy(), strict=True)))
    table.insert(0, "item", np.repeat(np.array(items, dtype=object), [len(w) for w in windows]))
    return table
