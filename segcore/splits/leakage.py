"""The check that nothing of one split reaches another, made on what was prepared, and independent of what decided it.

Items whose pixels lie on one grid (planes of a volume, other dates of a scene, equal content) are compared in pixels;
items that overlap on different grids, on the map; whatever else is linked or of one group must be in one split.
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
_AT_ONCE = 8_000  # windows compared at a time; a box of each takes some 400 bytes
_BOX = ["row", "col", "height", "width"]
_AGAIN = "remove one of the two, give both the same data.group, or delete their rows of splits/<name>.csv"


def _several(mask: Any) -> Any:
    """Whether a mask of splits holds more than one."""
    return (mask & (mask - 1)) != 0


def _names(mask: int) -> str:
    return ", ".join(name for name, bit in _BIT.items() if mask & bit)


def _held(regions: pd.DataFrame, windows: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Items with regions: volume, group, frame, sha256, crs, transform, size and the splits they reach as a mask.

    Raises:
        LeakError: a region or window of an unknown item, a region named twice, a window of an item without regions.
    """
    wrong = "prepare the data anew; report it if it persists: the split is wrong"
    known = items.assign(frame=footprints.frames(items)).set_index("id", drop=False)
    if "volume" not in known:
        known["volume"] = known["id"]
    for what, table in (("region", regions), ("training window", windows)):
        unknown = ~table["item"].isin(known.index)
        if unknown.any():
            raise LeakError(f"a {what} is of {table['item'][unknown].iloc[0]}, which is no item", wrong)
    if regions["id"].duplicated().any():
        raise LeakError(f"region {regions['id'][regions['id'].duplicated()].iloc[0]} is there twice", wrong)
    bits = regions["split"].map(_BIT)
    if bits.isna().any():
        raise LeakError(f"region {regions['id'][bits.isna()].iloc[0]} is in no known split", wrong)
    reached = [
        regions.assign(bit=bits)[["item", "bit"]],
        windows[["item"]].drop_duplicates().assign(bit=_BIT["train"]),
    ]
    both = pd.concat(reached, ignore_index=True).drop_duplicates()
    mask = both.groupby("item")["bit"].sum().astype(int)
    return known.loc[mask.index].assign(mask=mask).reset_index(drop=True)


def _check_sets(held: pd.DataFrame) -> None:
    """Groups and equal contents."""
    for group, rows in _suspects(held, "group"):
        if rows["frame"].nunique() > 1:
            parts = rows.groupby("mask")["id"].first()
            pair = " and ".join(f"{item} ({_names(int(mask))})" for mask, item in list(parts.items())[:2])
            raise LeakError(f"group {group!r} is in more than one split: {pair}", _AGAIN)
    for digest, rows in _suspects(held, "sha256"):
        first = rows.groupby("mask")[["id", "volume"]].first()
        if first["volume"].nunique() > 1:
            one, two = (f"{row.id} ({_names(int(row.Index))})" for row in list(first.itertuples())[:2])
            raise LeakError(
                f"{one} and {two} are the same picture ({str(digest)[:12]}) in different splits", _AGAIN
            )


