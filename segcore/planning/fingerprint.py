"""The fingerprint of a dataset: what the rules of the plan measure in the catalogue and in the packed items.

The name is that of Isensee et al. 2021, Nature Methods 18:203. It depends on the data alone, so that equal data have
equal plans on every machine.
"""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.ndimage import distance_transform_edt, find_objects, label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from segcore.constants import FIRST_BATCH, IGNORE
from segcore.data.packed import Packed, sample_step
from segcore.data.resolution import pixel_sizes_of
from segcore.params.data import Data

# structures are measured in at most this many planes, spread evenly over the items, and windows of this side
_PLANES = 24
_SIDE = 512
# sizes of pixels are those of at most this many items, spread evenly
_SIZED = 2000
# significant digits
_DIGITS = 4
# structures of fewer pixels are noise of the labels
_SPECK = 4


class Patch(NamedTuple):
    """A window of a plane: labels (h, w) uint8, object numbers (h, w) or None."""

    label: np.ndarray
    numbers: np.ndarray | None


def fingerprint(
    catalogue: pd.DataFrame,
    packed: Path,
    data: Data,
    *,
    later: bool = False,
    links: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Facts of the accepted items.

    Args:
        catalogue: of the ingest, with at least one accepted item.
        packed: folder of the packed items.
        data: settings.
        later: also of batches that were received after the source; without it they count only where the source is
            empty, so that a retraining keeps its plan.
        links: pairs of items that are in one split: a, b; None: there are none.

    Returns:
        items, planes, groups: numbers. independent: number of groups after linked ones are joined. has_splits: whether
        the data set has splits of its own. height, width, depth: [smallest, median, largest] in pixels; depth is the
        number of planes. volumes, positioned: whether all items are volumes, have a position on the earth. bands,
        dtype. pixel_sizes: [smallest, median, largest] of each entry of `segcore.data.resolution.pixel_sizes` that all
        of up to 2,000 items have. pixels: labelled ones. class_shares: of these, by class. values: by class and band,
        the 5 %, 50 % and 95 % quantile. structures: by foreground class, see `_structures`.

    Raises:
        DataError: a packed item is missing or damaged.
    """
    rows = catalogue[catalogue["status"] == "accepted"].sort_values("id", kind="stable")
    first = rows[rows["batch"] == FIRST_BATCH]
    rows = rows if later or first.empty else first
    counts = [json.loads(text) for text in rows["pixels_per_class"]]
    pixels = {name: sum(int(count.get(name, 0)) for count in counts) for name in data.classes}
    total = max(sum(pixels.values()), 1)
    sizes = pd.DataFrame([pixel_sizes_of(row) for row in _chosen(rows, _SIZED).to_dict("records")])
    opened = lru_cache(maxsize=64)(lambda name: Packed(packed / name))
    return {
        "items": len(rows),
        "planes": int(rows["depth"].sum()),
        "groups": int(rows["group"].nunique()),
        "independent": _independent(rows, links),
        "has_splits": bool(rows["split"].notna().any()),
        **{name: _spread(rows[name]) for name in ("height", "width", "depth")},
        "volumes": bool(rows["affine"].map(json.loads).notna().all()),
        "positioned": "m" in sizes and bool(sizes["m"].notna().all()),
        "bands": int(rows["bands"].iloc[0]),
        "dtype": str(rows["dtype"].iloc[0]),
        "pixel_sizes": {str(name): _spread(column) for name, column in sizes.items() if column.notna().all()},
        "pixels": sum(pixels.values()),
        "class_shares": {name: _round(count / total) for name, count in pixels.items()},
        "values": _values(rows, opened, data),
        "structures": _structures(rows, opened, data),
    }


def _independent(rows: pd.DataFrame, links: pd.DataFrame | None) -> int:
    """Number of groups after those with linked items, or items of equal content, are joined."""
    codes, names = pd.factorize(rows["group"])
    of_item = dict(zip(rows["id"], codes, strict=True))
    pairs = [] if links is None else links[["a", "b"]].itertuples(index=False, name=None)
    joined = [(of_item[a], of_item[b]) for a, b in pairs if a in of_item and b in of_item]
    ends = np.array(joined, int).reshape(-1, 2).T
    graph = coo_array((np.ones(ends.shape[1]), (ends[0], ends[1])), shape=(len(names), len(names)))
    return int(connected_components(graph, directed=False)[0])


def _round(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _spread(values: "pd.Series[Any]") -> list[float]:
    """[smallest, median, largest]."""
    return [_round(float(f(values.to_numpy(float)))) for f in (np.min, np.median, np.max)]


def _chosen(rows: pd.DataFrame, most: int = _PLANES) -> pd.DataFrame:
    """At most `most` items, spread evenly in the order of their ids."""
    return rows.iloc[:: -(-len(rows) // most)]


def _values(rows: pd.DataFrame, opened: Any, data: Data) -> dict[str, list[list[float]]]:
    """By class and band: the 5 %, 50 % and 95 % quantile of the even samples of pixels."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in data.classes}
    for row in _chosen(rows).itertuples():
        file = opened(row.packed)
        step = sample_step(int(row.height), int(row.width))
        for plane in range(0, int(row.depth), -(-int(row.depth) // 8)):
            values = file.array("sample")[plane]
            valid = file.array("sample_valid")[plane] > 0
            classes = file.thinned("labels", (plane,), step)
            for index, name in enumerate(data.classes):
                found[name].append(values[valid & (classes == index)].astype(np.float64))
    quantiles = {
        name: np.quantile(np.concatenate(parts), (0.05, 0.5, 0.95), axis=0).T
        for name, parts in found.items()
        if sum(map(len, parts))
    }
    return {name: [[_round(v) for v in band] for band in bands] for name, bands in quantiles.items()}


def _patches(rows: pd.DataFrame, opened: Any, foreground: list[int], numbered: bool) -> Iterator[Patch]:
    """Windows of evenly chosen items; of a volume, the plane in the middle of those with foreground."""
    for row in _chosen(rows).itertuples():
        file = opened(row.packed)
        plane = _middle_plane(file, foreground) if row.depth > 1 else 0
        height, width = int(row.height), int(row.width)
        for top in _starts(height):
            for left in _starts(width):
                window = (top, left, min(_SIDE, height), min(_SIDE, width))
                labels = file.window("labels", (plane,), window)
                numbers = file.window("instances", (plane,), window) if numbered else None
                yield Patch(labels, numbers)


def _middle_plane(file: Packed, foreground: list[int]) -> int:
    found = [np.isin(plane, foreground).any() for plane in file.array("labels")]
    planes = np.flatnonzero(found)
    return int(planes[len(planes) // 2]) if len(planes) else 0


def _starts(length: int) -> list[int]:
    """First pixels of one window, or of two at a quarter and three quarters of a long side."""
    if length <= _SIDE:
        return [0]
    return sorted({max(0, min(length - _SIDE, round(length * part) - _SIDE // 2)) for part in (0.25, 0.75)})


def _structures(rows: pd.DataFrame, opened: Any, data: Data) -> dict[str, dict[str, float]]:
    """Structures of each foreground class that occurs, in pixels.

    `width`: four times the mean distance of a pixel to the structure's edge: the width of a strip, or two thirds of the
    diameter of a disc. `side`: the median of the longer sides of objects or, without object numbers, of
    4-connected components, weighted by area, so that specks count for little. `count`: structures measured.
    """
    numbered = data.has_objects and bool(rows["objects"].notna().all())
    distances: dict[int, list[np.ndarray]] = {index: [] for index in data.foreground}
    sides: dict[int, list[tuple[int, int]]] = {index: [] for index in data.foreground}
    for patch in _patches(rows, opened, data.foreground, numbered):
        for index in data.foreground:
            mask = patch.label == index
            if not mask.any():
                continue
            # ignored pixels are no edge
            distances[index].append(_distances(mask, patch.label))
            numbers = patch.numbers * mask if patch.numbers is not None else label(mask)[0]
            sides[index] += _sides(numbers)
    return {
        data.classes[index]: {
            "width": _round(4 * (float(np.concatenate(distances[index]).mean()) - 0.5)),
            "side": _weighted_median(sides[index]),
            "count": len(sides[index]),
        }
        for index in data.foreground
        if sides[index]
    }


def _distances(mask: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Distance of each pixel of the mask to the nearest one of another class; half the window without one."""
    inside = mask | (labels == IGNORE)
    if inside.all():
        return np.full(int(mask.sum()), max(mask.shape) / 2)
    distances: np.ndarray = np.asarray(distance_transform_edt(inside))[mask]
    return distances


def _sides(numbers: np.ndarray) -> list[tuple[int, int]]:
    """(longer side of the box, area) of each structure of at least `_SPECK` pixels, in pixels."""
    # 0, no structure, need not occur
    _, places = np.unique(np.append(0, numbers.ravel()), return_inverse=True)
    numbers = places[1:].reshape(numbers.shape)
    areas = np.bincount(numbers.ravel())
    boxes = find_objects(numbers)
    return [
        (max(part.stop - part.start for part in box), int(area))
        for box, area in zip(boxes, areas[1:], strict=True)
        if box is not None and area >= _SPECK
    ]


def _weighted_median(sides: list[tuple[int, int]]) -> float:
    values = np.array(sorted(sides), float)
    total = np.cumsum(values[:, 1])
    return float(values[np.searchsorted(total, total[-1] / 2), 0])


def foreground_share(facts: Mapping[str, Any], data: Data) -> float:
    """Fraction of the labelled pixels that are of a foreground class."""
    return float(sum(facts["class_shares"][data.classes[index]] for index in data.foreground))
