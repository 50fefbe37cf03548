"""Polygons of a class raster, and of a map of object numbers, block by block.

The parts of a polygon that crosses block borders are merged once no further block can touch it. One row of blocks and
the polygons that reach its lower border are in memory; an object as large as the scene is in memory as a whole.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import rasterio
import shapely
from rasterio.features import shapes

from segcore.data.raster import Info
from segcore.prediction.writers.geopackage import Layer
from segcore.prediction.writers.placement import placement

# side in pixels
BLOCK = 4096
LAYER = "classes"
# polygons, and the class of each
Polygons = tuple[np.ndarray, np.ndarray]


# reads values (h, w), and which pixels get polygons (h, w) bool, of a row, column, height and width
ReadValues = Callable[[int, int, int, int], tuple[np.ndarray, np.ndarray]]


def _of_block(read: ReadValues, row: int, col: int, height: int, width: int) -> Polygons:
    """Polygons of a block, in pixels of the scene; pixels that only touch at a corner are not connected."""
    values, wanted = read(row, col, height, width)
    place = rasterio.Affine.translation(col, row)
    pairs = [(shapely.geometry.shape(g), int(v)) for g, v in shapes(values, wanted, 4, place)]
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

        def read(row: int, col: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
            classes = source.read(1, window=rasterio.windows.Window(col, row, width, height))
            return classes, np.isin(classes, wanted)

        yield from outlines(read, source.height, source.width, side)


def outlines(read: ReadValues, height: int, width: int, side: int = BLOCK) -> Iterator[Polygons]:
    """Polygons of connected pixels of the same value, in pixels (column, row), once complete.

    Args:
        read: of the values, uint8 or int32.
        height: of the raster in pixels.
        width: of the raster in pixels.
        side: of the blocks in pixels.

    Yields:
        (n,) shapely polygons and (n,) int32 values.
    """
    incomplete = _arrays([], [])
    for row in range(0, height, side):
        bottom = min(row + side, height)
        crossing = [incomplete]
        for col in range(0, width, side):
            right = min(col + side, width)
            found, values = _of_block(read, row, col, bottom - row, right - col)
            bounds = shapely.bounds(found).reshape(-1, 4)
            cut = (bounds[:, 0] == col) & (col > 0) | (bounds[:, 2] == right) & (right < width)
            cut |= (bounds[:, 1] == row) & (row > 0) | (bounds[:, 3] == bottom) & (bottom < height)
            crossing.append((found[cut], values[cut]))
            yield found[~cut], values[~cut]
        joined, values = _joined(*(np.concatenate(part) for part in zip(*crossing, strict=True)))
        is_incomplete = shapely.bounds(joined).reshape(-1, 4)[:, 3] >= bottom
        is_incomplete &= bottom < height
        incomplete = joined[is_incomplete], values[is_incomplete]
        yield joined[~is_incomplete], values[~is_incomplete]


def simplified(polygons: np.ndarray, tolerance: float) -> np.ndarray:
    """Polygons with fewer corners; each stays valid, but neighbours may get gaps or overlap.

    Args:
        polygons: shapely polygons in pixels.
        tolerance: largest distance in pixels of a corner that is left out; 0: none is.
    """
    if not tolerance:
        return polygons
    simple = shapely.simplify(polygons, tolerance, preserve_topology=True)
    is_damaged = ~shapely.is_valid(simple) | shapely.is_empty(simple)
    chosen: np.ndarray = np.where(is_damaged, polygons, simple)
    return chosen


def write_polygons(
    raster: Path,
    target: Path,
    info: Info,
    names: Sequence[str],
    wanted: Sequence[int],
    min_area: int = 0,
    simplify: float = 0,
) -> None:
    """Write a layer `classes` of a GeoPackage: polygons with the fields `class` (index) and `name`.

    Coordinates are in the scene's coordinate system; without one, in pixels (column, row). Control points place them if
    a polynomial through them fits to a pixel; what the coordinates are is in the layer's metadata.

    Args:
        raster: class indices.
        target: a file that may have other layers.
        info: of the scene.
        names: of all classes.
        wanted: indices of the classes that get polygons.
        min_area: polygons of fewer pixels are left out.
        simplify: tolerance in pixels by which outlines are simplified.

    Raises:
        OSError: the disk is full or not writable.
    """
    layer = Layer(target, LAYER, "Polygon", placement(info))
    for found, values in polygons(raster, wanted):
        if min_area:
            is_large = shapely.area(found) >= min_area
            found, values = found[is_large], values[is_large]
        fields = {"class": values, "name": np.array([names[v] for v in values], object)}
        layer.write(simplified(found, simplify), fields)
