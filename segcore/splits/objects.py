"""The table of the objects of all items, and their regions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from segcore.data.prepared import OBJECT_COLUMNS
from segcore.objects.planes import Plane, found


def object_table(
    items: pd.DataFrame, regions: pd.DataFrame, packed: Path, foreground: Sequence[int], cache: Path
) -> pd.DataFrame:
    """One row per object of an item, with the columns of `segcore.data.prepared.OBJECT_COLUMNS`.

    Args:
        items: pictures and planes of volumes: id, packed, plane, height, width.
        regions: of all items: id, item, row, col, height, width.
        packed: folder of the packed items.
        foreground: indices of the classes that have objects.
        cache: folder of the cached results.

    Raises:
        DataError: a packed item is missing or damaged.
    """
    planes = [Plane(row.packed, row.plane) for row in items.itertuples()]
    table = found(planes, packed, foreground, cache).objects
    ends = np.searchsorted(table["at"], np.arange(len(items) + 1))
    of_item = dict(list(regions.groupby("item")))
    ids, cut = np.full(len(table), "", object), np.zeros(len(table), bool)
    for at, item in enumerate(items.itertuples()):
        rows = slice(ends[at], ends[at + 1])
        if item.id in of_item:
            shape = (item.height, item.width)
            ids[rows], cut[rows] = _in_regions(table.iloc[rows], of_item[item.id], shape)
    table = table.assign(item=items["id"].to_numpy()[table["at"]], region=ids, cut_region=cut)
    return table[list(OBJECT_COLUMNS)].reset_index(drop=True)


def _in_regions(
    objects: pd.DataFrame, regions: pd.DataFrame, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Id of the region that has each object's first pixel, and whether the object is cut by an edge of that region.

    Args:
        objects: of one item, with the columns of `segcore.objects.index.OF_PLANE`.
        regions: of the item: id, row, col, height, width.
        shape: height and width of the item in pixels.

    Returns:
        (N,) str, "" where no region has the pixel; (N,) bool, True where the object reaches an edge of its region
        beyond which the item goes on.
    """
    top, left, first = (objects[name].to_numpy() for name in ("row", "col", "first_col"))
    bottom, right = top + objects["height"].to_numpy(), left + objects["width"].to_numpy()
    ids, cut = np.full(len(objects), "", object), np.zeros(len(objects), bool)
    for region in regions.itertuples():
        down, across = region.row + region.height, region.col + region.width
        inside = (top >= region.row) & (top < down) & (first >= region.col) & (first < across)
        above, below = (top <= region.row) & (region.row > 0), (bottom >= down) & (down < shape[0])
        before, after = (left <= region.col) & (region.col > 0), (right >= across) & (across < shape[1])
        ids[inside] = region.id
        cut |= inside & (above | below | before | after)
    return ids, cut
