"""Pictures of the objects that components of a perfect mask merge."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segcore.class_colors import hex_color
from segcore.data.packed import Packed
from segcore.data.raster import Window
from segcore.plots.overlays import marked_objects
from tasks.data_card.facts import plural
from tasks.data_card.item_pictures import BUDGET, SIDES, inlined
from tasks.data_card.objects import CardObjects

MOST_MERGES = 6
# side in pixels of the part of a large image that is shown
_SIDE = 384
# merged objects, and all others
MERGED, OTHER = (230, 97, 0), (66, 133, 244)
LEGEND = (hex_color(MERGED), hex_color(OTHER))


def merge_pictures(found: CardObjects, store: Path) -> list[dict[str, Any]]:
    """Pictures of the planes in which components lose most objects, at most MOST_MERGES."""
    of_plane = found.ceiling.groupby("at")[["true", "predicted"]].sum()
    lost = (of_plane["true"] - of_plane["predicted"]).sort_values(ascending=False, kind="stable")
    # an object of several parts makes up for a merged one in the difference
    merging = set(found.objects["at"][found.objects["merged"]])
    chosen = [int(at) for at in lost.index if at in merging][:MOST_MERGES]
    cells = []
    for at in chosen:
        row, objects = found.planes.iloc[at], found.objects[found.objects["at"] == at]
        merged = objects[objects["merged"]]
        window = _window(merged, int(row["height"]), int(row["width"]))
        picture = marked_objects(
            Packed(store / row["packed"]),
            int(row["plane"]),
            window,
            merged["id"].to_numpy(),
            (MERGED, OTHER),
            SIDES[0],
        )
        text = (
            f"{plural(int(of_plane['true'][at]), 'object')}, {plural(int(of_plane['predicted'][at]), 'component')}; "
            f"{len(merged):,} merged"
        )
        several = (found.planes["item"] == row["item"]).sum() > 1
        cells.append(
            {
                "id": row["item"],
                "text": text,
                "plane": f"plane {row['plane'] + 1}" if several else "",
                "part": window[2:] != (row["height"], row["width"]),
                "picture": inlined([picture], BUDGET / 4 / MOST_MERGES)[0],
            }
        )
    return cells


def _window(merged: pd.DataFrame, height: int, width: int) -> Window:
    """The whole image, or the part of a large one that has most merged objects."""
    if max(height, width) <= 2 * _SIDE:
        return 0, 0, height, width
    rows, cols = merged["center_row"].to_numpy(), merged["center_col"].to_numpy()
    cell = _SIDE // 2
    cells, counts = np.unique(
        np.stack([rows // cell, cols // cell], axis=1).astype(np.int64), axis=0, return_counts=True
    )
    center = (cells[counts.argmax()] + 0.5) * cell
    tall, wide = min(_SIDE, height), min(_SIDE, width)
    row, col = (
        int(min(max(middle - side / 2, 0), end - side))
        for middle, side, end in zip(center, (tall, wide), (height, width), strict=True)
    )
    return row, col, tall, wide
