"""Splits that are a pure function of group and seed, so that no item ever moves when data grow.

Groups (patient, scene, area) fall into hash buckets. A scene larger than a block is divided into blocks, ranked by
hash within the scene; a buffer is kept free between blocks of different splits (Roberts et al. 2017, Ecography
40:913: spatial block cross-validation). Splitting comes before windows are cut.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from segcore.errors import DataError, LeakError
from segcore.params import SPLITS, Split


class Rectangle(NamedTuple):
    """Pixels of an item: first row and column, height and width."""

    row: int
    col: int
    height: int
    width: int


def _fraction(*parts: object) -> float:
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _bucket(position: float, fractions: Mapping[Any, float]) -> str:
    edge = 0.0
    for name in ("test", "validation", "train"):  # test first: its members depend on its own share alone
        edge += fractions[name]
        if position < edge:
            return name
    return "train"


def split_of_group(group: str, split: Split) -> str:
    """The split of a whole group: as given, or by its hash bucket."""
    for name, members in split.given.items():
        if group in members:
            return name
    return _bucket(_fraction(split.seed, group), split.fractions)


def block_splits(item: str, rows: int, cols: int, split: Split) -> np.ndarray:
    """(rows, cols) array of split names: blocks ranked by hash, the first ones test, the next validation."""
    order = sorted(
        ((r, c) for r in range(rows) for c in range(cols)),
        key=lambda b: _fraction(split.seed, item, b[0], b[1]),
    )
    grid = np.empty((rows, cols), dtype=object)
    for rank, (row, col) in enumerate(order):
        grid[row, col] = _bucket((rank + 0.5) / len(order), split.fractions)
    return grid


def block_edges(length: int, block: int) -> np.ndarray:
    """Edges of blocks of about `block` pixels that divide `length` evenly."""
    count = max(1, round(length / block))
    return np.linspace(0, length, count + 1).astype(int)


def is_divided(height: int, width: int, split: Split) -> bool:
    """Whether a scene of this size is divided into blocks."""
    return split.block is not None and max(height, width) >= 2 * split.block


def _trimmed(grid: np.ndarray, r: int, c: int, rows: np.ndarray, cols: np.ndarray, buffer: int) -> Rectangle:
    """A block less the buffer along the sides that face another split; test blocks stay whole against all."""
    top, bottom, left, right = rows[r], rows[r + 1], cols[c], cols[c + 1]
    rank = {"train": 0, "validation": 1, "test": 2}

    def yields(neighbours: np.ndarray) -> int:
        return buffer * any(rank[n] > rank[grid[r, c]] for n in neighbours.ravel())

    around_c = slice(max(c - 1, 0), c + 2)
    around_r = slice(max(r - 1, 0), r + 2)
    top += yields(grid[max(r - 1, 0) : r, around_c])
    bottom -= yields(grid[r + 1 : r + 2, around_c])
    left += yields(grid[around_r, max(c - 1, 0) : c])
    right -= yields(grid[around_r, c + 1 : c + 2])
    return Rectangle(int(top), int(left), int(bottom - top), int(right - left))


def regions_of_item(item: str, group: str, height: int, width: int, split: Split) -> list[dict[str, object]]:
    """Rows of the region table of one item: the whole of it, or its blocks."""
    base = {"item": item, "group": group}
    if not is_divided(height, width, split):
        whole = Rectangle(0, 0, height, width)
        return [
            {**base, "id": item, "split": split_of_group(group, split), "cluster": group, **whole._asdict()}
        ]
    assert split.block is not None
    if any(group in members for members in split.given.values()):
        # A scene assigned by hand stays whole in its split; blocks then only divide it for the statistics.
        name = split_of_group(group, split)
        given = split.model_copy(update={"fractions": {s: float(s == name) for s in SPLITS}})
    else:
        given = split
    rows, cols = block_edges(height, split.block), block_edges(width, split.block)
    grid = block_splits(item, len(rows) - 1, len(cols) - 1, given)
    table = []
    for r, c in np.ndindex(*grid.shape):
        area = _trimmed(grid, r, c, rows, cols, split.buffer)
        if min(area.height, area.width) > 0:
            name = f"{item}_r{r}c{c}"
            table.append({**base, "id": name, "split": grid[r, c], "cluster": name, **area._asdict()})
    return table


def assign(items: pd.DataFrame, split: Split) -> pd.DataFrame:
    """The region table: id, item, group, split, cluster, row, col, height, width.

    Args:
        items: catalogue rows with id, group, height, width.

    Raises:
        DataError: a hand-given group does not exist or stands in two splits, or a split stays empty.
    """
    given = [g for members in split.given.values() for g in members]
    absent = sorted(set(given) - set(items["group"]))
    twice = sorted({g for g in given if given.count(g) > 1})
    if absent or twice:
        what = f"split.given names unknown groups {absent}" if absent else f"split.given names {twice} twice"
        raise DataError(what, f"groups there are: {', '.join(sorted(set(items['group']))[:20])}")
    regions = pd.DataFrame(
        [
            row
            for i in items.itertuples()
            for row in regions_of_item(i.id, i.group, int(i.height), int(i.width), split)
        ]
    )
    for name in SPLITS:
        if not (regions["split"] == name).any():
            raise DataError(
                f"the {name} split is empty ({items['group'].nunique()} groups)",
                "add data, change split.fractions or split.seed, assign groups in split.given, or set split.block",
            )
    return regions


def _separation(a: pd.DataFrame, b: pd.DataFrame) -> np.ndarray:
    """(len(a), len(b)) Chebyshev distance in pixels between rectangles; 0: they touch, below: they overlap."""

    def along(start: str, size: str) -> np.ndarray:
        a0, b0 = a[start].to_numpy()[:, None], b[start].to_numpy()[None]
        a1, b1 = a0 + a[size].to_numpy()[:, None], b0 + b[size].to_numpy()[None]
        return np.maximum(a0 - b1, b0 - a1)

    return np.maximum(along("row", "height"), along("col", "width"))


def _check_gaps(a: pd.DataFrame, b: pd.DataFrame, buffer: int) -> None:
    for item, left in a.groupby("item"):
        right = b[b["item"] == item]
        separation = _separation(left, right)
        if (separation < buffer).any():
            i, j = np.argwhere(separation < buffer)[0]
            raise LeakError(
                f"{left.iloc[i]['id']} ({left.iloc[i]['split']}) and {right.iloc[j]['id']} ({right.iloc[j]['split']}) "
                f"of {item} are {max(separation[i, j], 0)} pixels apart, less than the buffer of {buffer}",
                "prepare the data anew; report it if it persists: the split is wrong",
            )


def check(regions: pd.DataFrame, windows: pd.DataFrame, items: pd.DataFrame, split: Split) -> None:
    """Fail closed if anything of one split reaches another.

    Args:
        regions: the region table.
        windows: training windows: item, row, col, height, width.
        items: id, group, sha256, label_sha256, height, width.

    Raises:
        LeakError: names the pair that leaks.
    """
    again = "remove one of the two, or give both the same data.group"
    divided = {i.id for i in items.itertuples() if is_divided(int(i.height), int(i.width), split)}
    whole = regions[~regions["item"].isin(divided)]
    for key, what in (("group", "group"), ("item", "item")):
        per = whole.groupby(key)["split"].nunique()
        if (per > 1).any():
            raise LeakError(f"{what} {per.index[per > 1][0]!r} is in more than one split", again)
    members = regions.merge(items[["id", "sha256"]], left_on="item", right_on="id", suffixes=("", "_item"))
    for digest, same in members.groupby("sha256"):
        pair = sorted(set(same["item"]))
        if len(pair) > 1 and same["split"].nunique() > 1:
            raise LeakError(
                f"{pair[0]} and {pair[1]} are the same picture ({digest[:12]}) in different splits", again
            )
    scenes = regions[regions["item"].isin(divided)]
    parts = {name: scenes[scenes["split"] == name] for name in SPLITS}
    _check_gaps(parts["train"], parts["validation"], split.buffer)
    _check_gaps(parts["train"], parts["test"], split.buffer)
    _check_gaps(parts["validation"], parts["test"], split.buffer)
    held_out = regions[regions["split"] != "train"]
    _check_gaps(windows.assign(split="train", id="training window"), held_out, split.buffer)
