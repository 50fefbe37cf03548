"""Coordinates of the pixels of a scene."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.errors import RasterioError
from rasterio.transform import GCPTransformer, from_gcps

from segcore.data.raster import Info
from segcore.prediction.writers.cog import control_points

# Pixels that a control point may be off, for polygons to be placed by a polynomial through all of them.
_WORST_FIT = 1.0
_PIXELS = (
    "pixels (column, row), because the scene has no transform that fits: x grows to the right, y grows downwards, "
    "and (0, 0) is the upper left corner of the upper left pixel"
)


class Placement(NamedTuple):
    """How pixels (column, row) become coordinates, and the reverse.

    Attributes:
        place: (N, 2) pixels to (N, 2) coordinates.
        find: (N, 2) coordinates to (N, 2) pixels.
        crs: of the coordinates; None: none.
        text: what the coordinates are.
    """

    place: Callable[[np.ndarray], np.ndarray]
    find: Callable[[np.ndarray], np.ndarray]
    crs: str | None
    text: str


def placement(info: Info) -> Placement:
    """How pixels of a scene become coordinates."""
    if info.transform is not None:
        transform = rasterio.Affine(*info.transform)
        return _by_transform(transform, info.crs, "of the coordinate system, by the scene's transform")
    points = control_points(info)
    if info.gcps_crs and len(points) > 2:
        polynomial = Placement(
            partial(_by_points, points),
            partial(_to_pixels, points),
            info.gcps_crs,
            "by a polynomial through the control points",
        )
        if _worst_fit(points, polynomial) <= _WORST_FIT:
            return polynomial
        # points in two lines determine no polynomial of a higher order
        straight = _straight(points, info.gcps_crs)
        if straight is not None and _worst_fit(points, straight) <= _WORST_FIT:
            return straight
    return Placement(lambda xy: xy, lambda xy: xy, None, _PIXELS)


def _by_transform(transform: rasterio.Affine, crs: str | None, text: str) -> Placement:
    matrix = np.array([[transform.a, transform.d], [transform.b, transform.e]])
    origin = [transform.c, transform.f]
    return Placement(
        lambda xy: xy @ matrix + origin, lambda xy: (xy - origin) @ np.linalg.inv(matrix), crs, text
    )


def _straight(points: list[GroundControlPoint], crs: str) -> Placement | None:
    """By the affine transform that fits control points best; None if there is none."""
    pixels = np.array([(p.col, p.row) for p in points])
    if np.linalg.matrix_rank(pixels - pixels.mean(axis=0), tol=1.0) < 2:
        return None
    transform = from_gcps(points)
    if not np.isfinite(transform).all() or transform.is_degenerate:
        return None
    return _by_transform(transform, crs, "by an affine transform that fits the control points")


def _worst_fit(points: list[GroundControlPoint], place: Placement) -> float:
    """Largest distance in pixels of a control point from its place; infinite if there is none."""
    try:
        found = place.find(np.array([(p.x, p.y) for p in points]))
    except (RasterioError, CPLE_BaseError, ValueError):
        return math.inf
    distances = np.hypot(*(found - [(p.col, p.row) for p in points]).T)
    return float(distances.max()) if np.isfinite(distances).all() else math.inf


def _by_points(points: list[GroundControlPoint], xy: np.ndarray) -> np.ndarray:
    if len(xy) == 0:
        return xy
    with GCPTransformer(points) as fit:
        # from corners of pixels, as `xy` counts them
        return np.stack(fit.xy(xy[:, 1], xy[:, 0], offset="ul"), axis=1)


def _to_pixels(points: list[GroundControlPoint], xy: np.ndarray) -> np.ndarray:
    if len(xy) == 0:
        return xy
    with GCPTransformer(points) as fit:
        rows, cols = fit.rowcol(xy[:, 0], xy[:, 1], op=float)
    return np.stack([np.asarray(cols), np.asarray(rows)], axis=1)
