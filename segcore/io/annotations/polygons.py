"""Polygons of GeoJSON, GeoPackage, Shapefile and FlatGeobuf, drawn onto the grid of their image.

A pixel belongs to a polygon that covers its centre; where polygons overlap, the later one of the file lies on top.
Each feature is one object, numbered from 1 in file order among those of the image.
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
    shown,
    unknown_category,
)
from segcore.params.data import Data

ENDINGS = tuple(DRIVERS)

_POLYGON, _MULTIPOLYGON, _COLLECTION = 3, 6, 7  # shapely's type ids
# Straight edges get a vertex at least so often over the image's diagonal, because projections bend them.
_STEPS = 32
# Coordinates are kept to this part of a pixel, so that a window's offset is subtracted exactly.
_GRID = 2.0**16


class _Polygons:
    """Polygons of one image, in pixel coordinates."""

    def __init__(
        self, shapes: np.ndarray, codes: np.ndarray, background: int, notes: list[tuple[str, str]]
    ) -> None:
        import shapely

        self.notes, self._shapes = notes, shapes
        self._codes = np.concatenate([[background], codes]).astype(np.uint8)
        self._background = background
        self._bounds = shapely.bounds(shapes).reshape(-1, 4)

    def read(self, window: Window, plane: int = 0) -> Labels:
        """Class indices and numbers of objects of a window."""
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
    """A coordinate system on Earth; None for none, and for the placeholders that files write instead of none."""
    if not text:
        return None
    crs = CRS.from_user_input(text)
    return crs if crs.is_geographic or crs.is_projected else None


def _systems(path: Path, image_path: Path, image: Info, layer: Layer) -> tuple[CRS | None, CRS | None]:
    """Coordinate systems of layer and image: both, or neither.

    Raises:
        DataError: one has none, or the image lies nowhere.
    """
    with reading(path):
        own, its = _crs(layer.crs), _crs(image.crs)
    pair = f"{path.name} and {image_path.name}"
    if image.transform is None:
        raise DataError(
            f"{pair}: the image has no affine transform, so polygons cannot be laid on it",
            "give a georeferenced image, or masks or COCO annotations in pixels",
            kind="polygons-no-crs",
        )
    if (own is None) != (its is None):
        without = "the polygons have" if own is None else "the image has"
        fix = (
            "write it with ogr2ogr -a_srs; a Shapefile keeps it in its .prj"
            if own is None
            else "gdal_edit.py -a_srs"
        )
        raise DataError(
            f"{pair}: {without} no coordinate system, the other has {own or its}",
            f"assign the one it was made in ({fix})",
            kind="polygons-no-crs",
        )
    return own, its


def _affine(image: Info) -> rasterio.Affine:
    assert image.transform is not None  # _systems has seen to it
    return rasterio.Affine(*image.transform)


def _apply(affine: rasterio.Affine, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f


def _footprint(image: Info, own: CRS | None, its: CRS | None) -> tuple[float, float, float, float]:
    """Bounds of the image in the layer's coordinates, a little widened."""
    columns, rows = np.array([0, image.width, 0, image.width]), np.array([0, 0, image.height, image.height])
    x, y = _apply(_affine(image), columns, rows)
    left, bottom, right, top = float(x.min()), float(y.min()), float(x.max()), float(y.max())
    if own is not None and own != its:
        left, bottom, right, top = warp.transform_bounds(its, own, left, bottom, right, top)
    if not np.isfinite([left, bottom, right, top]).all():
        raise ValueError("the image's place does not exist in the polygons' coordinate system")
    if left > right:  # across the antimeridian
        left, right = -180.0, 180.0
    margin = 0.05 * max(right - left, top - bottom)
    return left - margin, bottom - margin, right + margin, top + margin


def _polygonal(geometries: np.ndarray) -> np.ndarray:
    """Each geometry's polygons alone: collections lose their points and lines; None where none is left."""
    import shapely

    kinds = shapely.get_type_id(geometries)
    kept = geometries.copy()
    kept[~np.isin(kinds, (_POLYGON, _MULTIPOLYGON))] = None
    for i in np.flatnonzero(kinds == _COLLECTION):
        parts = shapely.get_parts(shapely.get_parts(geometries[i]))
        parts = parts[shapely.get_type_id(parts) == _POLYGON]
        kept[i] = shapely.multipolygons(parts) if len(parts) else None
    return kept


