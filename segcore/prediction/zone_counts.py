"""Objects of a scene in zones: counts, areas, and their files."""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import rasterio
import shapely
from rasterio.features import rasterize

from segcore.data.raster import Info
from segcore.io.polygon_files import as_file
from segcore.objects.canvas import SceneObjects, bands
from segcore.prediction.counts import ALL, Validation, write_table
from segcore.prediction.ground import HECTARE, PixelAreas
from segcore.prediction.writers.geopackage import add_style, as_oserror
from segcore.prediction.writers.styles import outline_style
from segcore.prediction.zones import Zones

# columns of the table that are no fields of the zones
_OWN = (
    "zone",
    "class",
    "objects",
    "estimate",
    "low",
    "high",
    "hectares",
    "per_hectare",
    "area_px",
    "area_m2",
)
# fields of a feature for each class, after its name, and for all classes together
_PER_CLASS = {
    "objects": pa.int64(),
    "estimate": pa.int64(),
    "low": pa.int64(),
    "high": pa.int64(),
    "per_hectare": pa.float64(),
}
_LAYER, _GEOMETRY = "zones", "geom"
# `zone` of objects in none
_NO_ZONE = "no zone"


@dataclass(frozen=True)
class ZoneCounts:
    """Objects of each zone; an object is of all zones that have its pixel nearest to its centroid.

    Rows are the zones and, as the last one, no zone; columns are the classes that are counted and all classes together.

    Attributes:
        counts: (N + 1, K + 1) objects.
        pixels: (N + 1, K + 1) pixels of these objects.
        square_metres: (N + 1, K + 1) of these objects; None: unknown.
        hectares: (N,) of the pixels with data in each zone; NaN: unknown.
        is_beyond: (N,) whether a zone has no pixel of the scene.
        is_covered: whether each pixel with data is in a zone.
    """

    counts: np.ndarray
    pixels: np.ndarray
    square_metres: np.ndarray | None
    hectares: np.ndarray
    is_beyond: np.ndarray
    is_covered: bool


def count_in(
    shapes: Sequence[Any],
    objects: SceneObjects,
    areas: np.ndarray | None,
    info: Info,
    foreground: Sequence[int],
    of_pixels: PixelAreas | None,
    valid: Callable[[slice, slice], np.ndarray],
) -> ZoneCounts:
    """Count the objects of a scene in each zone. A pixel is in a zone if its centre is.

    Args:
        shapes: zones in pixels, from `in_pixels`.
        objects: of the scene.
        areas: (N,) square metres of each object; None: unknown.
        info: of the scene.
        foreground: indices of the classes that are counted.
        of_pixels: areas of pixels; None: unknown.
        valid: whether the pixels of rows and columns have data.
    """
    of_class = np.stack([*(objects.classes == index for index in foreground), np.ones(len(objects), bool)])
    facts = [np.ones(len(objects), np.int64), objects.areas, *([] if areas is None else [areas])]
    sums = [np.zeros((len(shapes) + 1, len(of_class)), values.dtype) for values in facts]
    hectares = np.full(len(shapes), np.nan if of_pixels is None else 0.0)
    is_beyond, is_outside = np.ones(len(shapes), bool), np.ones(len(objects), bool)
    rows, cols = objects.points.T
    for number, shape in enumerate(shapes):
        for top, left, mask in _masks(shape, info):
            is_beyond[number] &= not mask.any()
            bottom, right = top + mask.shape[0], left + mask.shape[1]
            near = np.flatnonzero((rows >= top) & (rows < bottom) & (cols >= left) & (cols < right))
            chosen = near[mask[rows[near] - top, cols[near] - left]]
            is_outside[chosen] = False
            for total, values in zip(sums, facts, strict=True):
                total[number] += of_class[:, chosen] @ values[chosen]
            if of_pixels is not None:
                found = mask & valid(slice(top, bottom), slice(left, right))
                hectares[number] += of_pixels.total(top, left, found) / HECTARE
    for total, values in zip(sums, facts, strict=True):
        total[-1] = of_class[:, is_outside] @ values[is_outside]
    is_covered = not is_outside.any() and _covers(shapes, info, valid)
    return ZoneCounts(
        sums[0], sums[1], sums[2] if areas is not None else None, hectares, is_beyond, is_covered
    )


def _covers(shapes: Sequence[Any], info: Info, valid: Callable[[slice, slice], np.ndarray]) -> bool:
    """Whether each pixel with data is in one of the shapes."""
    whole = slice(0, info.width)
    there = [shape for shape in shapes if not shape.is_empty]
    for rows in bands((info.height, info.width)) if there else ():
        place = rasterio.Affine.translation(0, rows.start)
        size = rows.stop - rows.start, info.width
        inside = rasterize(there, size, transform=place, dtype="uint8") > 0
        if (valid(rows, whole) & ~inside).any():
            return False
    return bool(there)


