"""Area of the pixels of a scene on the ground."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.warp import transform

from segcore.data.raster import Info
from segcore.objects.canvas import SceneObjects, bands
from segcore.prediction.writers.placement import placement

# square metres
HECTARE = 10_000
# semi-major axis in metres and eccentricity of WGS 84
_AXIS, _ECCENTRICITY = 6_378_137.0, math.sqrt(0.00669437999014)
# most nodes along an axis at which areas are measured; between them they are interpolated
_NODES = 65
# most pixels between the points that are measured, so that rounding of coordinates does not matter
_APART = 16.0
# Areas on the map that differ from those on the ground by more are not used.
_DISTORTION = 0.01
# pixels that are handled at once
_PIXELS = 2**18


@dataclass(frozen=True)
class PixelAreas:
    """Areas of pixels, from those at nodes of a grid, between which they are linear along both axes.

    Attributes:
        rows: (R,) of the nodes, in pixels from the upper edge of the scene, ascending.
        cols: (C,) of the nodes, in pixels from its left edge, ascending.
        values: (R, C) square metres of a pixel at each node.
    """

    rows: np.ndarray
    cols: np.ndarray
    values: np.ndarray

    def at(self, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """(N,) square metres of pixels, given their rows and columns."""
        (above, down), (before, across) = _between(self.rows, rows), _between(self.cols, cols)
        below, after = np.minimum(above + 1, len(self.rows) - 1), np.minimum(before + 1, len(self.cols) - 1)
        left = self.values[above, before] * (1 - down) + self.values[below, before] * down
        right = self.values[above, after] * (1 - down) + self.values[below, after] * down
        areas: np.ndarray = left * (1 - across) + right * across
        return areas

    def total(self, top: int, left: int, mask: np.ndarray) -> float:
        """Square metres of the pixels of a mask (h, w) whose first pixel is at a row and a column."""
        if self.values.size == 1:
            return float(self.values[0, 0]) * int(np.count_nonzero(mask))
        cols, step, total = np.arange(mask.shape[1]) + left, max(1, _PIXELS // max(1, mask.shape[1])), 0.0
        for row in range(0, mask.shape[0], step):
            part = mask[row : row + step]
            if part.any():
                rows = np.arange(part.shape[0]) + (top + row)
                total += float(self.at(rows[:, None], cols[None])[part].sum())
        return total

    def of_objects(self, objects: SceneObjects) -> np.ndarray:
        """(N,) square metres of objects, from their middle pixel, and from all pixels of those beyond the next node."""
        areas: np.ndarray = objects.areas * self.at(*objects.points.T)
        steps = [np.inf if len(nodes) == 1 else nodes[1] - nodes[0] for nodes in (self.rows, self.cols)]
        for index in np.flatnonzero((objects.boxes[:, 2:] > steps).any(axis=1)):
            top, left, height, width = objects.boxes[index]
            numbers = objects.numbers[top : top + height, left : left + width]
            parts = (self.total(top + r.start, left, numbers[r] == index + 1) for r in bands((height, width)))
            areas[index] = sum(parts)
            objects.pause()
        return areas


def _between(nodes: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the node before the centre of each pixel, and how far it is from there to the next node, as a share."""
    if len(nodes) == 1:
        return np.zeros(pixels.shape, np.int64), np.zeros(pixels.shape)
    at = pixels + 0.5
    index = np.clip(nodes.searchsorted(at, side="right") - 1, 0, len(nodes) - 2)
    return index, (at - nodes[index]) / (nodes[index + 1] - nodes[index])


def pixel_areas(info: Info) -> PixelAreas | None:
    """Areas of the pixels of a scene; None without a position on the earth, or if control points do not fit.

    In a projected coordinate system, a pixel has the area that it has on the map, as in GIS programs, unless the
    projection distorts areas by more than 1 % somewhere in the scene, such as web Mercator. Then, and for degrees,
    areas are those on the ellipsoid WGS 84.
    """
    place = placement(info)
    if place.crs is None:
        return None
    (rows, tall), (cols, wide) = _nodes(info.height), _nodes(info.width)
    across, down = np.meshgrid(cols, rows)
    ends = [
        (across - wide / 2, down),
        (across + wide / 2, down),
        (across, down - tall / 2),
        (across, down + tall / 2),
    ]
    placed = [place.place(np.stack([x.ravel(), y.ravel()], axis=1)) for x, y in ends]
    ground = _on_ground(place.crs, np.stack(placed))
    if ground is None:
        return None
    areas = PixelAreas(rows, cols, ground.reshape(across.shape) / (tall * wide))
    system = CRS.from_user_input(place.crs)
    if system.is_projected:
        on_map = _on_map(info, placed, tall * wide) * system.linear_units_factor[1] ** 2
        if np.abs(areas.values / on_map - 1).max() <= _DISTORTION:
            return PixelAreas(rows[: on_map.shape[0]], cols[: on_map.shape[1]], on_map)
    return areas


def _on_map(info: Info, placed: Sequence[np.ndarray], pixels: float) -> np.ndarray:
    """Areas of a pixel in units of the map at the nodes, (R, C); (1, 1) if all are equal."""
    if info.transform is not None:
        return np.array([[abs(Affine(*info.transform).determinant)]])
    left, right, upper, lower = placed
    (x, y), (u, v) = (right - left).T, (lower - upper).T
    areas: np.ndarray = np.abs(x * v - y * u).reshape(len(_nodes(info.height)[0]), -1) / pixels
    return areas


def _nodes(size: int) -> tuple[np.ndarray, float]:
    """Nodes along an axis, and the distance of the points that are measured around each; all are in the scene."""
    apart = min(_APART, max(size / _NODES, 1.0))
    count = int(min(_NODES, size - apart + 1))
    return np.linspace(apart / 2, size - apart / 2, count) if count > 1 else np.array([size / 2]), apart


def _on_ground(crs: str, places: np.ndarray) -> np.ndarray | None:
    """Areas on the ellipsoid.

    Args:
        crs: coordinate system.
        places: (4, N, 2) coordinates: both ends of one diagonal of each area, and both of the other.

    Returns:
        (N,) square metres of parallelograms with sides as long and in the direction of the diagonals; None if places
        cannot be converted to degrees.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            degrees = transform(crs, "EPSG:4326", *places.reshape(-1, 2).T)
    except (RasterioError, CPLE_BaseError):
        return None
    longitudes, latitudes = np.radians(degrees[:2])
    if not (np.isfinite(longitudes).all() and np.isfinite(latitudes).all()):
        return None
    # on the sphere of the same area on which areas stay what they are
    sine = _authalic(np.sin(latitudes)) / _authalic(np.ones(1))
    cosine = np.sqrt(np.maximum(1 - sine**2, 0))
    points = np.stack([cosine * np.cos(longitudes), cosine * np.sin(longitudes), sine], axis=1)
    left, right, upper, lower = points.reshape(4, -1, 3)
    areas = np.linalg.norm(np.cross(right - left, lower - upper), axis=1)
    areas *= _AXIS**2 * _authalic(np.ones(1)) / 2
    return areas if (areas > 0).all() else None


def _authalic(sine: np.ndarray) -> np.ndarray:
    """Area between the equator and latitudes, given their sine, over pi times the squared semi-major axis."""
    e = _ECCENTRICITY
    area: np.ndarray = (1 - e**2) * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e)
    return area
