"""Blocks of large scenes: edges and splits.

Large scenes are divided into blocks, which are assigned to splits in the order of a hash within the scene (Roberts et
al. 2017, Ecography 40:913: spatial block cross-validation).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from segcore.files import digest
from segcore.params import Split

# value in place of a split: the scene is divided into blocks
BLOCKS = "blocks"


def fraction(*parts: object) -> float:
    """A number in [0, 1) from the sha256 of the parts."""
    return int(digest("\x1f".join(map(str, parts)))[:16], 16) / 2**64


def bucket(position: float, fractions: Mapping[Any, float]) -> str:
    """The split whose part of [0, 1) contains the position."""
    edge = 0.0
    # test first, so that its members depend on its own fraction only
    for name in ("test", "validation", "train"):
        edge += fractions[name]
        if position < edge:
            return name
    return "train"


def block_splits(anchor: str, rows: int, cols: int, split: Split, fold: int | None = None) -> np.ndarray:
    """(rows, cols) array of split names: in the order of a hash, the first blocks are test, the next validation.

    With folds, the order is divided into as many test parts; the blocks after the part of the fold are validation.

    Args:
        anchor: item that the blocks are named after; all dates of a grid have the same anchor.
        rows: number of rows of blocks.
        cols: number of columns of blocks.
        split: settings.
        fold: index of the fold; None without folds.
    """
    order = sorted(
        ((r, c) for r in range(rows) for c in range(cols)),
        key=lambda b: fraction(split.seed, anchor, b[0], b[1]),
    )
    grid = np.empty((rows, cols), dtype=object)
    if fold is not None and split.folds:
        start, stop = (len(order) * (fold + i) // split.folds for i in (0, 1))
        rest = order[stop:] + order[:start]
        for rank, (row, col) in enumerate(rest):
            grid[row, col] = bucket((rank + 0.5) / len(rest), without_test(split))
        for row, col in order[start:stop]:
            grid[row, col] = "test"
        return grid
    for rank, (row, col) in enumerate(order):
        grid[row, col] = bucket((rank + 0.5) / len(order), split.fractions)
    return grid


def without_test(split: Split) -> dict[str, float]:
    """Fractions of the part that is not tested: those of train and validation, which sum to 1."""
    held = split.fractions["train"] + split.fractions["validation"]
    return {
        "train": split.fractions["train"] / held,
        "validation": split.fractions["validation"] / held,
        "test": 0.0,
    }


def block_edges(length: int, block: int) -> np.ndarray:
    """Edges of blocks of about `block` pixels that divide `length` evenly."""
    count = max(1, round(length / block))
    return np.linspace(0, length, count + 1).astype(int)


def is_divided(height: int, width: int, split: Split) -> bool:
    """Whether a scene of this size in pixels is divided into blocks."""
    return split.block is not None and max(height, width) >= 2 * split.block
