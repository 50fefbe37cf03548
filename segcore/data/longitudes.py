"""Longitudes of images in degrees, which may reach past 180 or count from 0 to 360."""

from functools import lru_cache


@lru_cache(maxsize=1000)
def in_degrees(crs: str | None) -> bool:
    """Whether coordinates of a system are longitude and latitude in degrees."""
    from math import pi

    from rasterio import CRS
    from rasterio.errors import CRSError

    if not crs:
        return False
    try:
        system = CRS.from_user_input(crs)
        return bool(system.is_geographic) and abs(system.units_factor[1] - pi / 180) < 1e-9
    except CRSError:
        return False


def within_turn(longitude: float) -> float:
    """The same longitude from -180 to below 180; unchanged if it is there already."""
    return longitude if -180 <= longitude < 180 else (longitude + 180) % 360 - 180
