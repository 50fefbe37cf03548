"""Polygons of GeoJSON, GeoPackage, Shapefile and FlatGeobuf, rasterised onto the grid of their image.

A pixel belongs to a polygon that covers its centre; where polygons overlap, the later one in the file is on top. Each
feature is one object; the features within an image are numbered from 1 in file order.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio
from rasterio import features, warp
from rasterio.crs import CRS

from segcore.data.raster import Info, Window
from segcore.errors import DataError
from segcore.io.annotations import Labels
from segcore.io.annotations._layers import DRIVERS, Layer, open_layer, read, reading, unreadable
from segcore.io.annotations._shared import (
    background_index,
    class_of,
    from_numbers,
    ids,
    object_index,
    unknown_category,
    value_text,
)
from segcore.params.data import Data

EXTENSIONS = tuple(DRIVERS)

# Type ids of shapely.
_POLYGON, _MULTIPOLYGON, _COLLECTION = 3, 6, 7
# Minimum number of segments of a straight edge as long as the image's diagonal, because projections bend edges.
_STEPS = 32
# Coordinates are rounded to 1/_GRID of a pixel, so that subtracting a window's offset is exact.
_GRID = 2.0**16


class _Polygons:
    """Polygons of one image, in pixel coordinates."""

    def __init__(
        self, shapes: np.ndarray, codes: np.ndarray, background: int, notes: list[tuple[str, str]]
    ) -> None:
        import shapely

        self.notes, self._shapes = notes, shapes
        self.found: dict[str, int] = {}
        self._codes = np.concatenate([[background], codes]).astype(np.uint8)
        self._background = background
        self._bounds = shapely.bounds(shapes).reshape(-1, 4)

    def read(self, window: Window, plane: int = 0) -> Labels:
        """Class indices and object numbers of a window."""
        row, column, height, width = window
        left, top, right, bottom = self._bounds.T
        touched = (left < column + width) & (right > column) & (top < row + height) & (bottom > row)
        drawn = np.flatnonzero(touched)
        if drawn.size == 0:
            return from_numbers(np.zeros((height, width), np.uint32), self._codes, self._background)
        numbers = features.rasterize(
            ((self._shapes[i], int(i) + 1) for i in drawn),
            out_shape=(height, width),
            transform=rasterio.Affine.translation(column, row),
            dtype=np.uint32,
        )
        return from_numbers(numbers, self._codes, self._background)


def _crs(text: str | None) -> CRS | None:
    """A geographic or projected coordinate system; None for none and for placeholders that some files write instead."""
    if not text:
        return None
    crs = CRS.from_user_input(text)
    return crs if crs.is_geographic or crs.is_projected else None


def _coordinate_systems(
    path: Path, image_path: Path, image: Info, layer: Layer
) -> tuple[CRS | None, CRS | None]:
    """Coordinate systems of layer and image; None for both, or for neither.

    Raises:
        DataError: only one of them has a coordinate system, or the image has no affine transform.
    """
    with reading(path):
        layer_crs, image_crs = _crs(layer.crs), _crs(image.crs)
    pair = f"{path.name} and {image_path.name}"
    if image.transform is None:
        raise DataError(
            f"{pair}: the image has no affine transform, so polygons cannot be placed on it",
            "provide a georeferenced image, or masks or COCO annotations in pixels",
            kind="polygons-no-crs",
        )
    if (layer_crs is None) != (image_crs is None):
        without = "polygons have" if layer_crs is None else "image has"
        fix = (
            "write it with ogr2ogr -a_srs; a Shapefile stores it in its .prj"
            if layer_crs is None
            else "gdal_edit.py -a_srs"
        )
        raise DataError(
            f"{pair}: the {without} no coordinate system, the other file has {layer_crs or image_crs}",
            f"assign the one that it was made in ({fix})",
            kind="polygons-no-crs",
        )
    return layer_crs, image_crs


def _affine(image: Info) -> rasterio.Affine:
    # _coordinate_systems has checked it.
    assert image.transform is not None
    return rasterio.Affine(*image.transform)


def _apply(affine: rasterio.Affine, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f


def _footprint(
    image: Info, layer_crs: CRS | None, image_crs: CRS | None
) -> tuple[float, float, float, float]:
    """Bounds of the image in the layer's coordinates (left, bottom, right, top), with a margin of 5 %."""
    columns, rows = np.array([0, image.width, 0, image.width]), np.array([0, 0, image.height, image.height])
    x, y = _apply(_affine(image), columns, rows)
    left, bottom, right, top = float(x.min()), float(y.min()), float(x.max()), float(y.max())
    if layer_crs is not None and layer_crs != image_crs:
        left, bottom, right, top = warp.transform_bounds(image_crs, layer_crs, left, bottom, right, top)
    if not np.isfinite([left, bottom, right, top]).all():
        raise ValueError("the image's location does not exist in the polygons' coordinate system")
    # The image crosses the antimeridian.
    if left > right:
        left, right = -180.0, 180.0
    margin = 0.05 * max(right - left, top - bottom)
    return left - margin, bottom - margin, right + margin, top + margin


