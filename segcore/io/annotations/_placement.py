"""Places polygons of a layer on the pixels of an image, also across the antimeridian.

Longitudes repeat after 360 degrees, and so does x in a cylindrical projection. So an image may continue past 180
degrees, or be numbered from 0 to 360, whichever way the layer is written.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import rasterio
from rasterio import warp
from rasterio.crs import CRS

from segcore.data.raster import Info

Box = tuple[float, float, float, float]

# Type ids of shapely.
_POLYGON, _MULTIPOLYGON, _COLLECTION = 3, 6, 7
# Minimum number of segments of a straight edge as long as the image's diagonal, because projections bend edges.
_STEPS = 32
# Coordinates are rounded to 1/_GRID of a pixel, so that subtracting a window's offset is exact.
_GRID = 2.0**16
_DEGREES = CRS.from_epsg(4326)


@dataclass(frozen=True)
class Part:
    """A part of an image's area; an image that crosses the antimeridian has several.

    Attributes:
        box: left, bottom, right, top in the layer's coordinates, with a margin.
        layer_shift: subtracted from x in the layer's coordinates.
        image_shift: added to x in the image's coordinates.
        centre: x of its centre in the image's coordinates, before the shift.
        wraps: whether x in the image's coordinates is the one nearest to the centre.
    """

    box: Box
    layer_shift: float = 0.0
    image_shift: float = 0.0
    centre: float = 0.0
    wraps: bool = False


@lru_cache(maxsize=64)
def _period(crs_text: str) -> float:
    """Distance after which x repeats: 360 in degrees, the equator's length in cylindrical projections, 0 elsewhere."""
    crs = CRS.from_string(crs_text)
    if crs.is_geographic:
        return 360.0
    x = warp.transform(_DEGREES, crs, [-180, 180, -180, 180], [0, 0, 40, 40])[0]
    # Only in cylindrical projections x does not depend on the latitude.
    is_cylindrical = np.isfinite(x).all() and x[:2] == x[2:] and x[1] - x[0] > 1e5
    return float(x[1] - x[0]) if is_cylindrical else 0.0


def period(crs: CRS | None) -> float:
    """Distance after which x repeats in a coordinate system; 0 where it does not."""
    return _period(crs.to_string()) if crs is not None else 0.0


def affine(image: Info) -> rasterio.Affine:
    """Transform of an image that has one."""
    assert image.transform is not None
    return rasterio.Affine(*image.transform)


