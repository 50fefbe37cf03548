"""Reads layers of polygons from files, through GDAL."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from shapely.errors import ShapelyError

from segcore.errors import DataError
from segcore.io.annotations._placement import Box, jumps
from segcore.io.annotations._shared import ids
from segcore.io.images._checks import check_file, is_about_proj, proj_is_broken
from segcore.io.polygon_files import as_file

DRIVERS = {
    ".geojson": "GeoJSON",
    ".geojsonl": "GeoJSON",
    ".gpkg": "GPKG",
    ".shp": "ESRI Shapefile",
    ".fgb": "FlatGeobuf",
}
# First bytes of these formats. GDAL alone would open any content, and follow the files that it refers to.
_STARTS = {".gpkg": b"SQLite format 3\0", ".shp": b"\0\0\x27\x0a", ".fgb": b"fgb"}
# The other files of a Shapefile.
_PARTS = (".shx", ".dbf", ".prj", ".cpg")
# Features that are read to find the geometry types of a file.
_SAMPLED = 10_000
# Features that are read at once to find the bounds and the polygons that cross the antimeridian.
_CHUNK = 100_000
_ERRORS = (
    RasterioError,
    CPLE_BaseError,
    ShapelyError,
    RuntimeError,
    ValueError,
    TypeError,
    OverflowError,
    OSError,
    # pyogrio raises it on a damaged coordinate system.
    UnboundLocalError,
)


@dataclass(frozen=True)
class Layer:
    """Metadata of a layer of polygons.

    Attributes:
        name: of the layer.
        crs: coordinate system as "EPSG:..." or WKT; None where the file has none.
        fields: names of the properties.
        empty: whether the layer has no features.
        bounds: left, bottom, right, top; None where the file has no valid ones.
        jumps: whether polygons in degrees cross the antimeridian by an edge such as from 179 to -179.
    """

    name: str
    crs: str | None
    fields: tuple[str, ...]
    empty: bool
    bounds: Box | None = None
    jumps: bool = False


def unreadable(path: Path, reason: object, remedy: str = "export it again from its source") -> DataError:
    """The error for a file that cannot be read as polygons."""
    text = " ".join(str(reason).replace(f"{path.parent}/", "").split())
    if is_about_proj(text):
        return proj_is_broken(path, text)
    return DataError(
        f"{path.name}: cannot be read as polygons ({text[:300]})", remedy, kind="polygons-unreadable"
    )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors of pyogrio, GDAL and GEOS on a damaged file into DataError."""
    with warnings.catch_warnings():
        # GDAL warns of odd features; those that matter are checked after reading.
        warnings.simplefilter("ignore")
        try:
            yield
        except _ERRORS as error:
            raise unreadable(path, error) from error


def _check_start(path: Path) -> None:
    extension = path.suffix.lower()
    with path.open("rb") as file:
        start = file.read(64)
    expected = _STARTS.get(extension)
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n\x1e")
    if not (start.startswith(expected) if expected else text.startswith((b"{", b"["))):
        raise unreadable(path, f"its content is not {DRIVERS[extension]}")


@lru_cache(maxsize=8)
def _layer_of(path: Path, stamp: tuple[tuple[int, int], ...]) -> Layer:
    """The layer of polygons of a file; cached, because many images share the file."""
    import pyogrio

    _check_start(path)
    with reading(path), as_file(path) as file:
        layers = [str(name) for name, kind in pyogrio.list_layers(file) if kind is not None]
        if len(layers) != 1:
            raise unreadable(
                path,
                f"has {len(layers)} layers with geometry{': ' if layers else ''}{ids(layers)}",
                "export the layer with your polygons to a separate file",
            )
        info = pyogrio.read_info(file, layer=layers[0])
        driver, expected = info["driver"].removesuffix("Seq"), DRIVERS[path.suffix.lower()]
        if driver != expected:
            raise unreadable(path, f"its content is {driver}, not {expected}", f"export it as {expected}")
        geometries = _first(file, layers[0])
        kinds = {g.geom_type if g is not None else "nothing" for g in geometries}
        bounds, crossing = _extent(file, layers[0], info["total_bounds"], geometries)
    if kinds and not kinds & {"Polygon", "MultiPolygon", "GeometryCollection"}:
        raise unreadable(
            path,
            f"holds {', '.join(sorted(kinds))} instead of polygons",
            "provide polygons (buffer points or lines into areas), or restore the file",
        )
    return Layer(
        layers[0],
        info["crs"],
        tuple(map(str, info["fields"])),
        empty=not kinds,
        bounds=bounds,
        jumps=crossing,
    )