def _polygonal(geometries: np.ndarray) -> np.ndarray:
    """Polygons of each geometry: points and lines of collections are dropped; None where no polygon is left."""
    import shapely

    kinds = shapely.get_type_id(geometries)
    polygons: np.ndarray = geometries.copy()
    polygons[~np.isin(kinds, (_POLYGON, _MULTIPOLYGON))] = None
    for i in np.flatnonzero(kinds == _COLLECTION):
        parts = shapely.get_parts(shapely.get_parts(geometries[i]))
        parts = parts[shapely.get_type_id(parts) == _POLYGON]
        polygons[i] = shapely.multipolygons(parts) if len(parts) else None
    return polygons


def _repaired(fids: np.ndarray, geometries: np.ndarray, notes: list[tuple[str, str]]) -> np.ndarray:
    """Valid polygons; None for features that are left out, which is added to the notes."""
    import shapely

    empty = shapely.is_missing(geometries) | shapely.is_empty(geometries)
    points, features_of = shapely.get_coordinates(geometries, return_index=True)
    empty[features_of[~np.isfinite(points).all(axis=1)]] = True
    polygons = _polygonal(geometries)
    other = shapely.is_missing(polygons) & ~empty
    crossed = ~empty & ~other & ~shapely.is_valid(polygons)
    polygons[crossed] = _polygonal(
        shapely.make_valid(polygons[crossed], method="structure", keep_collapsed=False)
    )
    gone = crossed & (shapely.is_missing(polygons) | shapely.is_empty(polygons))
    polygons[gone | empty] = None
    for which, text in (
        (crossed & ~gone, "intersect themselves and were repaired"),
        (empty | gone, "are empty or damaged and were left out"),
        (other, "are not polygons and were left out"),
    ):
        if which.any():
            notes.append(("polygons-invalid", f"{which.sum()} features {text}: {ids(fids[which])}"))
    return polygons


def _in_pixels(
    polygons: np.ndarray,
    image: Info,
    layer_crs: CRS | None,
    image_crs: CRS | None,
    box: tuple[float, ...],
) -> np.ndarray:
    """Polygons in pixel coordinates (column, row), clipped to the box; empty where nothing is left."""
    import shapely

    polygons = _polygonal(shapely.clip_by_rect(polygons, *box))
    if layer_crs is not None and layer_crs != image_crs:
        diagonal = float(np.hypot(box[2] - box[0], box[3] - box[1]))
        polygons = shapely.segmentize(polygons, diagonal / _STEPS)
    inverse = ~_affine(image)

    def to_pixels(points: np.ndarray) -> np.ndarray:
        x, y = points.T
        if layer_crs is not None and layer_crs != image_crs:
            x, y = (np.asarray(v) for v in warp.transform(layer_crs, image_crs, x, y))
        return np.round(np.stack(_apply(inverse, x, y), axis=1) * _GRID) / _GRID

    transformed: np.ndarray = shapely.transform(polygons, to_pixels)
    return transformed


def _codes(path: Path, image_path: Path, values: np.ndarray | None, count: int, data: Data) -> np.ndarray:
    """Class of each polygon, (N,) uint8.

    Raises:
        DataError: a property value that label_values does not declare.
    """
    table = data.label_table
    if values is None:
        declared = class_of(1, table)
        return np.full(count, object_index(data) if declared is None else declared, np.uint8)
    codes = [class_of(value, table) for value in values]
    unknown = Counter(value_text(v) for v, code in zip(values, codes, strict=True) if code is None)
    if unknown:
        what = f"polygons within {image_path.name} have values of {data.label_property!r}"
        raise unknown_category(path.name, what, unknown, data)
    return np.array(codes, np.uint8)


@contextmanager
def open_labels(path: Path, image_path: Path, image: Info, data: Data) -> Iterator[_Polygons]:
    """Open the polygons within an image; all others are dropped.

    Without data.label_property each polygon has the value 1 of data.label_values ("others" where 1 has no entry, the
    first foreground class where neither has). Pixels outside all polygons are background. Self-intersecting polygons
    are repaired, empty ones and other geometries are left out, and notes report both.

    Raises:
        DataError: the file cannot be read or holds no polygons, only one of file and image has a coordinate system,
            the image has no transform, or a property value is not declared.
    """
    layer = open_layer(path)
    field = data.label_property
    if layer.empty:
        field = None
    if field is not None and field not in layer.fields:
        raise unreadable(
            path,
            f"has no property {field!r}; it has {', '.join(layer.fields) or 'none'}",
            "correct data.label_property",
        )
    layer_crs, image_crs = _coordinate_systems(path, image_path, image, layer)
    notes: list[tuple[str, str]] = []
    import shapely

    with reading(path):
        box = _footprint(image, layer_crs, image_crs)
        fids, geometries, values = read(path, layer, box, field)
        shapes = _in_pixels(_repaired(fids, geometries, notes), image, layer_crs, image_crs, box)
        visible = shapely.intersects(shapes, shapely.box(0, 0, image.width, image.height))
    if not visible.any():
        notes.append(("polygons-outside", f"no polygon of {path.name} is within {image_path.name}"))
    codes = _codes(path, image_path, None if values is None else values[visible], int(visible.sum()), data)
    yield _Polygons(shapes[visible], codes, background_index(data), notes)
