"""The check that no split leaks into another. It uses the prepared tables, independently of the split assignment.

Items on one pixel grid (planes of a volume, dates of a scene, equal content) are compared in pixels, and items that
overlap on different grids on the map. All other linked items, and items of one group, must be in one split.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import shapely

from segcore.errors import LeakError
from segcore.ingest.links import footprints
from segcore.params import SPLITS, Split

_BIT = {name: 1 << i for i, name in enumerate(SPLITS)}
# windows that are compared at a time; each needs about 400 bytes
_AT_ONCE = 8_000
_BOX = ["row", "col", "height", "width"]
_RESOLVE = "remove one of the two, give both the same data.group, or delete their rows of splits/<name>.csv"
_REPORT = "run the step prepare again; if the error persists, report it: the split assignment is wrong"


def _several(mask: Any) -> Any:
    """Whether a bit mask of splits (int or array) has more than one split."""
    return (mask & (mask - 1)) != 0


def _names(mask: int) -> str:
    return ", ".join(name for name, bit in _BIT.items() if mask & bit)


def _items_in_splits(regions: pd.DataFrame, windows: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Items with regions or windows: their columns, frame, volume, and a bit mask of their splits.

    Raises:
        LeakError: a region or window of an unknown item, a duplicate region, or an unknown split.
    """
    framed = items.assign(frame=footprints.frames(items)).set_index("id", drop=False)
    if "volume" not in framed:
        framed["volume"] = framed["id"]
    for what, table in (("region", regions), ("training window", windows)):
        unknown = ~table["item"].isin(framed.index)
        if unknown.any():
            raise LeakError(f"a {what} is of {table['item'][unknown].iloc[0]}, which is not an item", _REPORT)
    if regions["id"].duplicated().any():
        raise LeakError(f"duplicate region {regions['id'][regions['id'].duplicated()].iloc[0]}", _REPORT)
    bits = regions["split"].map(_BIT)
    if bits.isna().any():
        raise LeakError(f"region {regions['id'][bits.isna()].iloc[0]} is in an unknown split", _REPORT)
    reached = [
        regions.assign(bit=bits)[["item", "bit"]],
        windows[["item"]].drop_duplicates().assign(bit=_BIT["train"]),
    ]
    both = pd.concat(reached, ignore_index=True).drop_duplicates()
    mask = both.groupby("item")["bit"].sum().astype(int)
    return framed.loc[mask.index].assign(mask=mask).reset_index(drop=True)


def _check_sets(in_splits: pd.DataFrame) -> None:
    """Check groups and items of equal content."""
    for group, rows in _suspects(in_splits, "group"):
        if rows["frame"].nunique() > 1:
            parts = rows.groupby("mask")["id"].first()
            pair = " and ".join(f"{item} ({_names(int(mask))})" for mask, item in list(parts.items())[:2])
            raise LeakError(f"group {group!r} is in more than one split: {pair}", _RESOLVE)
    for digest, rows in _suspects(in_splits, "sha256"):
        first = rows.groupby("mask")[["id", "volume"]].first()
        if first["volume"].nunique() > 1:
            one, two = (f"{row.id} ({_names(int(row.Index))})" for row in list(first.itertuples())[:2])
            raise LeakError(
                f"{one} and {two} are the same picture ({str(digest)[:12]}) in different splits", _RESOLVE
            )


