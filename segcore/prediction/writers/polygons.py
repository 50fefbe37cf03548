"""Polygons of a class raster as GeoPackage, block by block.

The parts of a polygon that crosses block borders are merged once no further block can touch it. One row of blocks and
the polygons that reach its lower border are in memory; an object as large as the scene is in memory as a whole.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
import shapely
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.errors import RasterioError
from rasterio.features import shapes
from rasterio.transform import GCPTransformer

from segcore.data.raster import Info
from segcore.prediction.writers.cog import control_points

# side in pixels
BLOCK = 4096
# Pixels that a control point may be off, for polygons to be placed by a polynomial through all of them.
_WORST_FIT = 1.0
_PIXELS = (
    "pixels (column, row), because the scene has no transform that fits: x grows to the right, y grows downwards, "
    "and (0, 0) is the upper left corner of the upper left pixel"
)
# polygons, and the class of each
Polygons = tuple[np.ndarray, np.ndarray]


def _of_block(
    source: rasterio.DatasetReader, row: int, col: int, side: int, wanted: Sequence[int]
) -> Polygons:
    """Polygons of a block, in pixels of the scene; pixels that only touch at a corner are not connected."""
    window = rasterio.windows.Window(col, row, min(side, source.width - col), min(side, source.height - row))
    classes = source.read(1, window=window)
    place = rasterio.Affine.translation(col, row)
    pairs = [
        (shapely.geometry.shape(g), int(v)) for g, v in shapes(classes, np.isin(classes, wanted), 4, place)
    ]
    return _arrays([p for p, _ in pairs], [v for _, v in pairs])


def _arrays(polygons: Sequence[object], values: Sequence[int]) -> Polygons:
    array = np.empty(len(polygons), object)
    array[:] = polygons
    return array, np.asarray(values, np.int32)


def _joined(polygons: np.ndarray, values: np.ndarray) -> Polygons:
    """Merge polygons of the same class that share an edge."""
    parts, numbers = [np.empty(0, object)], [np.empty(0, np.int32)]
    for value in np.unique(values):
        joined = shapely.get_parts(shapely.union_all(polygons[values == value]))
        parts.append(joined)
        numbers.append(np.full(len(joined), value, np.int32))
    return np.concatenate(parts), np.concatenate(numbers)


def polygons(path: Path, wanted: Sequence[int], side: int = BLOCK) -> Iterator[Polygons]:
    """Polygons of connected pixels of the same class, in pixels (column, row) of the raster, once complete.

    Args:
        path: a raster of class indices.
        wanted: indices of the classes that get polygons.
        side: of the blocks in pixels.

    Yields:
        (n,) shapely polygons and (n,) int32 classes.
    """
    with rasterio.open(path) as source:
        incomplete = _arrays([], [])
        for row in range(0, source.height, side):
            bottom = min(row + side, source.height)
            crossing = [incomplete]
            for col in range(0, source.width, side):
                found, values = _of_block(source, row, col, side, wanted)
                right = min(col + side, source.width)
                bounds = shapely.bounds(found).reshape(-1, 4)
                cut = (bounds[:, 0] == col) & (col > 0) | (bounds[:, 2] == right) & (right < source.width)
                cut |= (bounds[:, 1] == row) & (row > 0) | (bounds[:, 3] == bottom) & (bottom < source.height)
                crossing.append((found[cut], values[cut]))
                yield found[~cut], values[~cut]
            joined, values = _joined(*(np.concatenate(part) for part in zip(*crossing, strict=True)))
            is_incomplete = shapely.bounds(joined).reshape(-1, 4)[:, 3] >= bottom
            is_incomplete &= bottom < source.height
            incomplete = joined[is_incomplete], values[is_incomplete]
            yield joined[~is_incomplete], values[~is_incomplete]


class _Placement(NamedTuple):
    """How pixels (column, row) become coordinates.

    Attributes:
        place: (N, 2) pixels to (N, 2) coordinates.
        crs: of the coordinates; None: none.
        text: what the coordinates are.
    """

    place: Callable[[np.ndarray], np.ndarray]
    crs: str | None
    text: str


def _placement(info: Info) -> _Placement:
    if info.transform is not None:
        t = rasterio.Affine(*info.transform)
        matrix = np.array([[t.a, t.d], [t.b, t.e]])
        return _Placement(
            lambda xy: xy @ matrix + [t.c, t.f],
            info.crs,
            "of the coordinate system, by the scene's transform",
        )
    points = control_points(info)
    if info.gcps_crs and len(points) > 2 and _worst_fit(points) <= _WORST_FIT:
        return _Placement(
            partial(_by_points, points), info.gcps_crs, "by a polynomial through the control points"
        )
    return _Placement(lambda xy: xy, None, _PIXELS)


def _worst_fit(points: list[GroundControlPoint]) -> float:
    """Largest distance in pixels of a control point from the polynomial through all; infinite if there is none."""
    try:
        with GCPTransformer(points) as fit:
            rows, cols = fit.rowcol([p.x for p in points], [p.y for p in points], op=float)
    except (RasterioError, CPLE_BaseError, ValueError):
        return math.inf
    distances = np.hypot(rows - np.array([p.row for p in points]), cols - np.array([p.col for p in points]))
    return float(distances.max()) if np.isfinite(distances).all() else math.inf


def _by_points(points: list[GroundControlPoint], xy: np.ndarray) -> np.ndarray:
    if len(xy) == 0:
        return xy
    with GCPTransformer(points) as fit:
        # from corners of pixels, as `xy` counts them
        return np.stack(fit.xy(xy[:, 1], xy[:, 0], offset="ul"), axis=1)


@contextmanager
def _as_oserror(kind: type[Exception]) -> Iterator[None]:
    try:
        yield
    except kind as error:
        raise OSError(str(error)) from error


def write_polygons(
    raster: Path, target: Path, info: Info, names: Sequence[str], wanted: Sequence[int]
) -> None:
    """Write a GeoPackage with one layer `classes`: polygons with the fields `class` (index) and `name`.

    Coordinates are in the scene's coordinate system; without one, in pixels (column, row). Control points place them if
    a polynomial through them fits to a pixel; what the coordinates are is in the layer's metadata.

    Args:
        raster: class indices.
        target: a new file.
        info: of the scene.
        names: of all classes.
        wanted: indices of the classes that get polygons.

    Raises:
        OSError: the disk is full or not writable.
    """
    import pyogrio.raw
    from pyogrio.errors import DataSourceError

    placement = _placement(info)
    written = False
    for found, values in polygons(raster, wanted):
        if len(found) == 0 and written:
            continue
        placed = shapely.transform(found, placement.place)
        with warnings.catch_warnings(), _as_oserror(DataSourceError):
            warnings.filterwarnings("ignore", "'crs' was not provided")
            pyogrio.raw.write(
                target,
                shapely.to_wkb(placed),
                [values, np.array([names[v] for v in values], object)],
                ["class", "name"],
                layer="classes",
                driver="GPKG",
                geometry_type="Polygon",
                crs=placement.crs,
                append=written,
                layer_metadata=None if written else {"coordinates": placement.text},
            )
        written = True
