"""Zones in the pixels of a scene."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from rasterio._err import CPLE_BaseError, CPLE_NotSupportedError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform

from segcore.data.raster import Info
from segcore.errors import DataError
from segcore.io.crs import same_on_map, short_name
from segcore.prediction.writers.placement import Placement, placement
from segcore.prediction.zones import Zones, polygonal

# edges of zones are divided into at least as many parts of the zone's size, before they are converted
_PARTS = 64
# points of a scene, in rows and columns, whose coordinates tell where it is, and the margin around them as a fraction
_POINTS, _MARGIN = 17, 0.05
# of a zone without a pixel of the scene
_NOWHERE = shapely.Polygon()


def in_pixels(zones: Zones, info: Info) -> tuple[list[Any], int]:
    """Zones in pixels (column, row) of a scene.

    Zones are clipped to the surroundings of the scene before they are converted, since a zone may contain places that
    its coordinate system has and that of the scene has not. Longitudes are counted on beyond 180 degrees.

    Args:
        zones: from `read_zones`.
        info: of the scene.

    Returns:
        Polygons and multipolygons, empty where a zone has no pixel of the scene; and the number of zones that cannot be
        converted, which are empty too.

    Raises:
        DataError: zones and scene cannot be put into one coordinate system.
    """
    place = placement(info)
    if zones.crs is not None and place.crs is None:
        raise DataError(
            f"the scene has no coordinate system, the zones of {zones.name} have {short_name(zones.crs)}",
            "give the scene its coordinate system, or count without predict.count_by",
        )
    if place.crs is None:
        pieces = [[shape] for shape in zones.shapes]
    else:
        pieces = _Surroundings(zones, place, info).pieces(zones.shapes)
    scene, found, failed = shapely.box(0, 0, info.width, info.height), [], 0
    for of_zone in pieces:
        moved = [shapely.transform(piece, place.find) for piece in of_zone]
        # of what cannot be converted, the coordinates are no numbers
        finite = [s for s in moved if np.isfinite(shapely.get_coordinates(s)).all()]
        failed += len(finite) < len(moved)
        usable = [s for s in map(polygonal, finite) if s is not None and s.intersects(scene)]
        if len(finite) < len(moved) or not usable:
            found.append(_NOWHERE)
        else:
            found.append(usable[0] if len(usable) == 1 else polygonal(shapely.union_all(usable)))
    return found, failed


class _Surroundings:
    """Where a scene is in the coordinate system of zones."""

    def __init__(self, zones: Zones, place: Placement, info: Info) -> None:
        assert place.crs is not None
        self._target, self._source = place.crs, zones.crs or place.crs
        self._is_alike = same_on_map(self._source, self._target)
        middle = np.array([[info.width / 2, info.height / 2]])
        # longitude of the scene's middle, as the scene counts it
        self._longitude = float(place.place(middle)[0, 0]) if _has_degrees(self._target) else None
        size = np.array([info.width, info.height])
        fractions = np.linspace(-_MARGIN, 1 + _MARGIN, _POINTS)
        grid = np.stack(np.meshgrid(fractions, fractions), axis=-1).reshape(-1, 2)
        points = self._in_zones(place.place(np.vstack([middle, grid * size])))
        points = points[np.isfinite(points).all(axis=1)]
        if not len(points):
            raise DataError(
                f"the zones of {zones.name} are in {short_name(self._source)}, to which that of the scene, "
                f"{short_name(self._target)}, cannot be converted",
                f"convert the zones to {short_name(self._target)}, such as in QGIS, or count without predict.count_by",
            )
        self._has_degrees = _has_degrees(self._source)
        center = points[0, 0]
        if self._has_degrees:
            if self._longitude is not None:
                center = _near(center, self._longitude)
            points[:, 0] = _near(points[:, 0], center)
        low, high = points.min(axis=0), points.max(axis=0)
        margin = _MARGIN * (high - low)
        bounds = [*(low - margin), *(high + margin)]
        if self._has_degrees:
            bounds = self._with_poles(bounds, center, place, size)
        self._box = shapely.box(*bounds)

    def _in_zones(self, xy: np.ndarray) -> np.ndarray:
        return xy if self._is_alike else _converted(xy, self._target, self._source)

    def _with_poles(
        self, bounds: Sequence[float], center: float, place: Placement, size: np.ndarray
    ) -> list[float]:
        """Bounds in degrees that contain each pole that is in the scene, around which all longitudes are."""
        west, south, east, north = bounds
        for pole in (-90.0, 90.0):
            xy = np.array([[center, pole]])
            pixel = place.find(xy if self._is_alike else _converted(xy, self._source, self._target))
            if ((pixel >= -_MARGIN * size) & (pixel <= (1 + _MARGIN) * size)).all():
                west, east = min(west, center - 180), max(east, center + 180)
                south, north = min(south, pole), max(north, pole)
        return [west, south, east, north]

    def pieces(self, shapes: np.ndarray) -> list[list[Any]]:
        """Parts of each zone near the scene, in the coordinate system of the scene."""
        found: list[list[Any]] = [[] for _ in shapes]
        for shift in (0.0, -360.0, 360.0) if self._has_degrees else (0.0,):
            moved = (
                shapely.transform(shapes, lambda xy, by=shift: xy + np.array([by, 0])) if shift else shapes
            )
            for number in np.flatnonzero(shapely.intersects(moved, self._box)):
                # without conversion, edges stay exactly what they are
                whole = moved[number]
                piece = whole if self._is_alike else polygonal(shapely.intersection(whole, self._box))
                if piece is not None:
                    found[number].append(piece if self._is_alike else self._in_scene(piece))
        return found

    def _in_scene(self, piece: Any) -> Any:
        # straight edges are curves in another system
        size = np.ptp(np.reshape(piece.bounds, (2, 2)), axis=0).max()
        return shapely.transform(shapely.segmentize(piece, size / _PARTS), self._convert)

    def _convert(self, xy: np.ndarray) -> np.ndarray:
        converted = _converted(xy, self._source, self._target)
        if self._longitude is not None:
            converted[:, 0] = _near(converted[:, 0], xy[:, 0] if self._has_degrees else self._longitude)
        return converted


def _has_degrees(crs: str) -> bool:
    try:
        return bool(CRS.from_user_input(crs).is_geographic)
    except CRSError:
        return False


def _near(longitudes: Any, others: Any) -> Any:
    """Longitudes, counted on so that they differ by at most half a turn from others."""
    return longitudes + 360 * np.round((others - longitudes) / 360)


def _converted(xy: np.ndarray, source: str, target: str) -> np.ndarray:
    """Coordinates in another system; not finite where it has no such place."""
    try:
        return np.stack(transform(source, target, xy[:, 0], xy[:, 1])[:2], axis=1)
    except (CRSError, CPLE_NotSupportedError):
        return np.full(xy.shape, np.nan)
    except (RasterioError, CPLE_BaseError):
        # one such place is an error for all
        if len(xy) == 1:
            return np.full(xy.shape, np.nan)
        half = len(xy) // 2
        return np.vstack([_converted(part, source, target) for part in (xy[:half], xy[half:])])