def _mended(fids: np.ndarray, geometries: np.ndarray, notes: list[tuple[str, str]]) -> np.ndarray:
    """Valid polygons; None for what is left out, which the notes tell."""
    import shapely

    lost = shapely.is_missing(geometries) | shapely.is_empty(geometries)
    points, owners = shapely.get_coordinates(geometries, return_index=True)
    lost[owners[~np.isfinite(points).all(axis=1)]] = True
    polygons = _polygonal(geometries)
    other = shapely.is_missing(polygons) & ~lost
    crossed = ~lost & ~other & ~shapely.is_valid(polygons)
    polygons[crossed] = _polygonal(
        shapely.make_valid(polygons[crossed], method="structure", keep_collapsed=False)
    )
    gone = crossed & (shapely.is_missing(polygons) | shapely.is_empty(polygons))
    polygons[gone | lost] = None
    for which, text in (
        (crossed & ~gone, "cross themselves and were mended"),
        (lost | gone, "are empty or damaged and were left out"),
        (other, "are no polygons and were left out"),
    ):
        if which.any():
            notes.append(("polygons-invalid", f"{which.sum()} features {text}: {ids(fids[which])}"))
    return polygons


def _in_pixels(
    polygons: np.ndarray, image: Info, own: CRS | None, its: CRS | None, box: tuple[float, ...]
) -> np.ndarray:
    """Polygons (column, row) in pixels, cut to the neighbourhood of the image; empty where none is left."""
    import shapely

    polygons = _polygonal(shapely.clip_by_rect(polygons, *box))
    if own is not None and own != its:
        diagonal = float(np.hypot(box[2] - box[0], box[3] - box[1]))
        polygons = shapely.segmentize(polygons, diagonal / _STEPS)
    into = ~_affine(image)

    def to_pixels(points: np.ndarray) -> np.ndarray:
        x, y = points.T
        if own is not None and own != its:
            x, y = (np.asarray(v) for v in warp.transform(own, its, x, y))
        return np.round(np.stack(_apply(into, x, y), axis=1) * _GRID) / _GRID

    return shapely.transform(polygons, to_pixels)


def _codes(path: Path, image_path: Path, values: np.ndarray | None, count: int, data: Data) -> np.ndarray:
    """uint8 class of each polygon.

    Raises:
        DataError: a property value that label_values does not declare.
    """
    table = data.label_table
    if values is None:
        only = class_of(1, table)
        return np.full(count, object_index(data) if only is None else only, np.uint8)
    found = [class_of(value, table) for value in values]
    unknown = Counter(shown(v) for v, code in zip(values, found, strict=True) if code is None)
    if unknown:
        what = f"polygons within {image_path.name} have values of {data.label_property!r}"
        raise unknown_category(path.name, what, unknown, data)
    return np.array(found, np.uint8)


@contextmanager
def open_labels(path: Path, image_path: Path, image: Info, data: Data) -> Iterator[_Polygons]:
    """Open the polygons that lie within an image; no others are kept.

    Without data.label_property each polygon has the value 1 of data.label_values ("others" where 1 has no entry, the
    first foreground class where neither has). Pixels outside all polygons are background. Polygons that cross
    themselves are mended, empty ones and other geometries left out, and notes say so.

    Raises:
        DataError: the file cannot be read or holds no polygons, has no coordinate system while the image has one or
            the reverse, the image has no transform, or a property value is not declared.
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
    own, its = _systems(path, image_path, image, layer)
    notes: list[tuple[str, str]] = []
    import shapely

    with reading(path):
        box = _footprint(image, own, its)
        fids, geometries, values = read(path, layer, box, field)
        shapes = _in_pixels(_mended(fids, geometries, notes), image, own, its, box)
        seen = shapely.intersects(shapes, shapely.box(0, 0, image.width, image.height))
    if not seen.any():
        notes.append(("polygons-outside", f"no polygon of {path.name} lies within {image_path.name}"))
    codes = _codes(path, image_path, None if values is None else values[seen], int(seen.sum()), data)
    yield _Polygons(shapes[seen], codes, background_index(data), notes)
