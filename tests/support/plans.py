"""Fingerprints of datasets, as `segcore.planning.fingerprint` measures them."""

from typing import Any


def facts(**over: Any) -> dict[str, Any]:
    """Of 40 pictures of 512 pixels with squares of 60 pixels, `over` in place of some."""
    values: dict[str, Any] = {
        "items": 40,
        "planes": 40,
        "groups": 40,
        "independent": 40,
        "has_splits": False,
        "height": [512.0, 512.0, 512.0],
        "width": [512.0, 512.0, 512.0],
        "depth": [1.0, 1.0, 1.0],
        "volumes": False,
        "positioned": False,
        "bands": 3,
        "dtype": "uint8",
        "pixel_sizes": {},
        "pixels": 10_000_000,
        "class_shares": {"background": 0.8, "square": 0.2},
        "values": {},
        "structures": {"square": {"width": 40.0, "side": 60.0, "count": 500}},
    }
    return values | over
