"""Size of a pixel on the ground, and spacing of the voxels of a volume."""

import json
import math
import warnings
from collections.abc import Mapping
from typing import Any

from segcore.data.raster import Info

# mean radius of the earth in metres
_RADIUS = 6_371_008.8
# pixels between the points that are measured, so that rounding of coordinates does not matter
_APART = 16


def ground_resolution(info: Info) -> float | None:
    """Side of a pixel on the ground in metres, at the centre of an image; None without a position on the earth.

    For pixels that are no squares, the side of a square of their area. Coordinate systems in degrees and feet and
    those that stretch towards the poles (web Mercator) give metres on the ground as well, and control points by the
    affine transform that fits them best.
    """
    from rasterio._err import CPLE_BaseError
    from rasterio.control import GroundControlPoint
    from rasterio.errors import RasterioError
    from rasterio.transform import from_gcps
    from rasterio.warp import transform

    crs, place = info.crs, info.transform
    if place is None and info.gcps and len(info.gcps) > 2:
        points = [GroundControlPoint(row, col, x, y, z) for row, col, x, y, z in info.gcps]
        crs, place = info.gcps_crs, tuple(from_gcps(points))
    if crs is None or place is None:
        return None
    a, b, c, d, e, f = place[:6]
    measured = [(info.width / 2 + x, info.height / 2 + y) for x, y in ((0, 0), (_APART, 0), (0, _APART))]
    xs = [a * col + b * row + c for col, row in measured]
    ys = [d * col + e * row + f for col, row in measured]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            degrees = transform(crs, "EPSG:4326", xs, ys)
    except (RasterioError, CPLE_BaseError):
        return None
    longitudes, latitudes = (list(map(math.radians, values)) for values in degrees[:2])
    if not all(map(math.isfinite, [*longitudes, *latitudes])):
        return None
    east = [
        math.remainder(x - longitudes[0], math.tau) * math.cos(latitudes[0]) * _RADIUS for x in longitudes[1:]
    ]
    north = [(y - latitudes[0]) * _RADIUS for y in latitudes[1:]]
    area = abs(east[0] * north[1] - east[1] * north[0]) / _APART**2
    return math.sqrt(area) if area > 0 else None


def pixel_sizes(info: Info) -> dict[str, float]:
    """What is known of the size of a pixel: "m" on the ground; "mm: planes", "mm: rows", "mm: columns" of a volume."""
    if info.spacing is not None:
        axes = ("planes", "rows", "columns")
        return {f"mm: {axis}": float(size) for axis, size in zip(axes, info.spacing, strict=True) if size > 0}
    side = ground_resolution(info)
    return {} if side is None else {"m": side}


def pixel_sizes_of(row: Mapping[str, Any]) -> dict[str, float]:
    """`pixel_sizes` of an item of the catalogue or of the prepared data, whose transform and spacing are JSON."""
    transform, spacing = json.loads(row["transform"]), json.loads(row["spacing"])
    return pixel_sizes(
        Info(
            height=int(row["height"]),
            width=int(row["width"]),
            bands=int(row["bands"]),
            dtype=str(row["dtype"]),
            crs=row["crs"] if isinstance(row["crs"], str) else None,
            transform=tuple(transform) if transform else None,
            spacing=tuple(spacing) if spacing else None,
        )
    )