def _apply(transform: rasterio.Affine, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return transform.a * x + transform.b * y + transform.c, transform.d * x + transform.e * y + transform.f


def _pieces(left: float, right: float, length: float) -> list[tuple[float, float, float]]:
    """A range of x as ranges within -length/2 to length/2, and what was subtracted from each."""
    if not length:
        return [(left, right, 0.0)]
    first, last = (int(np.floor(x / length + 0.5)) for x in (left, right))
    ranges = [
        (max(left, (k - 0.5) * length), min(right, (k + 0.5) * length), k * length)
        for k in range(first, last + 1)
    ]
    # Rounding may leave slivers past 180 degrees.
    kept = [r for r in ranges if r[1] - r[0] > 1e-6 * (right - left)]
    return [(start - shift, end - shift, shift) for start, end, shift in kept]


def _boxes(box: Box, image_crs: CRS, layer_crs: CRS) -> list[Box]:
    """A box of the image's coordinate system in that of the layer: two boxes where it crosses the antimeridian."""
    if layer_crs == image_crs:
        return [box]
    if period(layer_crs) and not layer_crs.is_geographic and not period(image_crs):
        left, bottom, right, top = warp.transform_bounds(image_crs, _DEGREES, *box)
        if left > right:
            halves = ((left, bottom, 180.0, top), (-180.0, bottom, right, top))
            return [warp.transform_bounds(_DEGREES, layer_crs, *half) for half in halves]
    left, bottom, right, top = warp.transform_bounds(image_crs, layer_crs, *box)
    if left > right:
        return [(left, bottom, 180.0, top), (-180.0, bottom, right, top)]
    return [(left, bottom, right, top)]


def _with_margin(box: Box) -> Box:
    if not np.isfinite(box).all():
        raise ValueError("the image's location does not exist in the polygons' coordinate system")
    left, bottom, right, top = box
    margin = 0.05 * max(right - left, top - bottom)
    return left - margin, bottom - margin, right + margin, top + margin


def parts_of(image: Info, layer_crs: CRS | None, image_crs: CRS | None, bounds: Box | None) -> list[Part]:
    """Parts of an image's area in the layer's coordinates, with a margin of 5 %.

    Args:
        image: with a transform.
        layer_crs: of the layer; None where neither has one.
        image_crs: of the image; None where neither has one.
        bounds: of the layer; None: unknown.

    Raises:
        ValueError: the image's location does not exist in the layer's coordinate system.
    """
    columns, rows = np.array([0, image.width, 0, image.width]), np.array([0, 0, image.height, image.height])
    x, y = _apply(affine(image), columns, rows)
    left, bottom, right, top = float(x.min()), float(y.min()), float(x.max()), float(y.max())
    if layer_crs is None or image_crs is None:
        return [Part(_with_margin((left, bottom, right, top)))]
    parts = []
    length, layer_length = period(image_crs), period(layer_crs)
    for start, end, shift in _pieces(left, right, length):
        # Wider than most of the equator, the nearest x would be ambiguous.
        wraps = layer_crs != image_crs and 0 < end - start < 0.9 * length
        for box in _boxes((start, bottom, end, top), image_crs, layer_crs):
            for turn in (0.0, layer_length, -layer_length) if layer_length else (0.0,):
                moved = _with_margin((box[0] + turn, box[1], box[2] + turn, box[3]))
                if turn and (bounds is None or moved[0] >= bounds[2] or moved[2] <= bounds[0]):
                    continue
                parts.append(Part(moved, turn, shift, (start + end) / 2, wraps))
    return parts


def polygonal(geometries: np.ndarray) -> np.ndarray:
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


def jumps(geometries: np.ndarray) -> np.ndarray:
    """Whether each geometry, in degrees, has an edge over 270 to 360 degrees of longitude: (N,) bool.

    Such polygons were meant to cross the antimeridian: from 179 to -179 the short way.
    """
    import shapely

    polygons, of_geometry = shapely.get_parts(polygonal(geometries), return_index=True)
    polygons, of_part = shapely.get_parts(polygons, return_index=True)
    rings, of_polygon = shapely.get_rings(polygons, return_index=True)
    points, of_ring = shapely.get_coordinates(rings, return_index=True)
    length = np.abs(np.diff(points[:, 0]))
    jump = (length > 270) & (length < 360 - 1e-6) & (np.diff(of_ring) == 0)
    found = np.zeros(len(geometries), bool)
    found[of_geometry[of_part[of_polygon[of_ring[:-1][jump]]]]] = True
    return found


def joined(geometries: np.ndarray) -> np.ndarray:
    """Geometries that cross the antimeridian the short way, each on both sides of it: at 179 to 181 and -181 to -179.

    Those that would be wider than 180 degrees stay as they are.
    """
    import shapely

    def eastern(points: np.ndarray) -> np.ndarray:
        return np.stack([np.where(points[:, 0] < 0, points[:, 0] + 360, points[:, 0]), points[:, 1]], axis=1)

    out = geometries.copy()
    for i, geometry in enumerate(shapely.transform(geometries, eastern)):
        left, _, right, _ = shapely.bounds(geometry)
        if right - left < 180:
            western = shapely.transform(geometry, lambda points: points - (360, 0))
            out[i] = shapely.geometrycollections([geometry, western])
    return out


def in_pixels(
    polygons: np.ndarray, image: Info, layer_crs: CRS | None, image_crs: CRS | None, parts: list[Part]
) -> np.ndarray:
    """Polygons in pixel coordinates (column, row), clipped to the parts; None or empty where nothing is left."""
    import shapely

    out = _of_part(polygons, image, layer_crs, image_crs, parts[0])
    for part in parts[1:]:
        other = _of_part(polygons, image, layer_crs, image_crs, part)
        out = polygonal(shapely.union(_whole(out), _whole(other)))
    return out


def _whole(polygons: np.ndarray) -> np.ndarray:
    """Polygons that can be united: valid, and empty instead of None."""
    import shapely

    whole: np.ndarray = shapely.make_valid(
        np.where(shapely.is_missing(polygons), shapely.Polygon(), polygons)
    )
    return whole


def _of_part(
    polygons: np.ndarray, image: Info, layer_crs: CRS | None, image_crs: CRS | None, part: Part
) -> np.ndarray:
    import shapely

    box = part.box
    polygons = polygonal(shapely.clip_by_rect(polygons, *box))
    is_other = layer_crs is not None and layer_crs != image_crs
    if is_other:
        diagonal = float(np.hypot(box[2] - box[0], box[3] - box[1]))
        polygons = shapely.segmentize(polygons, diagonal / _STEPS)
    inverse, length = ~affine(image), period(image_crs)

    def to_pixels(points: np.ndarray) -> np.ndarray:
        x, y = points[:, 0] - part.layer_shift, points[:, 1]
        if is_other:
            x, y = (np.asarray(v) for v in warp.transform(layer_crs, image_crs, x, y))
        if part.wraps:
            x = x - length * np.round((x - part.centre) / length)
        return np.round(np.stack(_apply(inverse, x + part.image_shift, y), axis=1) * _GRID) / _GRID

    transformed: np.ndarray = shapely.transform(polygons, to_pixels)
    return transformed
