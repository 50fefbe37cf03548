"""Layers of polygons as files hold them, through GDAL."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from shapely.errors import ShapelyError

from segcore.errors import DataError
from segcore.io.annotations._shared import ids
from segcore.io.images._checks import check_file

DRIVERS = {
    ".geojson": "GeoJSON",
    ".geojsonl": "GeoJSON",
    ".gpkg": "GPKG",
    ".shp": "ESRI Shapefile",
    ".fgb": "FlatGeobuf",
}
# How a file of these kinds begins; GDAL itself would open whatever the content is, and follow where that points.
_STARTS = {".gpkg": b"SQLite format 3\0", ".shp": b"\0\0\x27\x0a", ".fgb": b"fgb"}
_PARTS = (".shx", ".dbf", ".prj", ".cpg")  # of a Shapefile
_SAMPLED = 10_000  # features that tell what a file holds
_ERRORS = (
    RasterioError,
    CPLE_BaseError,
    ShapelyError,
    RuntimeError,
    ValueError,
    TypeError,
    OverflowError,
    OSError,
    UnboundLocalError,  # pyogrio's own, on a damaged coordinate system
)


@dataclass(frozen=True)
class Layer:
    """What a layer says of itself: its coordinate system as "EPSG:..." or WKT, and the names of its properties."""

    name: str
    crs: str | None
    fields: tuple[str, ...]
    empty: bool


def unreadable(path: Path, reason: object, remedy: str = "export it again from its source") -> DataError:
    text = " ".join(str(reason).replace(f"{path.parent}/", "").split())
    return DataError(
        f"{path.name}: cannot be read as polygons ({text[:300]})", remedy, kind="polygons-unreadable"
    )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What pyogrio, GDAL and GEOS say of a damaged file becomes DataError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GDAL's remarks on odd features; those that matter are found below
        try:
            yield
        except _ERRORS as error:
            raise unreadable(path, error) from error


def _check_start(path: Path) -> None:
    ending = path.suffix.lower()
    with path.open("rb") as file:
        start = file.read(64)
    expected = _STARTS.get(ending)
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n\x1e")
    if not (start.startswith(expected) if expected else text.startswith((b"{", b"["))):
        raise unreadable(path, f"its content is no {DRIVERS[ending]}")


@lru_cache(maxsize=8)
def _opened(path: Path, stamp: tuple[tuple[int, int], ...]) -> Layer:
    """The layer of polygons of a file, which many images share."""
    import pyogrio

    _check_start(path)
    with reading(path):
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
        if len(layers) != 1:
            raise unreadable(
                path,
                f"has {len(layers)} layers with geometry{': ' if layers else ''}{ids(layers)}",
                "export the one layer of your polygons to a file of its own",
            )
        info = pyogrio.read_info(path, layer=layers[0])
        driver, expected = info["driver"].removesuffix("Seq"), DRIVERS[path.suffix.lower()]
        if driver != expected:
            raise unreadable(path, f"its content is {driver}, not {expected}", f"export it as {expected}")
        kinds = _kinds(path, layers[0])
    if kinds and not kinds & {"Polygon", "MultiPolygon", "GeometryCollection"}:
        raise unreadable(
            path,
            f"holds no polygons but {', '.join(sorted(kinds))}",
            "give polygons (buffer points or lines to areas), or restore the file",
        )
    return Layer(layers[0], info["crs"], tuple(map(str, info["fields"])), not kinds)


def _kinds(path: Path, layer: str) -> set[str]:
    """Types of the first geometries; "nothing" for those that are missing or damaged."""
    import pyogrio.raw
    import shapely

    blobs = pyogrio.raw.read(path, layer=layer, columns=[], max_features=_SAMPLED)[2]
    geometries = shapely.from_wkb(blobs, on_invalid="fix")
    return {g.geom_type if g is not None else "nothing" for g in geometries}


def open_layer(path: Path) -> Layer:
    """The layer of polygons of a file.

    Raises:
        DataError: damaged, no polygons, or several layers.
    """
    check_file(path)
    parts = [path, *(path.with_suffix(e) for e in _PARTS if path.suffix.lower() == ".shp")]
    return _opened(
        path.absolute(), tuple((f.stat().st_size, f.stat().st_mtime_ns) for f in parts if f.exists())
    )


def read(path: Path, layer: Layer, box: tuple[float, ...], field: str | None) -> tuple[Any, Any, Any]:
    """Feature ids, geometries, and property values or None, of what lies in the box."""
    import pyogrio.raw
    import shapely

    with reading(path):
        _, fids, blobs, columns = pyogrio.raw.read(
            path,
            layer=layer.name,
            columns=[field] if field else [],
            bbox=box,
            force_2d=True,
            return_fids=True,
        )
        geometries = shapely.from_wkb(blobs, on_invalid="fix")
    return fids, geometries, columns[0] if field else None
