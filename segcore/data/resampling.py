"""Windows of an image on a grid of other pixels.

Towards larger pixels values are averaged with a triangular filter of two new pixels' width, towards smaller pixels they
are interpolated linearly, as Pillow's filter BILINEAR does.
"""

import math

import numpy as np

from segcore.constants import IGNORE
from segcore.data.raster import Window

# new pixels of an axis that are made at once
_PART = 128
# rows and columns
Size = tuple[int, int]
Steps = tuple[float, float]


def needed(first: int, count: int, step: float, size: int) -> tuple[int, int]:
    """Old pixels of one axis that new pixels are made of, as the first and the number of them.

    Args:
        first: of the new pixels, whose grid spans the same extent.
        count: number of new pixels.
        step: old pixels per new pixel.
        size: old pixels of the axis.
    """
    radius, last = max(step, 1.0), first + count - 1
    high = min(math.floor((last + 0.5) * step - 0.5 + radius), size - 1)
    # the lower limit can be beyond the last pixel of a grid whose extent was rounded up
    low = min(max(math.ceil((first + 0.5) * step - 0.5 - radius), 0), high)
    return low, high - low + 1


def filtered(values: np.ndarray, first: int, count: int, step: float, size: int) -> np.ndarray:
    """New pixels along the last axis, from the old pixels that are `needed`; other arguments as there."""
    start, _ = needed(first, count, step, size)
    made = np.empty((*values.shape[:-1], count), np.float32)
    # in parts, because the table of weights grows with their square
    for part in range(first, first + count, _PART):
        wide = min(_PART, first + count - part)
        low, many = needed(part, wide, step, size)
        centres = np.clip((np.arange(part, part + wide) + 0.5) * step - 0.5, 0, size - 1)
        distances = np.abs(np.arange(low, low + many)[:, None] - centres)
        weights = np.maximum(1 - distances / max(step, 1.0), 0)
        weights /= weights.sum(axis=0)
        old = values[..., low - start : low - start + many]
        made[..., part - first : part - first + wide] = old @ weights.astype(np.float32)
    return made


def filtered_window(values: np.ndarray, window: Window, steps: tuple[float, float], size: Size) -> np.ndarray:
    """A window (..., H, W) of the new grid, from the old pixels that are `needed` along both axes."""
    row, col, height, width = window
    across = filtered(np.ascontiguousarray(values, np.float32), col, width, steps[1], size[1])
    down = filtered(np.ascontiguousarray(across.swapaxes(-1, -2)), row, height, steps[0], size[0])
    return np.ascontiguousarray(down.swapaxes(-1, -2))


def needed_window(window: Window, steps: tuple[float, float], size: Size) -> Window:
    """The window of old pixels that a window of the new grid is made of."""
    row, col, height, width = window
    (top, tall), (left, wide) = needed(row, height, steps[0], size[0]), needed(col, width, steps[1], size[1])
    return top, left, tall, wide


def resized(values: np.ndarray, size: Size) -> np.ndarray:
    """Values (..., H, W) on a grid of `size` pixels of the same extent, float32 (..., *size)."""
    old = values.shape[-2], values.shape[-1]
    return filtered_window(values, (0, 0, *size), (old[0] / size[0], old[1] / size[1]), old)


def resized_pixels(image: np.ndarray, valid: np.ndarray, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and validity on a grid of `size` pixels of the same extent; invalid pixels have no influence.

    Args:
        image: (H, W, C).
        valid: (H, W) bool.
        size: rows and columns.

    Returns:
        (*size, C) float32, 0 where invalid, and validity (*size) bool.
    """
    sums = resized(np.moveaxis(image, -1, 0) * valid, size)
    share = resized(valid, size)
    there = share > 0
    return np.moveaxis(np.where(there, sums / np.where(there, share, 1), 0), 0, -1), there


def resized_labels(label: np.ndarray, size: Size) -> np.ndarray:
    """Labels (H, W) uint8 on a grid of `size` pixels: the class of the largest share, as nnU-Net resamples them.

    Ignored pixels count as a class of their own.
    """
    names = np.unique(label)
    if len(names) == 1:
        return np.full(size, names[0], np.uint8)
    best, out = np.full(size, -1.0, np.float32), np.full(size, IGNORE, np.uint8)
    for name in names:
        share = resized(label == name, size)
        larger = share > best
        best, out = np.where(larger, share, best), np.where(larger, name, out)
    return out


def new_size(size: Size, steps: Steps) -> Size:
    """Rows and columns of the grid with `steps` old pixels per new pixel, at least one of each."""
    return max(1, round(size[0] / steps[0])), max(1, round(size[1] / steps[1]))
