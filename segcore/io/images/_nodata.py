"""Nodata values: which of them a band can hold, and where its pixels have them."""

import math
from collections.abc import Mapping

import numpy as np

from segcore.io.images._tiff_tags import NODATA, Tag

# A nodata value, or the lowest and highest of equal ones; None: none.
Nodata = int | float | tuple[float, float] | None
# Whole numbers up to this are exact as float64.
_EXACT = 2**53
# Floats above this are nodata by convention, and writers round them to six or seven digits.
_HUGE, _ROUNDING = 1e30, 1e-6


def fitting(value: float | None, dtype: np.dtype) -> Nodata:
    """The nodata value of a band as a value of its type; None if it has none, or none that the type can hold.

    Args:
        value: as the file declares it.
        dtype: of the band.
    """
    if value is None or not math.isfinite(value):
        return None
    if dtype.kind == "f":
        limit = float(np.finfo(dtype).max)
        if abs(value) > limit * (1 + _ROUNDING):
            return None
        if abs(value) > _HUGE:
            near = sorted((value * (1 - _ROUNDING), max(-limit, min(limit, value * (1 + _ROUNDING)))))
            return near[0], near[1]
        return float(value)
    limits = np.iinfo(dtype)
    if value != int(value) or not limits.min <= int(value) <= limits.max:
        return None
    return int(value)


def exact(tags: Mapping[int, Tag], value: float | None, dtype: np.dtype) -> float | int | None:
    """The nodata value of a 64-bit integer band of a TIFF, which GDAL's interface rounds or loses."""
    if dtype.kind not in "iu" or dtype.itemsize < 8:
        return value
    text = str(tags.get(NODATA, "")).strip("\0 ")
    try:
        whole = int(text) if text.lstrip("+-").isdecimal() else float(text)
    except ValueError:
        return value
    # Some writers round the limits of the type to float64.
    limits = np.iinfo(dtype)
    return next((int(n) for n in (limits.min, limits.max) if whole in (n, float(n))), whole)


def is_nodata(pixels: np.ndarray, nodata: list[Nodata]) -> np.ndarray:
    """Where pixel values mean no data, (height, width) bool.

    A pixel with nodata in only some bands is invalid if nodata cannot be a regular value. For 8-bit files, and for
    nodata of 0, it can, so there all bands must have it.

    Args:
        pixels: (bands, height, width).
        nodata: value of each band, from `fitting`.
    """
    floating = pixels.dtype.kind == "f"
    not_finite = ~np.isfinite(pixels).all(axis=0) if floating else np.zeros(pixels.shape[1:], bool)
    if all(value is None for value in nodata):
        return not_finite
    equal = np.stack([has_value(band, value) for band, value in zip(pixels, nodata, strict=True)])
    regular_value = pixels.dtype == np.uint8 or all(value in (0, None) for value in nodata)
    return not_finite | (equal.all(axis=0) if regular_value else equal.any(axis=0))


def has_value(band: np.ndarray, value: Nodata) -> np.ndarray:
    """Where pixels have a nodata value from `fitting`, bool of the same shape."""
    if value is None:
        return np.zeros(band.shape, bool)
    if isinstance(value, tuple):
        low, high = (band.dtype.type(end) for end in value)
        inside: np.ndarray = (band >= low) & (band <= high)
        return inside
    equal: np.ndarray = band == np.array(value).astype(band.dtype)
    return equal
