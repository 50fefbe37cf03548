"""The region table: whole items, or blocks of large scenes, and the split of each.

`segcore.splits.assignment` assigns groups to splits. A large scene that is linked only to other dates of its grid is
divided into blocks; a buffer between blocks of different splits is left unused. Windows are cut after splitting.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from segcore.errors import DataError
from segcore.ingest.links.near_duplicates import MAX_DISTANCE, MIN_DETAIL
from segcore.params import SPLITS, Split
from segcore.splits.blocks import BLOCKS, block_edges, block_splits

if TYPE_CHECKING:
    from segcore.splits.assignment import Assignment

# pairs of each kind that an error names
_EXAMPLES = 3


class Rectangle(NamedTuple):
    """A rectangle of an item in pixels: first row and column, height and width."""

    row: int
    col: int
    height: int
    width: int


def _trimmed(grid: np.ndarray, r: int, c: int, rows: np.ndarray, cols: np.ndarray, buffer: int) -> Rectangle:
    """A block without the buffer along sides to other splits; of two blocks, the one of lower rank is trimmed.

    Test blocks have the highest rank and are never trimmed.
    """
    top, bottom, left, right = rows[r], rows[r + 1], cols[c], cols[c + 1]
    rank = {"train": 0, "validation": 1, "test": 2}

    def trim(neighbours: np.ndarray) -> int:
        return buffer * any(rank[n] > rank[grid[r, c]] for n in neighbours.ravel())

    around_c = slice(max(c - 1, 0), c + 2)
    around_r = slice(max(r - 1, 0), r + 2)
    top += trim(grid[max(r - 1, 0) : r, around_c])
    bottom -= trim(grid[r + 1 : r + 2, around_c])
    left += trim(grid[around_r, max(c - 1, 0) : c])
    right -= trim(grid[around_r, c + 1 : c + 2])
    return Rectangle(int(top), int(left), int(bottom - top), int(right - left))


def _regions_of_item(row: Any, split: Split, decision: "Assignment") -> list[dict[str, object]]:
    """Rows of the region table of one item: the whole item, or its blocks."""
    catalogued = getattr(row, "volume", row.id)
    name, anchor = decision.groups[row.group], decision.anchors.get(catalogued)
    base = {"item": row.id, "group": row.group}
    height, width = int(row.height), int(row.width)
    if anchor is None:
        cluster = decision.clusters[catalogued]
        whole = Rectangle(0, 0, height, width)
        return [{**base, "id": row.id, "split": name, "cluster": cluster, **whole._asdict()}]
    assert split.block is not None
    rows, cols = block_edges(height, split.block), block_edges(width, split.block)
    shape = (len(rows) - 1, len(cols) - 1)
    grid = (
        block_splits(anchor, *shape, split, decision.fold)
        if name == BLOCKS
        else np.full(shape, name, dtype=object)
    )
    table = []
    for r, c in np.ndindex(*shape):
        area = _trimmed(grid, r, c, rows, cols, split.buffer)
        if min(area.height, area.width) > 0:
            cluster = decision.clusters.get(catalogued, f"{anchor}_r{r}c{c}")
            place = {"id": f"{row.id}_r{r}c{c}", "split": grid[r, c], "cluster": cluster}
            table.append({**base, **place, **area._asdict()})
    return table


def assign(items: pd.DataFrame, split: Split, decision: "Assignment") -> pd.DataFrame:
    """The region table: id, item, group, split, cluster, row, col, height, width.

    Args:
        items: prepared items with id, group, height, width, and `volume`, the id in the catalogue, if it differs.
        split: settings.
        decision: splits of the groups; items that are set aside get no region.

    Raises:
        DataError: a split is empty.
    """
    aside = decision.aside
    regions = pd.DataFrame(
        [
            region
            for row in items.itertuples()
            if getattr(row, "volume", row.id) not in aside
            for region in _regions_of_item(row, split, decision)
        ],
        columns=["item", "group", "id", "split", "cluster", "row", "col", "height", "width"],
    )
    for name in SPLITS:
        if not (regions["split"] == name).any():
            raise _empty(name, items["group"].nunique(), decision)
    return regions


def _empty(name: str, groups: int, decision: "Assignment") -> DataError:
    """The error for a split without regions; names the links if they leave too few groups."""
    linked = len(set(decision.clusters.values()))
    what = (
        f"the {name} split is empty ({groups} groups, {linked} after linked ones are joined, "
        f"{len(decision.aside)} items set aside)"
    )
    remedy = "add data, make data.group finer, or set split.block, which divides large scenes"
    # with fewer groups no other shares or seed give each split one
    if groups >= len(SPLITS):
        remedy += "; or change split.fractions or split.seed, or assign groups in split.given"
    if not decision.joined or linked >= groups:
        return DataError(what, remedy)
    # as text: kind, number of pairs, and some of them
    parts = [
        f"{len(pairs)} {kind} pairs such as {', '.join(pairs[:_EXAMPLES])}"
        for kind, pairs in sorted(decision.joined.items())
    ]
    kinds = " and ".join(sorted(decision.joined))
    return DataError(
        f"{what}; linked: {'; '.join(parts)} (linked as near-duplicate: at most {MAX_DISTANCE} of 64 bits differ, "
        f"and detail correlates by {MIN_DETAIL} or more)",
        f"if these groups only look alike, or their overlap does no harm, leave {kinds} out of split.links; otherwise "
        f"{remedy}",
    )
