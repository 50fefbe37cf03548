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
from rasterio import features
from rasterio.crs import CRS

from segcore.data.raster import Info, Note, Window
from segcore.errors import DataError
from segcore.io.annotations import Labels
from segcore.io.annotations._layers import DRIVERS, Layer, open_layer, read, reading, unreadable
from segcore.io.annotations._overlaps import Losses, areas, layers_of
from segcore.io.annotations._placement import in_pixels, joined, jumps, parts_of, polygonal
from segcore.io.annotations._shared import class_of, ids, unknown_category, value_text
from segcore.io.annotations._unlabelled import Objects, Unlabelled
from segcore.params.data import Data

EXTENSIONS = tuple(DRIVERS)


class _Polygons:
    """Polygons of one image, in pixel coordinates.

    Args:
        name: of the file.
        fids: (N,) feature ids.
        shapes: (N,) geometries.
        codes: (N,) classes.
        unlabelled: pixels outside all polygons.
        image: header of the image.
        notes: what was done to the polygons on opening them; pixels outside them are added.
        found: polygons by value of the property.
    """

    def __init__(
        self,
        name: str,
        fids: np.ndarray,
        shapes: np.ndarray,
        codes: np.ndarray,
        unlabelled: Unlabelled,
        image: Info,
        notes: list[Note],
        found: dict[str, int],
    ) -> None:
        import shapely

        self.found, self._notes = found, notes
        self._shapes, self._bounds = shapes, shapely.bounds(shapes).reshape(-1, 4)
        self._objects = Objects(codes, unlabelled)
        left, top, right, bottom = self._bounds.T
        # others may have their pixels beyond the edge of the image
        is_whole = (left >= 0) & (top >= 0) & (right <= image.width) & (bottom <= image.height)
        self._layers = layers_of(shapes)
        self._losses = Losses(name, "polygon", fids.tolist(), self._objects.is_object, is_whole)

    @property
    def notes(self) -> list[Note]:
        """What was done to the polygons; complete once every window was read."""
        return [*self._notes, *self._losses.notes()]

    def read(self, window: Window, plane: int = 0) -> Labels:
        """Class indices and object numbers of a window.

        Raises:
            DataError: pixels outside all polygons have no class by the settings (kind "no-unlabelled").
        """
        row, column, height, width = window
        left, top, right, bottom = self._bounds.T
        touched = (left < column + width) & (right > column) & (top < row + height) & (bottom > row)
        drawn = np.flatnonzero(touched)
        numbers = self._drawn(drawn, window) if drawn.size else np.zeros((height, width), np.uint32)
        self._count(drawn, numbers, window, plane)
        return self._objects.labels(numbers, window, plane)

    def _drawn(self, indices: np.ndarray, window: Window) -> np.ndarray:
        """Numbers (h, w) uint32 of a window with some polygons, drawn in this order."""
        row, column, height, width = window
        numbers: np.ndarray = features.rasterize(
            ((self._shapes[i], int(i) + 1) for i in indices),
            out_shape=(height, width),
            transform=rasterio.Affine.translation(column, row),
            dtype=np.uint32,
        )
        return numbers

    def _count(self, drawn: np.ndarray, numbers: np.ndarray, window: Window, plane: int) -> None:
        """Count the pixels of each polygon in a window, and those that others take from it."""
        count = len(self._shapes)
        kept, layers = areas(numbers, count)[1:], self._layers[drawn]
        covered = kept
        if layers.any():
            each = [self._drawn(drawn[layers == layer], window) for layer in np.unique(layers)]
            covered = sum((areas(one, count)[1:] for one in each), np.zeros(count, np.int64))
        self._losses.add(covered, kept, window, plane)


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


def _repaired(fids: np.ndarray, geometries: np.ndarray, notes: list[Note]) -> np.ndarray:
    """Valid polygons; None for features that are left out, which is added to the notes."""
    import shapely

    empty = shapely.is_missing(geometries) | shapely.is_empty(geometries)
    points, features_of = shapely.get_coordinates(geometries, return_index=True)
    empty[features_of[~np.isfinite(points).all(axis=1)]] = True
    polygons = polygonal(geometries)
    other = shapely.is_missing(polygons) & ~empty
    crossed = ~empty & ~other & ~shapely.is_valid(polygons)
    polygons[crossed] = polygonal(
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


def _joined(fids: np.ndarray, geometries: np.ndarray, notes: list[Note]) -> np.ndarray:
    """Geometries in degrees, with those that cross the antimeridian on both of its sides; notes report them."""
    crossing = jumps(geometries)
    out = geometries.copy()
    out[crossing] = joined(geometries[crossing])
    changed = crossing & (out != geometries)
    if changed.any():
        text = "features have edges over more than 270 degrees and were taken across the antimeridian"
        notes.append(("polygons-invalid", f"{changed.sum()} {text}: {ids(fids[changed])}"))
    return out


def _only_class(path: Path, data: Data) -> int:
    """Class of all polygons where data.label_property is not set.

    Raises:
        DataError: label_values has neither 1 nor "others", and without a background no class comes first (kind
            "no-object-class").
    """
    declared = class_of(1, data.label_table)
    if declared is not None:
        return declared
    candidates = [i for i in data.foreground if data.classes[i] != data.unlabelled]
    if data.background is None and len(candidates) > 1:
        raise DataError(
            f"{path.name}: data.label_property is not set, and data.background is null, so the class of its polygons "
            f"could be any of {', '.join(data.classes[i] for i in candidates)}",
            "set data.label_property to the property that names the class, or declare the class of all polygons as "
            f"`1: {data.classes[candidates[0]]}` in data.label_values",
            kind="no-object-class",
        )
    return candidates[0]


def _codes(path: Path, image_path: Path, values: np.ndarray | None, count: int, data: Data) -> np.ndarray:
    """Class of each polygon, (N,) uint8.

    Raises:
        DataError: a property value that label_values does not declare, or without a property no class that is evident.
    """
    table = data.label_table
    if values is None:
        return np.full(count, _only_class(path, data), np.uint8)
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
    notes: list[Note] = []
    import shapely

    with reading(path):
        parts = parts_of(image, layer_crs, image_crs, layer.bounds)
        is_degrees = layer_crs is not None and layer_crs.is_geographic
        boxes = [part.box for part in parts]
        if is_degrees and layer.jumps:
            # By its numbers, a polygon from 179 to -179 is anywhere but there.
            boxes = [(min(b[0], -180.0), b[1], max(b[2], 180.0), b[3]) for b in boxes]
        fids, geometries, values = read(path, layer, boxes, field)
        if is_degrees:
            geometries = _joined(fids, geometries, notes)
        shapes = in_pixels(_repaired(fids, geometries, notes), image, layer_crs, image_crs, parts)
        visible = shapely.intersects(shapes, shapely.box(0, 0, image.width, image.height))
    if not visible.any():
        notes.append(("polygons-outside", f"no polygon of {path.name} is within {image_path.name}"))
    values = None if values is None else values[visible]
    count = int(visible.sum())
    codes = _codes(path, image_path, values, count, data)
    found = Counter(map(value_text, values)) if values is not None else Counter(polygons=count)
    unlabelled = Unlabelled(path.name, image_path.name, data, notes)
    yield _Polygons(path.name, fids[visible], shapes[visible], codes, unlabelled, image, notes, dict(+found))