def _suspects(in_splits: pd.DataFrame, key: str) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Values of a column, with their items, if these are in more than one split."""
    if key not in in_splits:
        return
    distinct = in_splits[[key, "mask"]].drop_duplicates()
    doubtful = distinct[key][distinct[key].duplicated(keep=False) | _several(distinct["mask"])].unique()
    chosen = in_splits[in_splits[key].isin(doubtful)]
    yield from chosen.sort_values("id").groupby(key)


def _nearer(a: pd.DataFrame, b: pd.DataFrame, buffer: int) -> tuple[int, int, int] | None:
    """Positions of the first two rectangles closer than the buffer, and their Chebyshev distance in pixels, or None."""

    def boxes(table: pd.DataFrame, margin: int) -> np.ndarray:
        r, c, h, w = (table[name].to_numpy(float) for name in _BOX)
        return np.asarray(shapely.box(c - margin, r - margin, c + w + margin, r + h + margin))

    def along(start: str, size: str, p: pd.DataFrame, q: pd.DataFrame) -> np.ndarray:
        p0, q0 = p[start].to_numpy(), q[start].to_numpy()
        return np.asarray(np.maximum(p0 - q0 - q[size].to_numpy(), q0 - p0 - p[size].to_numpy()))

    tree = shapely.STRtree(boxes(b, buffer))
    for start in range(0, len(a), _AT_ONCE):
        i, j = tree.query(boxes(a.iloc[start : start + _AT_ONCE], 0))
        i = i + start
        p, q = a.iloc[i], b.iloc[j]
        distance = np.maximum(along("row", "height", p, q), along("col", "width", p, q))
        near = np.flatnonzero(distance < buffer)
        if len(near):
            return int(i[near[0]]), int(j[near[0]]), int(distance[near[0]])
    return None


def _parts(regions: pd.DataFrame, windows: pd.DataFrame, names: Any) -> list[pd.DataFrame]:
    """Distinct rectangles of some items: regions of train, validation and test, and training windows."""
    own_regions = regions[regions["item"].isin(names)]
    own_windows = windows.loc[windows["item"].isin(names), ["item", *_BOX]]
    parts = [*(own_regions[own_regions["split"] == name] for name in SPLITS), own_windows]
    return [part.drop_duplicates(_BOX) for part in parts]


def _label(rectangle: pd.Series) -> str:
    """Name and split of a region or window."""
    if "id" in rectangle:
        return f"{rectangle['id']} ({rectangle['split']})"
    return f"training window {rectangle['row']}, {rectangle['col']} (train)"


# positions in the result of _parts of rectangles that must not overlap
_PAIRS = ((0, 1), (0, 2), (1, 2), (3, 1), (3, 2))


def _check_grids(regions: pd.DataFrame, windows: pd.DataFrame, in_splits: pd.DataFrame, buffer: int) -> None:
    """Check rectangles on one pixel grid."""
    for _, rows in _suspects(in_splits, "frame"):
        parts = _parts(regions, windows, rows["id"])
        for one, two in _PAIRS:
            pair = _nearer(parts[one], parts[two], buffer)
            if pair:
                left, right = parts[one].iloc[pair[0]], parts[two].iloc[pair[1]]
                where = (
                    left["item"] if left["item"] == right["item"] else f"{left['item']} and {right['item']}"
                )
                raise LeakError(
                    f"{_label(left)} and {_label(right)} of {where} are "
                    f"{max(pair[2], 0)} pixels apart, less than the buffer of {buffer}",
                    _REPORT,
                )


def _polygons(part: pd.DataFrame, item: Any, degrees: bool) -> np.ndarray:
    transform = footprints.affine(item["transform"])
    assert transform is not None
    shapes = footprints.rectangles(
        [transform] * len(part), part[_BOX].to_numpy(), points=16 if degrees else 1
    )
    return footprints.to_degrees(shapes, item["crs"]) if degrees else footprints.on_map(shapes, item["crs"])


def _check_map(regions: pd.DataFrame, windows: pd.DataFrame, a: Any, b: Any, buffer: int) -> None:
    """Check regions and windows of two items that overlap on different grids."""
    degrees = a["crs"] != b["crs"]
    parts_a, parts_b = (_parts(regions, windows, [item["id"]]) for item in (a, b))
    sides = []
    for item in (a, b):
        whole = pd.DataFrame([[0, 0, item["height"], item["width"]]], columns=_BOX)
        outline = _polygons(whole, item, degrees)
        sides.append(float(footprints.pixel_sizes(outline, item["height"], item["width"])[0]))
    for one, two in _PAIRS:
        for k, m in ((one, two), (two, one)):
            left, right = parts_a[k], parts_b[m]
            if not len(left) or not len(right):
                continue
            i, j = footprints.too_close(
                _polygons(left, a, degrees), _polygons(right, b, degrees), (sides[0], sides[1]), buffer
            )
            if len(i):
                p, q = left.iloc[i[0]], right.iloc[j[0]]
                raise LeakError(
                    f"{_label(p)} of {a['id']} and {_label(q)} of {b['id']} are the same "
                    f"place on the map, or closer than the buffer of {buffer} pixels",
                    _RESOLVE,
                )


def _check_links(
    regions: pd.DataFrame, windows: pd.DataFrame, in_splits: pd.DataFrame, links: pd.DataFrame, buffer: int
) -> None:
    """Check pairs of linked items, and of items with overlapping footprints."""
    volumes = in_splits.drop_duplicates("volume").set_index("volume", drop=False).rename_axis(None)
    codes, names = pd.factorize(in_splits["volume"])
    reached = np.zeros(len(names), np.int64)
    np.bitwise_or.at(reached, codes, in_splits["mask"].to_numpy())
    mask = pd.Series(reached, index=names)
    columns = ["a", "b", "kind", "detail"]
    pairs = links[columns]
    if {"crs", "transform"} <= set(in_splits):
        overlaps = footprints.same_places(volumes.assign(id=volumes["volume"]).reset_index(drop=True))
        pairs = pd.concat([pairs, overlaps[columns]], ignore_index=True).drop_duplicates(["a", "b", "kind"])
    pairs = pairs[pairs["a"].isin(mask.index) & pairs["b"].isin(mask.index)]
    both = mask.loc[pairs["a"]].to_numpy() | mask.loc[pairs["b"]].to_numpy()
    frames = volumes["frame"]
    apart = frames.loc[pairs["a"]].to_numpy() != frames.loc[pairs["b"]].to_numpy()
    for a, b, kind, detail in pairs[_several(both) & apart].itertuples(index=False):
        first, second = volumes.loc[a], volumes.loc[b]
        placed = all(footprints.is_placed(i.get("crs"), i.get("transform")) for i in (first, second))
        if kind == "same-place" and placed:
            _check_map(regions, windows, first, second, buffer)
        else:
            alike = "if they only look alike, leave near-duplicate out of split.links; otherwise "
            raise LeakError(
                f"{a} ({_names(int(mask[a]))}) and {b} ({_names(int(mask[b]))}) are in different splits, but linked "
                f"({kind}: {detail})",
                f"{alike if kind == 'near-duplicate' else ''}{_RESOLVE}",
            )


def check(
    regions: pd.DataFrame, windows: pd.DataFrame, items: pd.DataFrame, split: Split, links: pd.DataFrame
) -> None:
    """Check that no pixel, group or linked item is in more than one split.

    Args:
        regions: the region table.
        windows: training windows: item, row, col, height, width.
        items: prepared items: id, group, sha256, height, width; optional: crs and transform (JSON or six numbers), and
            volume, the id in the catalogue, if it differs from id.
        split: settings; the buffer is used.
        links: a, b (ids in the catalogue), kind, detail.

    Raises:
        LeakError: names the pair that leaks.
    """
    in_splits = _items_in_splits(regions, windows, items)
    _check_sets(in_splits)
    _check_grids(regions, windows, in_splits, split.buffer)
    _check_links(regions, windows, in_splits, links, split.buffer)