def _extent(path: Path, layer: str, stated: Any, first: Any) -> tuple[Box | None, bool]:
    """Bounds of a layer, and whether a polygon has an edge such as from 179 to -179 degrees.

    Only layers without stated bounds, or with bounds that are wide enough for such an edge, are read for it.

    Args:
        path: of the file.
        layer: its name.
        stated: bounds in the header of the file, or None.
        first: geometries of its first features, up to _SAMPLED.
    """
    import shapely

    if not len(first):
        return None, False
    if stated is not None and np.isfinite(stated).all() and not _is_wide(stated):
        return _box(stated), False
    bounds, crossing = [], False
    for geometries in [first] if len(first) < _SAMPLED else _chunks(path, layer):
        left, _, right, _ = shapely.bounds(geometries).T
        crossing = crossing or bool(jumps(geometries[right - left > 270]).any())
        bounds.append(shapely.total_bounds(geometries))
    lows, highs = np.fmin.reduce(bounds)[:2], np.fmax.reduce(bounds)[2:]
    return _box(np.concatenate([lows, highs]) if stated is None else stated), crossing


def _is_wide(bounds: Any) -> bool:
    """Whether bounds may be degrees, with room for an edge of more than 270."""
    return bool(bounds[2] - bounds[0] > 270 and bounds[0] >= -720 and bounds[2] <= 720)


def _box(bounds: Any) -> Box | None:
    if not np.isfinite(bounds).all():
        return None
    left, bottom, right, top = map(float, bounds)
    return left, bottom, right, top


def _chunks(path: Path, layer: str) -> Iterator[Any]:
    """Geometries of all features, _CHUNK at a time."""
    start = 0
    while True:
        geometries = _first(path, layer, _CHUNK, start)
        yield geometries
        if len(geometries) < _CHUNK:
            return
        start += _CHUNK


def _first(path: Path, layer: str, most: int = _SAMPLED, start: int = 0) -> Any:
    """Geometries of the first features from one on; None for those that are missing or damaged."""
    import pyogrio.raw
    import shapely

    blobs = pyogrio.raw.read(
        path, layer=layer, columns=[], skip_features=start, max_features=most, force_2d=True
    )[2]
    return shapely.from_wkb(blobs, on_invalid="fix")


def open_layer(path: Path) -> Layer:
    """The layer of polygons of a file.

    Raises:
        DataError: the file is damaged, has no polygons, or has several layers.
    """
    check_file(path)
    parts = [path, *(path.with_suffix(e) for e in _PARTS if path.suffix.lower() == ".shp")]
    return _layer_of(
        path.absolute(), tuple((f.stat().st_size, f.stat().st_mtime_ns) for f in parts if f.exists())
    )


def read(path: Path, layer: Layer, boxes: Iterable[Box], field: str | None) -> tuple[Any, Any, Any]:
    """Features that intersect one of some boxes, each once.

    Args:
        path: of the file.
        layer: of the file, see `open_layer`.
        boxes: in the layer's coordinate system.
        field: property to read; None for none.

    Returns:
        Feature ids, geometries, and property values (None without `field`), each (N,).

    Raises:
        DataError: the file is damaged.
    """
    import pyogrio.raw
    import shapely

    columns = [field] if field else []
    with reading(path), as_file(path) as file:
        found = [
            pyogrio.raw.read(
                file, layer=layer.name, columns=columns, bbox=box, force_2d=True, return_fids=True
            )
            for box in dict.fromkeys(boxes)
        ]
        fids = np.concatenate([f for _, f, _, _ in found])
        blobs = np.concatenate([b for _, _, b, _ in found])
        values = np.concatenate([c[0] for _, _, _, c in found]) if field else None
        if len(found) > 1:
            fids, once = np.unique(fids, return_index=True)
            blobs, values = blobs[once], None if values is None else values[once]
        return fids, shapely.from_wkb(blobs, on_invalid="fix"), values
