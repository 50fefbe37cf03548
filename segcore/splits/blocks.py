"""Blocks of large scenes: how a scene is divided, and which split each block belongs to.

A scene larger than a block is divided into blocks, ranked by hash within the scene (Roberts et al. 2017, Ecography
40:913: spatial block cross-validation).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from segcore.files import digest
from segcore.params import Split

BLOCKS = "blocks"  # in place of a split: the scene is divided


def fraction(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone, by sha256."""
    return int(digest("\x1f".join(map(str, parts)))[:16], 16) / 2**64


def bucket(position: float, fractions: Mapping[Any, float]) -> str:
    """The split whose share of [0, 1) holds the position."""
    edge = 0.0
    for name in ("test", "validation", "train"):  # test first: its members depend on its own share alone
        edge += fractions[name]
        if position < edge:
            return name
    return "train"


def block_splits(anchor: str, rows: int, cols: int, split: Split) -> np.ndarray:
    """(rows, cols) array of split names: blocks ranked by hash, the first ones test, the next validation.

    Args:
        anchor: the item that names the blocks; other dates of its grid have the same.
    """
    order = sorted(
        ((r, c) for r in range(rows) for c in range(cols)),
        key=lambda b: fraction(split.seed, anchor, b[0], b[1]),
    )
    grid = np.empty((rows, cols), dtype=object)
    for rank, (row, col) in enumerate(order):
        grid[row, col] = bucket((rank + 0.5) / len(order), split.fractions)
    return grid


def block_edges(length: int, block: int) -> np.ndarray:
    """Edges of blocks of about `block` pixels that divide `length` evenly."""
    count = max(1, round(length / block))
    return np.linspace(0, length, count + 1).astype(int)


def is_divided(height: int, width: int, split: Split) -> bool:
    """Whether a scene of this size is cut into blocks."""
    return split.block is not None and max(height, width) >= 2 * split.block
