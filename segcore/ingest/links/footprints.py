"""Footprints on the map: items on one grid, items of the same place, and all links between items."""

import json
from collections import defaultdict
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import shapely

from segcore.data.longitudes import in_degrees, within_turn
from segcore.ingest.links.near_duplicates import near_duplicates

# segments per edge before reprojection, because straight edges become curves
_EDGE_POINTS = 16
_COLUMNS = ["a", "b", "kind", "detail"]


# Each transform is needed about six times.
@lru_cache(maxsize=100_000)
def _parsed(text: str) -> Any:
    return json.loads(text)


def affine(value: Any) -> tuple[float, ...] | None:
    """Six numbers from JSON text or a sequence; None if there are none."""
    numbers = _parsed(value) if isinstance(value, str) else value
    return tuple(float(n) for n in numbers) if isinstance(numbers, (list, tuple, np.ndarray)) else None


def _column(table: pd.DataFrame, name: str) -> list[Any]:
    return list(table[name]) if name in table else [None] * len(table)


def is_placed(crs: Any, transform: Any) -> bool:
    """Whether an item is georeferenced: it has a CRS and an affine transform."""
    return isinstance(crs, str) and crs != "" and affine(transform) is not None


def frames(items: pd.DataFrame) -> list[str]:
    """Name of the pixel grid of each row: on one grid, equal rows and columns are the same place.

    Planes of one volume share a grid, and so do items of equal CRS, transform and size (other dates of a place) and
    items of equal content. A grid is named by the smallest catalogue id on it.

    Args:
        items: id (or `volume`, the id in the catalogue), height, width; optional crs, transform, sha256.
    """
    names = list(items["volume"]) if "volume" in items else list(items["id"])
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    first: dict[tuple[Any, ...], str] = {}
    columns = (_column(items, c) for c in ("crs", "transform", "sha256"))
    for name, height, width, crs, transform, digest in zip(
        names, items["height"], items["width"], *columns, strict=True
    ):
        keys: list[tuple[Any, ...]] = []
        numbers = affine(transform)
        if numbers is not None and is_placed(crs, transform):
            pixel = max(abs(numbers[0]), abs(numbers[1]), 1e-12)
            # Grids that are a turn apart are at one place.
            if in_degrees(crs):
                numbers = (*numbers[:2], within_turn(numbers[2]), *numbers[3:])
            # to a thousandth of a pixel
            rounded = tuple(round(n / pixel * 1000) for n in numbers)
            keys.append(("grid", crs, height, width, f"{pixel:.9g}", rounded))
        if isinstance(digest, str) and digest:
            keys.append(("content", digest, height, width))
        for key in keys:
            a, b = sorted((root(name), root(first.setdefault(key, name))))
            parent[b] = a
    return [root(name) for name in names]


def rectangles(
    transforms: list[tuple[float, ...]], boxes: np.ndarray, points: int = 1, margin: float = 0.0
) -> np.ndarray:
    """Polygons in map coordinates of rectangles in pixels.

    Args:
        transforms: n affine transforms (a, b, c, d, e, f): x = a col + b row + c, y = d col + e row + f.
        boxes: (n, 4) row, col, height, width.
        points: segments per edge.
        margin: pixels added on every side.

    Returns:
        (n,) shapely polygons.
    """
    t = np.array(transforms, np.float64).reshape(-1, 6)
    box = np.asarray(boxes, np.float64).reshape(-1, 4)
    steps = np.arange(points) / points
    zero, one = np.zeros(points), np.ones(points)
    along_col = np.concatenate([steps, one, 1 - steps, zero])
    along_row = np.concatenate([zero, steps, one, 1 - steps])
    row = box[:, :1] - margin + along_row * (box[:, 2:3] + 2 * margin)
    col = box[:, 1:2] - margin + along_col * (box[:, 3:4] + 2 * margin)
    x = t[:, 0:1] * col + t[:, 1:2] * row + t[:, 2:3]
    y = t[:, 3:4] * col + t[:, 4:5] * row + t[:, 5:6]
    return np.asarray(shapely.polygons(np.stack([x, y], axis=-1)))


