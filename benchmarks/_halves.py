"""The training area of a prepared scene, divided by a straight line into an old and a new half."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from segcore.data.packed import Packed
from segcore.data.prepared import PreparedData
from segcore.params import Params
from segcore.splits import normalization
from segcore.splits.blocks import block_edges


def old_blocks(p: Params, data: PreparedData, seed: int) -> set[tuple[int, int]]:
    """Rows and columns of the training blocks on one side of a line that halves them; its direction is random."""
    blocks = _cells(p, data, data.regions[data.regions["split"] == "train"])
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi)
    order = np.argsort(blocks @ [np.sin(angle), np.cos(angle)], kind="stable")
    return {(int(row), int(col)) for row, col in blocks[order[: len(blocks) // 2]]}


def _cells(
    p: Params, data: PreparedData, table: pd.DataFrame, corner: tuple[float, float] = (0.5, 0.5)
) -> np.ndarray:
    """(n, 2) row and column of the block that contains a point of each rectangle; the data are one scene."""
    assert p.split.block is not None
    scene = data.items.iloc[0]
    cells = []
    for axis, start, length, fraction in (
        ("height", "row", "height", corner[0]),
        ("width", "col", "width", corner[1]),
    ):
        edges = block_edges(int(scene[axis]), p.split.block)
        point = np.minimum(table[start] + fraction * (table[length] - 1), scene[axis] - 1)
        cells.append(np.searchsorted(edges, point, "right") - 1)
    return np.stack(cells, axis=1)


def write_old(p: Params, whole: Path, seed: int, target: Path) -> Path:
    """Write prepared data whose training regions, windows and statistics are those of the old half only."""
    data, old = PreparedData(whole), old_blocks(p, PreparedData(whole), seed)

    def is_old(table: pd.DataFrame, corner: tuple[float, float]) -> np.ndarray:
        return np.array([(int(r), int(c)) in old for r, c in _cells(p, data, table, corner)], dtype=bool)

    inside = [is_old(data.windows, (down, right)) for down in (0.0, 1.0) for right in (0.0, 1.0)]
    regions = data.regions[(data.regions["split"] != "train") | is_old(data.regions, (0.5, 0.5))]
    statistics = normalization.BandStatistics(data.bands, len(data.classes))
    for region in regions[regions["split"] == "train"].itertuples():
        item = data.items.loc[region.item]
        packed = Packed(data.packed / item["packed"])
        statistics.add(normalization.region_sums(packed, int(item["plane"]), region, len(data.classes)))
    shutil.copytree(whole, target)
    regions.to_parquet(target / "regions.parquet", index=False)
    data.windows[np.all(inside, axis=0)].to_parquet(target / "windows.parquet", index=False)
    fitted = {**data.statistics, **statistics.result()}
    (target / "statistics.json").write_text(json.dumps(fitted, indent=2))
    return target
