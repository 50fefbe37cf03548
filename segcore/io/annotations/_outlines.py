"""Outlines of simple shapes as polygons x, y, x, y, ..., and of masks as runs of pixels."""

import numpy as np

from segcore.io.annotations._runs import Runs

# Corners of the polygon that stands for an ellipse: less than a thousandth of its area is lost.
_CORNERS = 128


def _turned(x: np.ndarray, y: np.ndarray, centre: tuple[float, float], degrees: float) -> list[float]:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turned = np.stack([centre[0] + cos * x - sin * y, centre[1] + sin * x + cos * y], axis=1)
    flat: list[float] = turned.ravel().tolist()
    return flat


def rectangle(left: float, top: float, right: float, bottom: float, degrees: float = 0) -> list[float]:
    """A rectangle, turned clockwise in the picture around its centre."""
    centre, x, y = ((left + right) / 2, (top + bottom) / 2), (right - left) / 2, (bottom - top) / 2
    return _turned(np.array([-x, x, x, -x]), np.array([-y, -y, y, y]), centre, degrees)


def ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0) -> list[float]:
    """An ellipse, turned clockwise in the picture around its centre."""
    angles = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    return _turned(radius_x * np.cos(angles), radius_y * np.sin(angles), (x, y), degrees)


def mask_runs(mask: np.ndarray, left: int, top: int, height: int, width: int) -> tuple[Runs, bool]:
    """Runs, column by column, of a mask that lies within an image or partly outside of it.

    Args:
        mask: (h, w) bool.
        left: column of its first pixel in the image.
        top: row of its first pixel in the image.
        height: of the image.
        width: of the image.

    Returns:
        Runs, and whether some of its pixels lie outside of the image.
    """
    rows, columns = np.nonzero(mask)
    rows, columns = rows + top, columns + left
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    pixels = np.sort(columns[inside] * height + rows[inside])
    first = np.flatnonzero(np.diff(pixels, prepend=-2) != 1)
    lengths = np.diff(np.append(first, len(pixels)))
    return (pixels[first], lengths), not bool(inside.all())
