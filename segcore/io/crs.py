"""Coordinate reference systems: which are the same on the map, and their short names."""

import json
from functools import lru_cache
from typing import Any

from rasterio.crs import CRS
from rasterio.errors import CRSError


@lru_cache(maxsize=256)
def _parsed(text: str) -> tuple[CRS | None, bool]:
    """Horizontal part of a system, longitude first, and whether it also had heights; None for an unknown system."""
    try:
        crs = CRS.from_user_input(text)
        content: dict[str, Any] = crs.to_dict(projjson=True)
        parts = content.get("components", [content])
        horizontal = parts[0].get("source_crs", parts[0])
        # Local systems are equal to rasterio whatever their names.
        if horizontal["type"] == "EngineeringCRS":
            return None, False
        axes = horizontal["coordinate_system"]["axis"]
        has_heights = len(parts) > 1 or len(axes) > 2
        if horizontal["type"] == "GeographicCRS":
            horizontal["coordinate_system"]["axis"] = sorted(axes[:2], key=lambda axis: axis["direction"])
            horizontal.pop("id", None)
        elif len(axes) > 2:
            horizontal["coordinate_system"]["axis"] = axes[:2]
            horizontal.pop("id", None)
        is_changed = has_heights or horizontal["type"] == "GeographicCRS"
        return (CRS.from_user_input(json.dumps(horizontal)) if is_changed else crs), has_heights
    except (CRSError, KeyError, TypeError, ValueError):
        return None, False


def has_heights(text: str) -> bool:
    """Whether a system (EPSG:... or WKT) has a vertical part."""
    return _parsed(text)[1]


@lru_cache(maxsize=1024)
def same_on_map(a: str, b: str) -> bool:
    """Whether two systems (EPSG:... or WKT) are the same apart from heights, names, authorities and axis order."""
    if a == b:
        return True
    first, second = _parsed(a)[0], _parsed(b)[0]
    if first is None or second is None:
        return False
    return bool(first == second) or (first.to_epsg() is not None and first.to_epsg() == second.to_epsg())


def short_name(text: str) -> str:
    """Code "EPSG:..." of a system, else its name."""
    try:
        crs = CRS.from_user_input(text)
        code = crs.to_epsg()
        return f"EPSG:{code}" if code else f"{crs.to_dict(projjson=True)['name']!r}"
    except (CRSError, KeyError):
        return repr(text[:60])
