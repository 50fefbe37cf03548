"""Rows of windows, read from a scene ahead of their use."""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from segcore.data.raster import Window
from segcore.prediction.grid import Grid

T = TypeVar("T")
# returns pixels (C, H, W) and validity (H, W)
ReadWindow = Callable[[Window], tuple[np.ndarray, np.ndarray]]
# dtypes of pixels that torch supports; others are converted to float32
_TORCH_DTYPES = ("uint8", "int16", "int32", "float32")


@dataclass(frozen=True)
class Strip:
    """Pixels of one row of windows of a panel.

    Attributes:
        pixels: (C, H, W), raw.
        valid: (H, W) bool; None if all are valid.
    """

    pixels: np.ndarray
    valid: np.ndarray | None

    @classmethod
    def of(cls, pixels: np.ndarray, valid: np.ndarray) -> "Strip":
        """From pixels (C, H, W) of any dtype and their validity (H, W)."""
        return cls(_supported(pixels), None if valid.all() else _forward(valid))

    def windows(
        self, areas: Sequence[slice], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Pixels (N, C, H, W) float32 and validity (N, H, W) of some of its columns, on a device."""
        valid = None if self.valid is None else _stacked(self.valid, areas, device)
        return _stacked(self.pixels, areas, device).float(), valid


def _stacked(array: np.ndarray, areas: Sequence[slice], device: torch.device) -> torch.Tensor:
    return torch.stack([torch.from_numpy(array[..., area]).to(device) for area in areas])


def _supported(pixels: np.ndarray) -> np.ndarray:
    """Pixels in a dtype that torch supports."""
    pixels = _forward(pixels)
    return pixels if pixels.dtype.name in _TORCH_DTYPES else pixels.astype(np.float32)


def _forward(array: np.ndarray) -> np.ndarray:
    """An array without negative strides, which torch does not take; a turned axis of one pixel has one."""
    return array.copy() if min(array.strides) < 0 else array


def strips(grid: Grid, read: ReadWindow) -> Iterator[Strip]:
    """Read every row of windows of every panel; within a panel no pixel is read twice.

    Raises:
        DataError: from `read`.
    """
    for panel in grid.panels:
        left, width, _ = grid.extent(panel)
        previous: tuple[np.ndarray, np.ndarray] | None = None
        for index, row in enumerate(grid.rows):
            bottom = grid.rows[index - 1] + grid.tall if previous is not None else row
            pixels, valid = read((bottom, left, row + grid.tall - bottom, width))
            pixels = _supported(pixels)
            if previous is not None and bottom > row:
                pixels = np.concatenate([previous[0][:, row - bottom :], pixels], axis=1)
                valid = np.concatenate([previous[1][row - bottom :], valid])
            previous = (pixels, valid)
            yield Strip.of(pixels, valid)


def strips_of_planes(
    grid: Grid, depth: int, read: Callable[..., tuple[np.ndarray, np.ndarray]]
) -> Generator[Strip, None, None]:
    """`strips` of every plane, one plane after the other."""
    for plane in range(depth):
        yield from strips(grid, partial(read, plane=plane))


def ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """Yield the items (none may be None); a thread makes the next one while the current one is used."""
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = pool.submit(next, items, None)
            yield item
