"""Outline of a scene on the earth, in degrees."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import shapely
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform

from segcore.data.raster import Info
from segcore.prediction.writers.placement import Placement
from segcore.prediction.zones import polygonal

_WGS84 = "EPSG:4326"
# points along each side of the outline, since straight sides may be curves in degrees
_POINTS = 20
# nine decimals of a degree are a tenth of a millimetre
_DECIMALS = 9
# Narrower parts, in degrees, on the other side of the antimeridian are left out: coordinates of an edge on it are
# rounded. Smaller than half a pixel where pixels are.
_NARROW = 1e-6


class Footprint(NamedTuple):
    """Outline of a scene.

    Attributes:
        geometry: Polygon or MultiPolygon of GeoJSON, divided at the antimeridian.
        bounds: west, south, east, north; west is larger than east if the outline crosses the antimeridian.
    """

    geometry: dict[str, Any]
    bounds: list[float]


def footprint(place: Placement, info: Info) -> Footprint | None:
    """Outline of a scene; None if it has no position on the earth, or cannot be converted."""
    if place.crs is None:
        return None
    system = CRS.from_user_input(place.crs)
    if not (system.is_geographic or system.is_projected):
        # geocentric coordinates and those of a building site
        return None
    try:
        found = np.array(transform(system, _WGS84, *_outline(place, info).T))
    except (RasterioError, CPLE_BaseError):
        return None
    if not np.isfinite(found).all():
        return None
    longitudes, latitudes = found
    if (np.abs(latitudes).max() - 90) * info.height > np.ptp(latitudes):
        # beyond a pole by more than a pixel; grids of pixel centres on the poles are beyond by half a pixel
        return None
    ring = _ring(longitudes, latitudes.clip(-90, 90))
    shape = polygonal(shapely.Polygon(np.round(ring, _DECIMALS)))
    return None if shape is None else _divided(shape, info.width)


def _outline(place: Placement, info: Info) -> np.ndarray:
    """(N, 2) coordinates of the outline, counterclockwise as GeoJSON has it."""
    corners = np.array([(0, 0), (0, info.height), (info.width, info.height), (info.width, 0)], float)
    shares = np.linspace(0, 1, _POINTS, endpoint=False)[:, None]
    sides = zip(corners, np.roll(corners, -1, axis=0), strict=True)
    outline = place.place(np.concatenate([start + (end - start) * shares for start, end in sides]))
    x, y = outline.T
    is_clockwise = np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)) < 0
    return outline[::-1] if is_clockwise else outline


def _ring(longitudes: np.ndarray, latitudes: np.ndarray) -> list[tuple[float, float]]:
    """A counterclockwise outline as a ring without jumps of 360 degrees, which therefore may go beyond 180."""
    is_pole = np.abs(latitudes) > 90 - 10.0**-_DECIMALS
    # several in a row are a side along the pole, with longitudes
    is_pole &= ~np.roll(is_pole, 1) & ~np.roll(is_pole, -1)
    first = int(np.argmin(is_pole))
    order = np.roll(np.arange(len(longitudes)), -first)
    ring = [(float(longitudes[first]), float(latitudes[first]))]
    pole: float | None = None
    for index in [*order[1:], first]:
        longitude, latitude = float(longitudes[index]), float(latitudes[index])
        if is_pole[index]:
            pole = latitude
            continue
        last = ring[-1][0]
        step = (longitude - last + 180) % 360 - 180
        if abs(step) > 180 - _NARROW:
            # the side goes over a pole between two points
            pole = math.copysign(90, latitude)
        if pole is not None:
            # The inside is on the left, which is west of a way to the north pole, and east of one to the south pole.
            step = -((last - longitude) % 360) if pole > 0 else (longitude - last) % 360
            ring += [(last, pole), (last + step, pole)]
            pole = None
        ring.append((last + step, latitude))
    turned = ring[-1][0] - ring[0][0]
    if abs(turned) > 180:
        # around a pole, which is on the left
        pole = 90.0 if turned > 0 else -90.0
        ring += [(ring[-1][0], pole), (ring[0][0], pole)]
    return ring


def _divided(shape: Any, width: int) -> Footprint:
    """A footprint from a polygon whose longitudes may go beyond 180 degrees.

    Args:
        shape: the polygon.
        width: of the scene in pixels.
    """
    west, south, east, north = shape.bounds
    narrow = min(_NARROW, (east - west) / width / 2)
    turns = range(int((west + 180) // 360), int((east + 180) // 360) + 1)
    cut = {
        turn: polygonal(shape & shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90)) for turn in turns
    }
    parts = {
        turn: np.round(np.subtract(part.bounds[::2], 360 * turn), _DECIMALS)
        for turn, part in cut.items()
        if part is not None and part.bounds[2] - part.bounds[0] >= narrow
    }
    moved = [
        shapely.transform(cut[turn], lambda xy, by=360 * turn: np.round(xy - [by, 0], _DECIMALS))
        for turn in parts
    ]
    polygons = [shapely.geometry.polygon.orient(polygon) for polygon in _polygons(shapely.union_all(moved))]
    first, last = min(parts), max(parts)
    left, right = float(parts[first][0]), float(parts[last][1])
    if right - left + 360 * (last - first) >= 360:
        left, right = -180.0, 180.0
    geometry = polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)
    return Footprint(shapely.geometry.mapping(geometry), [left, float(south), right, float(north)])


def _polygons(shape: Any) -> Iterator[Any]:
    yield from shape.geoms if isinstance(shape, shapely.MultiPolygon) else [shape]
