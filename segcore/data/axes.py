"""Orders of planes, rows and columns: how the stored array of an image became the one that is read.

An order has, for planes, rows and columns as read, the stored axis that they run along (1 planes, 2 rows, 3 columns),
negative where they run backwards: (1, 2, -3) is mirrored from left to right. A volume of (i, j, k) is stored as planes
along k, rows along j and columns along i.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from segcore.data.raster import Order, Window

AS_STORED: Order = (1, 2, 3)
Size = tuple[int, int, int]
# reads a window of a plane as arrays (..., height, width), or None
Reader = Callable[[Window, int], tuple[Any, ...]]


def inverse(order: Order) -> Order:
    """The order that leads back."""
    back = [0, 0, 0]
    for number, axis in enumerate(order, 1):
        back[abs(axis) - 1] = number if axis > 0 else -number
    return back[0], back[1], back[2]


def composed(first: Order, second: Order) -> Order:
    """The order of an array that is turned by `first`, and the result by `second`."""
    axes = [first[abs(axis) - 1] * (1 if axis > 0 else -1) for axis in second]
    return axes[0], axes[1], axes[2]


def size_in(size: Size, order: Order) -> Size:
    """Planes, rows and columns of an array of `size` that is turned by `order`."""
    planes, rows, columns = (size[abs(axis) - 1] for axis in order)
    return planes, rows, columns


def turned(array: np.ndarray, order: Order) -> np.ndarray:
    """View of an array (planes, rows, columns, ...) that is turned by `order`."""
    axes = [abs(axis) - 1 for axis in order]
    array = array.transpose(*axes, *range(3, array.ndim))
    return array[tuple(slice(None, None, 1 if axis > 0 else -1) for axis in order)]


class TurnedReader:
    """Reads windows of an array that is turned by an order.

    Windows are read one by one where planes stay planes; else the first call reads everything.

    Args:
        read: reads windows of the array as it is before.
        order: how it is turned.
        size: planes, rows and columns before.
    """

    def __init__(self, read: Reader, order: Order, size: Size) -> None:
        self._read, self._order, self._before = read, order, size
        self._after = size_in(size, order)
        self._whole: list[np.ndarray | None] | None = None

    def __call__(self, window: Window, plane: int = 0) -> tuple[Any, ...]:
        """Arrays (..., height, width) of a window of a plane after turning."""
        if abs(self._order[0]) != 1:
            return self._from_whole(window, plane)
        starts, lengths = [plane, *window[:2]], [1, *window[2:]]
        area = [(0, 0)] * 3
        for axis, start, length, size in zip(self._order, starts, lengths, self._after, strict=True):
            area[abs(axis) - 1] = (start if axis > 0 else size - start - length, length)
        before = (area[1][0], area[2][0], area[1][1], area[2][1])
        arrays = self._read(before, area[0][0])
        return tuple(a if a is None else _turned_plane(a, self._order) for a in arrays)

    def _from_whole(self, window: Window, plane: int) -> tuple[Any, ...]:
        if self._whole is None:
            planes, rows, columns = self._before
            parts = [self._read((0, 0, rows, columns), p) for p in range(planes)]
            self._whole = [
                None
                if arrays[0] is None
                else turned(np.moveaxis(np.stack(arrays), (-2, -1), (1, 2)), self._order)
                for arrays in zip(*parts, strict=True)
            ]
        row, column, height, width = window
        area = (plane, slice(row, row + height), slice(column, column + width))
        return tuple(
            a if a is None else np.ascontiguousarray(np.moveaxis(a[area], (0, 1), (-2, -1)))
            for a in self._whole
        )


def _turned_plane(array: np.ndarray, order: Order) -> np.ndarray:
    """Array (..., height, width) turned by an order whose planes stay planes."""
    if abs(order[1]) == 3:
        array = array.swapaxes(-2, -1)
    rows, columns = (slice(None, None, 1 if axis > 0 else -1) for axis in order[1:])
    return np.ascontiguousarray(array[..., rows, columns])
