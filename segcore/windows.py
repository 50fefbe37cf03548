"""Training windows: a grid of footprints that lie in the training area with the buffer to spare."""

import numpy as np
import pandas as pd

from segcore.params import Prepare, Split
from segcore.splits import block_edges, block_splits, is_divided, split_of_group


def _starts(length: int, window: int, stride: int) -> np.ndarray:
    """First pixels of windows; the last one may overhang by less than a stride, so that every pixel is covered."""
    return np.arange(0, max(length - window + stride, 1), stride)


def class_counts(
    label: np.ndarray, rows: np.ndarray, cols: np.ndarray, window: int, classes: int
) -> np.ndarray:
    """Pixels of each class in windows on a grid.

    Args:
        label: (H, W) uint8 class indices.
        rows, cols: first pixels of the windows.

    Returns:
        (len(rows), len(cols), classes) int64.
    """
    out = np.zeros((len(rows), len(cols), classes), dtype=np.int64)
    for index in range(classes):
        for i, row in enumerate(rows):
            columns = (label[row : row + window] == index).sum(axis=0, dtype=np.int64)
            running = np.concatenate([[0], np.cumsum(columns)])
            out[i, :, index] = running[np.minimum(cols + window, label.shape[1])] - running[cols]
    return out


def _inside_training(
    rows: np.ndarray, cols: np.ndarray, item: str, shape: tuple[int, int], window: int, split: Split
) -> np.ndarray:
    """(len(rows), len(cols)) bool: the window and its buffer touch training blocks only."""
    assert split.block is not None
    row_edges, col_edges = block_edges(shape[0], split.block), block_edges(shape[1], split.block)
    grid = block_splits(item, len(row_edges) - 1, len(col_edges) - 1, split)
    other = np.pad(np.cumsum(np.cumsum(grid != "train", axis=0), axis=1), ((1, 0), (1, 0)))

    def span(starts: np.ndarray, edges: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        first = np.clip(starts - split.buffer, 0, length - 1)
        last = np.clip(starts + window + split.buffer, 1, length) - 1
        return np.searchsorted(edges, first, "right") - 1, np.searchsorted(edges, last, "right")

    r0, r1 = span(rows, row_edges, shape[0])
    c0, c1 = span(cols, col_edges, shape[1])
    total = other[r1][:, c1] - other[r0][:, c1] - other[r1][:, c0] + other[r0][:, c0]
    return total == 0


def index_item(
    item: str, group: str, label: np.ndarray, classes: int, prepare: Prepare, split: Split
) -> pd.DataFrame:
    """Training windows of one item with their pixels per class; empty if the item does not train.

    Returns:
        item, row, col, height, width, and one column `class_<k>` a class.
    """
    height, width = label.shape
    rows = _starts(height, prepare.window, prepare.stride)
    cols = _starts(width, prepare.window, prepare.stride)
    given = any(group in members for members in split.given.values())
    if is_divided(height, width, split) and not given:
        keep = _inside_training(rows, cols, item, (height, width), prepare.window, split)
    else:
        keep = np.full((len(rows), len(cols)), split_of_group(group, split) == "train")
    counts = class_counts(label, rows, cols, prepare.window, classes)
    labelled = counts.sum(axis=-1) > 0
    r, c = np.nonzero(keep & labelled)
    table = pd.DataFrame({"item": item, "row": rows[r], "col": cols[c]})
    table["height"] = np.minimum(prepare.window, height - table["row"])
    table["width"] = np.minimum(prepare.window, width - table["col"])
    for index in range(classes):
        table[f"class_{index}"] = counts[r, c, index]
    return table