def on_map(polygons: np.ndarray, crs: str) -> np.ndarray:
    """Polygons in map coordinates; in degrees, parts past the antimeridian are where others have them."""
    return _in_one_turn(polygons) if in_degrees(crs) else polygons


def _in_one_turn(polygons: np.ndarray) -> np.ndarray:
    """Polygons in degrees, with longitudes from -180 to 180."""
    bounds = shapely.bounds(polygons).reshape(-1, 4)
    placed = polygons.copy()
    turn = shapely.box(-180, -90, 180, 90)
    for i in np.flatnonzero((bounds[:, 0] < -180) | (bounds[:, 2] > 180)):
        turns = range(
            int(np.floor((bounds[i, 0] + 180) / 360)), int(np.floor((bounds[i, 2] + 180) / 360)) + 1
        )
        parts = [shapely.transform(polygons[i], lambda xy, k=k: xy - [360 * k, 0]) for k in turns]
        placed[i] = shapely.union_all(shapely.intersection(parts, turn))
    return placed


def _unwrapped(longitudes: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Longitudes of rings without jumps at the antimeridian.

    Args:
        longitudes: (n,) in degrees.
        polygon: (n,) number of the ring that each belongs to.
    """
    steps = np.diff(longitudes, prepend=longitudes[:1])
    steps[np.diff(polygon, prepend=polygon[:1]) != 0] = 0
    turns = np.cumsum(np.where(np.isfinite(steps), np.round(steps / 360), 0))
    starts = np.searchsorted(polygon, polygon)
    return np.asarray(longitudes - 360 * (turns - turns[starts]))


def to_degrees(polygons: np.ndarray, crs: str) -> np.ndarray:
    """Polygons (rings without holes) in EPSG:4326, with longitudes from -180 to 180.

    None for those that cannot be reprojected or are around a pole.
    """
    from rasterio.errors import CRSError
    from rasterio.warp import transform

    xy, polygon = shapely.get_coordinates(polygons, return_index=True)
    try:
        lon, lat = transform(crs, "EPSG:4326", xy[:, 0], xy[:, 1])
    except CRSError:
        # A local coordinate system has no relation to others.
        return np.full(len(polygons), None, dtype=object)
    first = np.searchsorted(polygon, np.arange(len(polygons)))
    last = np.searchsorted(polygon, np.arange(len(polygons)), side="right") - 1
    with np.errstate(invalid="ignore"):
        lon = _unwrapped(np.asarray(lon), polygon)
        is_closed = np.abs(lon[last] - lon[first]) < 180
    # An open ring would be an error here; its polygon is left out below.
    lon[last] = lon[first]
    projected = shapely.set_coordinates(polygons.copy(), np.stack([lon, lat], axis=-1))
    sound = is_closed & np.isfinite(shapely.area(projected)) & shapely.is_valid(projected)
    projected[~sound] = None
    return _in_one_turn(projected)


def pixel_sizes(polygons: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Side of a square with the area of one pixel, in the polygons' units."""
    areas = shapely.area(polygons) / (np.asarray(heights, float) * np.asarray(widths, float))
    return np.asarray(np.sqrt(areas))


def _overlapping(
    polygons: np.ndarray, pixels: np.ndarray, system: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index pairs i < j that overlap by more than a strip one pixel wide, and the overlap / the smaller area.

    With `system` (one value per polygon), only pairs of different systems.
    """
    i, j = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    wanted = i < j if system is None else (i < j) & (system[i] != system[j])
    i, j = i[wanted], j[wanted]
    common = shapely.intersection(polygons[i], polygons[j])
    core = shapely.buffer(common, -np.maximum(pixels[i], pixels[j]) / 2, join_style="mitre")
    keep = ~shapely.is_empty(core)
    smaller = np.minimum(shapely.area(polygons[i]), shapely.area(polygons[j]))
    return i[keep], j[keep], (shapely.area(common) / smaller)[keep]


def too_close(
    a: np.ndarray, b: np.ndarray, pixels: tuple[float, float], buffer: int
) -> tuple[np.ndarray, np.ndarray]:
    """Index pairs of polygons of `a` and `b` that are closer than the buffer.

    Args:
        a: (n,) shapely polygons.
        b: (m,) shapely polygons.
        pixels: side of a pixel of `a` and of `b` in the polygons' units; the larger one is used.
        buffer: distance in pixels; with 0, pairs that overlap by more than a strip one pixel wide.
    """
    side, tree = max(pixels), shapely.STRtree(b)
    if buffer > 0:
        i, j = tree.query(a, predicate="dwithin", distance=buffer * side * (1 - 1e-6))
        return i, j
    i, j = tree.query(a, predicate="intersects")
    core = shapely.buffer(shapely.intersection(a[i], b[j]), -side / 2, join_style="mitre")
    return i[~shapely.is_empty(core)], j[~shapely.is_empty(core)]


def same_places(table: pd.DataFrame) -> pd.DataFrame:
    """Pairs of items whose footprints overlap by more than a strip one pixel wide.

    Footprints in one coordinate system are compared in it, others in EPSG:4326 with subdivided edges; in degrees, equal
    places are found whatever turn their longitudes count in. Items without CRS or transform are left out, and so are,
    between coordinate systems, items that cannot be reprojected or are around a pole.

    Args:
        table: catalogue rows with id, crs, transform, height, width.

    Returns:
        a, b (ids, a < b), kind "same-place", detail (fraction of the smaller footprint); sorted, each pair once.
    """
    table = table.sort_values("id", ignore_index=True)
    transforms = [affine(t) for t in _column(table, "transform")]
    by_crs: dict[str, list[int]] = defaultdict(list)
    for index, crs in enumerate(_column(table, "crs")):
        if is_placed(crs, transforms[index]):
            by_crs[crs].append(index)
    height, width = table["height"].to_numpy(float), table["width"].to_numpy(float)
    overlaps: dict[tuple[int, int], float] = {}

    def compare(members: np.ndarray, polygons: np.ndarray, other: np.ndarray | None = None) -> None:
        pixels = pixel_sizes(polygons, height[members], width[members])
        for i, j, share in zip(*_overlapping(polygons, pixels, other), strict=True):
            a, b = sorted((int(members[i]), int(members[j])))
            overlaps[a, b] = float(share)

    degrees: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for number, (crs, indices) in enumerate(sorted(by_crs.items())):
        members = np.array(indices)
        size = np.stack([height[members], width[members]], axis=1)
        boxes = np.hstack([np.zeros_like(size), size])
        given = [t for t in (transforms[i] for i in indices) if t is not None]
        compare(members, on_map(rectangles(given, boxes), crs))
        if len(by_crs) > 1:
            projected = to_degrees(rectangles(given, boxes, points=_EDGE_POINTS), crs)
            sound = ~shapely.is_missing(projected)
            degrees.append((members[sound], projected[sound], np.full(sound.sum(), number)))
    if degrees:
        compare(*map(np.concatenate, zip(*degrees, strict=True)))
    ids = table["id"].to_numpy()
    rows = [
        (ids[a], ids[b], "same-place", f"{share:.1%} of the smaller footprint is common")
        for (a, b), share in sorted(overlaps.items())
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def links(table: pd.DataFrame) -> pd.DataFrame:
    """All pairs of items that must be in one split: equal content, near duplicates, overlapping footprints.

    Args:
        table: catalogue rows with id, sha256, phash, thumb, crs, transform, height, width.

    Returns:
        a, b (ids, a < b), kind, detail; each pair once, by its strongest kind, sorted; with the attribute of
        `near_duplicates`.
    """
    alike = near_duplicates(table)
    both = pd.concat([alike, same_places(table)], ignore_index=True)
    strength = both["kind"].map({"duplicate": 0, "near-duplicate": 1, "same-place": 2})
    both = both.assign(strength=strength).sort_values(["a", "b", "strength"])
    linked = both.drop_duplicates(["a", "b"])[_COLUMNS].reset_index(drop=True)
    linked.attrs |= alike.attrs
    return linked