def _masks(shape: Any, info: Info) -> Iterator[tuple[int, int, np.ndarray]]:
    """First row, first column and mask of the pixels of a shape within the scene, in parts of limited size."""
    if shape.is_empty:
        return
    low = np.floor(shape.bounds[:2]).astype(int)
    high = np.ceil(shape.bounds[2:]).astype(int)
    left, top = np.maximum(low, 0)
    right, bottom = np.minimum(high, (info.width, info.height))
    if right <= left or bottom <= top:
        return
    for rows in bands((bottom - top, right - left)):
        place = rasterio.Affine.translation(left, top + rows.start)
        size = rows.stop - rows.start, right - left
        yield top + rows.start, left, rasterize([shape], size, transform=place, dtype="uint8") > 0


def write_zones(
    stem: Path, zones: Zones, counts: ZoneCounts, validation: Validation, names: Sequence[str]
) -> list[str]:
    """Write counts per zone as STEM_zones.csv, a row per zone and class, and STEM_zones.gpkg, a feature per zone.

    The last rows of the table are the objects in no zone.

    Args:
        stem: folder and first part of the files' names.
        zones: from `read_zones`.
        counts: from `count_in`.
        validation: of the model.
        names: of the classes that are counted.

    Returns:
        Names of the files.

    Raises:
        OSError: the disk is full or not writable.
    """
    table, package = (stem.with_name(f"{stem.name}_zones{ending}") for ending in (".csv", ".gpkg"))
    prefixes = [*(f"{name}_" for name in free_names(names, (), "class_")), ""]
    own = [prefix + field for prefix in prefixes for field in _PER_CLASS]
    kept = free_names(list(zones.fields), [*_OWN, *own, "fid", _GEOMETRY], "zone_")
    fields = dict(zip(kept, zones.fields.values(), strict=True))
    rows = list(_rows(counts, validation, [*names, ALL]))
    texts = {name: [*map(_text, column.to_pylist()), ""] for name, column in fields.items()}
    for place, row in enumerate(rows):
        row |= {name: values[place // len(prefixes)] for name, values in texts.items()}
    write_table(table, rows, ["zone", *fields, *_OWN[1:]])
    of_zones = rows[: -len(prefixes)]
    hectares = pa.array([row["hectares"] for row in of_zones[:: len(prefixes)]], pa.float64())
    columns: dict[str, pa.Array] = {**fields, "hectares": hectares}
    for place, prefix in enumerate(prefixes):
        of_class = of_zones[place :: len(prefixes)]
        columns |= {
            prefix + field: pa.array([row[field] for row in of_class], kind)
            for field, kind in _PER_CLASS.items()
        }
    _write_features(package, zones, columns)
    return [table.name, package.name]


def _rows(counts: ZoneCounts, validation: Validation, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    for number, of_zone in enumerate(counts.counts):
        is_zone = number < len(counts.hectares)
        known = is_zone and not np.isnan(counts.hectares[number])
        hectares = float(counts.hectares[number]) if known else None
        is_empty = counts.is_beyond[number] if is_zone else counts.is_covered
        for place, name in enumerate(names):
            count, metres = int(of_zone[place]), counts.square_metres
            yield {
                "zone": number + 1 if is_zone else _NO_ZONE,
                "class": name,
                "objects": count,
                **validation.facts(name, count, 0 if is_empty else hectares),
                "hectares": hectares,
                "per_hectare": count / hectares if hectares else None,
                "area_px": int(counts.pixels[number, place]),
                "area_m2": None if metres is None else float(metres[number, place]),
            }


def free_names(names: Sequence[str], taken: Sequence[str], prefix: str) -> list[str]:
    """The names, with a prefix before those that are taken or repeated, small and capital letters being the same."""
    used, free = {name.lower() for name in taken}, dict[int, str]()
    # a changed name is none that another one keeps
    for place, name in enumerate(names):
        if name.lower() not in used:
            free[place] = name
            used.add(name.lower())
    for place, name in enumerate(names):
        if place not in free:
            changed = f"{prefix}{name}"
            while changed.lower() in used:
                changed = f"{prefix}{changed}"
            free[place] = changed
            used.add(changed.lower())
    return [free[place] for place in range(len(names))]


def _text(value: Any) -> str:
    """A value of a field as in a table; numbers have all their digits."""
    if value is None:
        return ""
    if isinstance(value, list):
        return json.dumps(value, default=str)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _write_features(path: Path, zones: Zones, columns: Mapping[str, Any]) -> None:
    import pyogrio.raw
    from pyogrio.errors import DataSourceError

    shapes = [s if isinstance(s, shapely.MultiPolygon) else shapely.MultiPolygon([s]) for s in zones.shapes]
    table = pa.table({**columns, _GEOMETRY: pa.array(shapely.to_wkb(shapes), pa.binary())})
    with warnings.catch_warnings(), as_oserror(DataSourceError), as_file(path) as target:
        warnings.filterwarnings("ignore", "'crs' was not provided")
        pyogrio.raw.write_arrow(
            table,
            target,
            layer=_LAYER,
            driver="GPKG",
            geometry_name=_GEOMETRY,
            geometry_type="MultiPolygon",
            crs=zones.crs,
            layer_metadata={"coordinates": "as in the file of the zones"},
        )
    add_style(path, _LAYER, outline_style())