def _suspects(held: pd.DataFrame, key: str) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Members of one key, where they reach more than one split."""
    if key not in held:
        return
    distinct = held[[key, "mask"]].drop_duplicates()
    doubtful = distinct[key][distinct[key].duplicated(keep=False) | _several(distinct["mask"])].unique()
    chosen = held[held[key].isin(doubtful)]
    yield from chosen.sort_values("id").groupby(key)


def _nearer(a: pd.DataFrame, b: pd.DataFrame, buffer: int) -> tuple[int, int, int] | None:
    """Positions of the first rectangles nearer than the buffer, and their Chebyshev distance in pixels, or None."""

    def boxes(table: pd.DataFrame, margin: int) -> np.ndarray:
        r, c, h, w = (table[name].to_numpy(float) for name in _BOX)
        return np.asarray(shapely.box(c - margin, r - margin, c + w + margin, r + h + margin))

    def along(start: str, size: str, p: pd.DataFrame, q: pd.DataFrame) -> np.ndarray:
        p0, q0 = p[start].to_numpy(), q[start].to_numpy()
        return np.maximum(p0 - q0 - q[size].to_numpy(), q0 - p0 - p[size].to_numpy())

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
    """Rectangles of some items by split: train, validation, test, and training windows, without repetition."""
    here = regions[regions["item"].isin(names)]
    cut = windows.loc[windows["item"].isin(names), ["item", *_BOX]]
    parts = [*(here[here["split"] == name] for name in SPLITS), cut]
    return [part.drop_duplicates(_BOX) for part in parts]


def _called(rectangle: pd.Series) -> str:
    """Name and split of a region or window."""
    if "id" in rectangle:
        return f"{rectangle['id']} ({rectangle['split']})"
    return f"training window {rectangle['row']}, {rectangle['col']} (train)"


_PAIRS = ((0, 1), (0, 2), (1, 2), (3, 1), (3, 2))  # of _parts: what must not meet


def _check_grids(regions: pd.DataFrame, windows: pd.DataFrame, held: pd.DataFrame, buffer: int) -> None:
    for _, rows in _suspects(held, "frame"):
        parts = _parts(regions, windows, rows["id"])
        for one, two in _PAIRS:
            found = _nearer(parts[one], parts[two], buffer)
            if found:
                left, right = parts[one].iloc[found[0]], parts[two].iloc[found[1]]
                where = (
                    left["item"] if left["item"] == right["item"] else f"{left['item']} and {right['item']}"
                )
                raise LeakError(
                    f"{_called(left)} and {_called(right)} of {where} are "
                    f"{max(found[2], 0)} pixels apart, less than the buffer of {buffer}",
                    "prepare the data anew; report it if it persists: the split is wrong",
                )


def _polygons(part: pd.DataFrame, item: Any, degrees: bool) -> np.ndarray:
    transform = footprints.affine(item["transform"])
    assert transform is not None
    shapes = footprints.rectangles(
        [transform] * len(part), part[_BOX].to_numpy(), points=16 if degrees else 1
    )
    return footprints.to_degrees(shapes, item["crs"]) if degrees else shapes


def _check_map(regions: pd.DataFrame, windows: pd.DataFrame, a: Any, b: Any, buffer: int) -> None:
    """Regions and windows of two items that overlap on different grids."""
    degrees = a["crs"] != b["crs"]
    mine, theirs = (_parts(regions, windows, [item["id"]]) for item in (a, b))
    sides = []
    for item in (a, b):
        whole = pd.DataFrame([[0, 0, item["height"], item["width"]]], columns=_BOX)
        outline = _polygons(whole, item, degrees)
        sides.append(float(footprints.pixel_sizes(outline, item["height"], item["width"])[0]))
    for one, two in _PAIRS:
        for k, m in ((one, two), (two, one)):
            left, right = mine[k], theirs[m]
            if not len(left) or not len(right):
                continue
            i, j = footprints.too_close(
                _polygons(left, a, degrees), _polygons(right, b, degrees), (sides[0], sides[1]), buffer
            )
            if len(i):
                p, q = left.iloc[i[0]], right.iloc[j[0]]
                raise LeakError(
                    f"{_called(p)} of {a['id']} and {_called(q)} of {b['id']} are the same "
                    f"place on the map, or nearer than the buffer of {buffer} pixels",
                    _AGAIN,
                )


def _check_links(
    regions: pd.DataFrame, windows: pd.DataFrame, held: pd.DataFrame, links: pd.DataFrame, buffer: int
) -> None:
    volumes = held.drop_duplicates("volume").set_index("volume", drop=False).rename_axis(None)
    codes, names = pd.factorize(held["volume"])
    reached = np.zeros(len(names), np.int64)
    np.bitwise_or.at(reached, codes, held["mask"].to_numpy())
    mask = pd.Series(reached, index=names)
    columns = ["a", "b", "kind", "detail"]
    pairs = links[columns]
    if {"crs", "transform"} <= set(held):
        again = footprints.same_places(volumes.assign(id=volumes["volume"]).reset_index(drop=True))
        pairs = pd.concat([pairs, again[columns]], ignore_index=True).drop_duplicates(["a", "b", "kind"])
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
            raise LeakError(
                f"{a} ({_names(int(mask[a]))}) and {b} ({_names(int(mask[b]))}) are in different splits, but linked "
                f"({kind}: {detail})",
                _AGAIN,
            )


def check(
    regions: pd.DataFrame, windows: pd.DataFrame, items: pd.DataFrame, split: Split, links: pd.DataFrame
) -> None:
    """Fail closed if anything of one split reaches another.

    Args:
        regions: the region table.
        windows: training windows: item, row, col, height, width.
        items: prepared items: id, group, sha256, height, width; crs and transform (JSON or six numbers) where they
            have them; volume, the id in the catalogue, where it differs from id.
        links: a, b (ids in the catalogue), kind, detail.

    Raises:
        LeakError: names the pair that leaks.
    """
    held = _held(regions, windows, items)
    _check_sets(held)
    _check_grids(regions, windows, held, split.buffer)
    _check_links(regions, windows, held, links, split.buffer)
