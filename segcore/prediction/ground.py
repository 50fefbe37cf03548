"""Area of the pixels of a scene on the ground."""

import math
import warnings

import numpy as np
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import Affine, from_gcps
from rasterio.warp import transform

from segcore.data.raster import Info

# semi-major axis in metres and squared eccentricity of WGS 84
_AXIS, _ECCENTRICITY = 6_378_137.0, 0.00669437999014
# rows at which areas are measured; between them they are interpolated
_MEASURED = 65
# pixels between the points that are measured, so that rounding of coordinates does not matter
_APART = 16
# Areas on the map that differ from those on the ground by more are not used.
_DISTORTION = 0.01


def pixel_areas(info: Info) -> np.ndarray | None:
    """Area in square metres of a pixel of each row, (H,); None without a position on the earth.

    In a projected coordinate system, a pixel has the area that it has on the map, as in GIS programs, unless the
    projection distorts areas by more than 1 % there, such as web Mercator. Then, and for degrees, areas are those on
    the ellipsoid WGS 84 in the middle of the row.
    """
    crs, place = info.crs, None if info.transform is None else Affine(*info.transform)
    if place is None and info.gcps and len(info.gcps) > 2:
        points = [GroundControlPoint(row, col, x, y, z) for row, col, x, y, z in info.gcps]
        crs, place = info.gcps_crs, from_gcps(points)
    if crs is None or place is None:
        return None
    ground = _on_ground(crs, place, info)
    if ground is None:
        return None
    system = CRS.from_user_input(crs)
    if system.is_projected:
        on_map = abs(place.determinant) * system.linear_units_factor[1] ** 2
        if np.abs(ground / on_map - 1).max() <= _DISTORTION:
            return np.full(info.height, on_map)
    return ground


def _on_ground(crs: str, place: Affine, info: Info) -> np.ndarray | None:
    """(H,) area of pixels on the ellipsoid; None if their place cannot be converted to degrees."""
    rows = np.linspace(0, info.height, min(_MEASURED, info.height + 1))
    col = info.width / 2
    measured = [(col + x, rows + y) for x, y in ((0, 0), (_APART, 0), (0, _APART))]
    cols, lines = (np.concatenate([pair[axis] + np.zeros(len(rows)) for pair in measured]) for axis in (0, 1))
    xs = place.a * cols + place.b * lines + place.c
    ys = place.d * cols + place.e * lines + place.f
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            degrees = transform(crs, "EPSG:4326", xs, ys)
    except RasterioError:
        return None
    longitudes, latitudes = (np.radians(values).reshape(3, -1) for values in degrees[:2])
    if not (np.isfinite(longitudes).all() and np.isfinite(latitudes).all()):
        return None
    east = np.remainder(longitudes[1:] - longitudes[0] + math.pi, math.tau) - math.pi
    north = latitudes[1:] - latitudes[0]
    radians = np.abs(east[0] * north[1] - east[1] * north[0]) / _APART**2
    curve = 1 - _ECCENTRICITY * np.sin(latitudes[0]) ** 2
    # product of the radii of curvature along the meridian and across it
    areas = radians * np.cos(latitudes[0]) * _AXIS**2 * (1 - _ECCENTRICITY) / curve**2
    if not (areas > 0).all():
        return None
    found: np.ndarray = np.interp(np.arange(info.height) + 0.5, rows, areas)
    return found
