"""Polygons of a class raster as GeoPackage, block by block.

The parts of a polygon that crosses block borders are merged once no further block can touch it. One row of blocks and
the polygons that reach its lower border are in memory; an object as large as the scene is in memory as a whole.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio
import shapely
from rasterio.features import shapes

from segcore.data.raster import Info

# side in pixels
BLOCK = 4096
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

    Coordinates are in the scene's coordinate system; without one, in pixels (column, row).

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

    place = rasterio.Affine(*info.transform) if info.transform else rasterio.Affine.identity()
    matrix = np.array([[place.a, place.d], [place.b, place.e]])
    written = False
    for found, values in polygons(raster, wanted):
        if len(found) == 0 and written:
            continue
        placed = shapely.transform(found, lambda xy: xy @ matrix + [place.c, place.f])
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
                crs=info.crs,
                append=written,
            )
        written = True
