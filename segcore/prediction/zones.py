"""Zones in which the objects of a scene are counted, from a file of polygons."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.warp import transform

from segcore.data.raster import Info
from segcore.errors import DataError, ParamsError
from segcore.io.crs import same_on_map, short_name
from segcore.objects.canvas import SceneObjects, bands
from segcore.prediction.counts import ALL, Validation, write_table
from segcore.prediction.ground import HECTARE, PixelAreas
from segcore.prediction.writers.geopackage import Layer, add_style, outline_style
from segcore.prediction.writers.placement import Placement, placement

# edges of zones are divided into at least as many parts of the zone's size, before they are converted
_PARTS = 64
# columns of the table that are no fields of the zones
_OWN = ("zone", "class", "objects", "low", "high", "hectares", "per_hectare")
# of a zone that cannot be converted or has no pixel of the scene
_NOWHERE = shapely.Polygon()
_REMEDY = "name a file of polygons, such as a GeoPackage, a shapefile or GeoJSON, or set it to null"


@dataclass(frozen=True)
class Zones:
    """Polygons in which objects are counted.

    Attributes:
        name: of the file.
        crs: coordinate system; None: none.
        shapes: (N,) valid shapely polygons and multipolygons, without heights.
        fields: values (N,) of each field.
        left_out: number of features without an area.
    """

    name: str
    crs: str | None
    shapes: np.ndarray
    fields: dict[str, np.ndarray]
    left_out: int


def read_zones(path: Path) -> Zones:
    """Read the first layer of a file. Invalid polygons are repaired, features without an area are left out.

    Raises:
        ParamsError: the file is missing or unreadable, or has no polygons.
    """
    import pyogrio.raw
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        layer = pyogrio.list_layers(path)[0][0]
        meta, _, blobs, values = pyogrio.raw.read(path, layer=layer, force_2d=True)
    except (DataSourceError, DataLayerError, IndexError, OSError) as error:
        reason = "there is no such file" if not path.exists() else str(error)
        raise ParamsError(
            f"predict.count_by: {path} cannot be read as polygons ({reason})", _REMEDY
        ) from error
    found = shapely.from_wkb(blobs if blobs is not None else [], on_invalid="ignore")
    shapes = np.empty(len(found), object)
    shapes[:] = [_polygonal(shape) for shape in found]
    kept = np.array([shape is not None for shape in shapes], bool)
    if not kept.any():
        raise ParamsError(f"predict.count_by: {path} has no polygons", _REMEDY)
    fields = {
        (f"zone_{name}" if name in _OWN else name): np.asarray(column)[kept]
        for name, column in zip(meta["fields"].tolist(), values, strict=True)
    }
    return Zones(path.name, meta["crs"], shapes[kept], fields, int((~kept).sum()))


def _polygonal(shape: Any) -> Any:
    """The polygons of a geometry as one, valid; None if there are none."""
    if shape is None or shape.is_empty:
        return None
    valid = shape if shape.is_valid else shapely.make_valid(shape)
    parts = [part for part in _parts(valid) if isinstance(part, shapely.Polygon) and part.area > 0]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else shapely.union_all(parts)


def _parts(shape: Any) -> Iterator[Any]:
    if isinstance(shape, shapely.geometry.base.BaseMultipartGeometry):
        for part in shape.geoms:
            yield from _parts(part)
    else:
        yield shape


@dataclass(frozen=True)
class ZoneCounts:
    """Objects of each zone; an object is of all zones that have its pixel nearest to its centroid.

    Attributes:
        counts: (N, K + 1) objects of each class in each zone, and of all classes.
        hectares: (N,) of the pixels with data in each zone; NaN: unknown.
        outside: (K + 1,) objects in no zone.
        is_beyond: (N,) whether a zone has no pixel of the scene.
    """

    counts: np.ndarray
    hectares: np.ndarray
    outside: np.ndarray
    is_beyond: np.ndarray


def count_in(
    zones: Zones,
    objects: SceneObjects,
    info: Info,
    foreground: Sequence[int],
    of_pixels: PixelAreas | None,
    valid: Callable[[slice, slice], np.ndarray],
) -> ZoneCounts:
    """Count the objects of a scene in each zone. A pixel is in a zone if its centre is.

    Args:
        zones: from `read_zones`.
        objects: of the scene.
        info: of the scene.
        foreground: indices of the classes that are counted.
        of_pixels: areas of pixels; None: unknown.
        valid: whether the pixels of rows and columns have data.

    Raises:
        DataError: zones and scene cannot be put into one coordinate system.
    """
    shapes = _in_pixels(zones, placement(info), info)
    of_class = np.stack([*(objects.classes == index for index in foreground), np.ones(len(objects), bool)])
    counts = np.zeros((len(shapes), len(of_class)), np.int64)
    hectares = np.full(len(shapes), np.nan if of_pixels is None else 0.0)
    is_beyond, is_inside = np.ones(len(shapes), bool), np.zeros(len(objects), bool)
    rows, cols = objects.points.T
    for number, shape in enumerate(shapes):
        for top, left, mask in _masks(shape, info):
            is_beyond[number] &= not mask.any()
            bottom, right = top + mask.shape[0], left + mask.shape[1]
            near = np.flatnonzero((rows >= top) & (rows < bottom) & (cols >= left) & (cols < right))
            chosen = near[mask[rows[near] - top, cols[near] - left]]
            is_inside[chosen] = True
            counts[number] += of_class[:, chosen].sum(axis=1)
            if of_pixels is not None:
                found = mask & valid(slice(top, bottom), slice(left, right))
                hectares[number] += of_pixels.total(top, left, found) / HECTARE
    return ZoneCounts(counts, hectares, of_class[:, ~is_inside].sum(axis=1), is_beyond)


def _in_pixels(zones: Zones, place: Placement, info: Info) -> list[Any]:
    """Zones in pixels (column, row) of a scene; those that cannot be converted are empty."""
    shapes = zones.shapes.copy()
    if zones.crs is not None and place.crs is None:
        raise DataError(
            f"the scene has no coordinate system, the zones of {zones.name} have {short_name(zones.crs)}",
            "give the scene its coordinate system, or count without predict.count_by",
        )
    if zones.crs is not None and place.crs is not None and not same_on_map(zones.crs, place.crs):
        sizes = np.ptp(shapely.bounds(shapes).reshape(-1, 2, 2), axis=1).max(axis=1)
        # straight edges are curves in another system
        divided = [shapely.segmentize(s, size / _PARTS) for s, size in zip(shapes, sizes, strict=True)]
        shapes[:] = [_converted(shape, zones.crs, place.crs) for shape in divided]
    moved = [shapely.transform(shape, place.find) for shape in shapes]
    scene = shapely.box(0, 0, info.width, info.height)
    found = [_polygonal(s) if np.isfinite(shapely.get_coordinates(s)).all() else None for s in moved]
    return [shape if shape is not None and shape.intersects(scene) else _NOWHERE for shape in found]


def _converted(shape: Any, source: str, target: str) -> Any:
    def convert(xy: np.ndarray) -> np.ndarray:
        return np.stack(transform(source, target, xy[:, 0], xy[:, 1])[:2], axis=1)

    try:
        converted = shapely.transform(shape, convert)
    except RasterioError:
        return _NOWHERE
    return converted if np.isfinite(shapely.get_coordinates(converted)).all() else _NOWHERE


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

    The last rows of the table are the objects in no zone; their `zone` is empty.

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
    columns = [*names, ALL]
    rows: list[dict[str, Any]] = []
    features: dict[str, list[Any]] = {"hectares": [_known(v) for v in counts.hectares]}
    for place, name in enumerate(columns):
        found = [
            _row(name, int(n), _known(area), validation)
            for n, area in zip(counts.counts[:, place], counts.hectares, strict=True)
        ]
        for field in ("objects", "low", "high", "per_hectare"):
            features[f"{name}_{field}"] = [row[field] for row in found]
        rows += [{"zone": number, **row} for number, row in enumerate(found, start=1)]
    rows.sort(key=lambda row: row["zone"])
    for row in rows:
        row.update({name: column[row["zone"] - 1] for name, column in zones.fields.items()})
    for place, name in enumerate(columns):
        blank = dict.fromkeys(["zone", *zones.fields], "")
        rows.append({**_row(name, int(counts.outside[place]), None, validation), **blank})
    write_table(table, rows, ["zone", *zones.fields, *_OWN[1:]])
    _write_features(package, zones, features)
    return [table.name, package.name]


def _row(name: str, count: int, hectares: float | None, validation: Validation) -> dict[str, Any]:
    low, high = validation.interval(name, count)
    density = count / hectares if hectares else None
    return {
        "class": name,
        "objects": count,
        "low": low,
        "high": high,
        "hectares": hectares,
        "per_hectare": density,
    }


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _write_features(path: Path, zones: Zones, features: dict[str, list[Any]]) -> None:
    taken = {name.lower() for name in features} | {"fid", "geom"}
    fields = {(f"zone_{k}" if k.lower() in taken else k): v for k, v in zones.fields.items()}
    for name, values in features.items():
        # numbers that are unknown are NULL in the file
        fields[name] = np.array([np.nan if v is None else v for v in values], np.float64)
        if name.endswith("_objects"):
            fields[name] = np.array(values, np.int64)
    as_is = Placement(lambda xy: xy, lambda xy: xy, zones.crs, "as in the file of the zones")
    shapes = np.array(
        [s if isinstance(s, shapely.MultiPolygon) else shapely.MultiPolygon([s]) for s in zones.shapes]
    )
    Layer(path, "zones", "MultiPolygon", as_is).write(shapes, fields)
    add_style(path, "zones", outline_style())
