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
from rasterio.transform import GCPTransformer

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
        t = rasterio.Affine(*info.transform)
        matrix = np.array([[t.a, t.d], [t.b, t.e]])
        return Placement(
            lambda xy: xy @ matrix + [t.c, t.f],
            lambda xy: (xy - [t.c, t.f]) @ np.linalg.inv(matrix),
            info.crs,
            "of the coordinate system, by the scene's transform",
        )
    points = control_points(info)
    if info.gcps_crs and len(points) > 2 and _worst_fit(points) <= _WORST_FIT:
        return Placement(
            partial(_by_points, points),
            partial(_to_pixels, points),
            info.gcps_crs,
            "by a polynomial through the control points",
        )
    return Placement(lambda xy: xy, lambda xy: xy, None, _PIXELS)


def _worst_fit(points: list[GroundControlPoint]) -> float:
    """Largest distance in pixels of a control point from the polynomial through all; infinite if there is none."""
    try:
        with GCPTransformer(points) as fit:
            rows, cols = fit.rowcol([p.x for p in points], [p.y for p in points], op=float)
    except (RasterioError, CPLE_BaseError, ValueError):
        return math.inf
    distances = np.hypot(rows - np.array([p.row for p in points]), cols - np.array([p.col for p in points]))
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
