"""Scenes resampled to the pixel size of the training images, and their scores resampled back to the scene's own grid.

Both are done window by window, with the filter of `segcore.data.resampling`.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from segcore.data.raster import Window
from segcore.data.resampling import filtered_window, needed_window
from segcore.data.scratch import ScratchArray
from segcore.io.bands import Declared
from segcore.prediction.mosaic import Block

# pixels of the scene that are read at once
_PIECE = 2**22
# side in pixels of the blocks in which scores are resampled back
_BLOCK = 512
# share of a pixel that is in a mask, from which on the pixel is
_LEAST_SHARE = 0.5


class _BlockWriter(Protocol):
    def put(self, block: Block) -> None: ...


class Resampled:
    """A scene on a grid of other pixels, with the interface of `segcore.io.bands.Declared`.

    Args:
        source: the scene.
        steps: pixels of the scene per new pixel, along planes, rows and columns. Planes themselves stay as they are.

    Attributes:
        info: header on the new grid, without position.
        plane_step: distance, in planes of the scene, of the planes that count as neighbours.
    """

    def __init__(self, source: Declared, steps: tuple[float, float, float]) -> None:
        self.source, info = source, source.info
        self.plane_step = steps[0]
        self.height, self.width = (
            max(1, round(size / step))
            for size, step in zip((info.height, info.width), steps[1:], strict=True)
        )
        # rows that are stored as a whole are decoded as a whole
        self._is_striped = info.block is not None and info.block[1] >= info.width
        # of the rounded size, so that both grids have the same extent
        self.steps = info.height / self.height, info.width / self.width
        self.info = replace(
            info,
            height=self.height,
            width=self.width,
            dtype="float32",
            block=(1, self.width) if self._is_striped else None,
            transform=None,
            affine=None,
            canonical=None,
            spacing=None,
        )

    def read(self, window: Window, plane: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (C, H, W) float32, 0 where invalid, and validity (H, W) bool; invalid pixels have no influence."""
        row, col, height, width = window
        pixels = np.zeros((self.info.bands, height, width), np.float32)
        valid = np.zeros((height, width), bool)
        for top, left, rows, cols in self._pieces(window):
            at = (slice(top - row, top - row + rows), slice(left - col, left - col + cols))
            pixels[:, *at], valid[at] = self._piece((top, left, rows, cols), plane)
        return pixels, valid

    def _pieces(self, window: Window) -> Iterator[Window]:
        """Parts of a window for which a limited number of the scene's pixels is read."""
        row, col, height, width = window
        most = _PIECE / (self.steps[0] * self.steps[1])
        cols = width if self._is_striped else min(width, max(1, int(most**0.5)))
        rows = max(1, int(most / cols))
        for top in range(row, row + height, rows):
            for left in range(col, col + width, cols):
                yield top, left, min(rows, row + height - top), min(cols, col + width - left)

    def _piece(self, window: Window, plane: int) -> tuple[np.ndarray, np.ndarray]:
        size = self.source.info.height, self.source.info.width
        pixels, valid = self.source.read(needed_window(window, self.steps, size), plane)
        # `Declared` gives 0 where invalid
        sums = filtered_window(pixels, window, self.steps, size)
        if valid.all():
            return sums, np.ones(sums.shape[1:], bool)
        share = filtered_window(valid, window, self.steps, size)
        return np.where(share > 0, sums / np.where(share > 0, share, 1), 0), share > 0


class ScoreStore:
    """Collects the scores of one plane on the new grid, and passes them on to a writer on the scene's own grid.

    Args:
        scene: the resampled scene.
        writer: of blocks on the scene's own grid.
        classes: number of scores per pixel.
        touching: whether blocks have the probability of touching objects.
        scratch: folder for the temporary file; None: in memory.

    Raises:
        OSError: the temporary file could not be written.
    """

    def __init__(
        self, scene: Resampled, writer: _BlockWriter, classes: int, touching: bool, scratch: Path | None
    ) -> None:
        self._scene, self._writer, self._plane, self._classes = scene, writer, 0, classes
        # that of touching objects is the last one
        self._store = ScratchArray((classes + touching, scene.height, scene.width), np.float32, scratch)
        self._scores = self._store.values

    def put(self, block: Block) -> None:
        """Add a block of the new grid; planes come one after the other."""
        if block.plane != self._plane:
            self.finish()
            self._plane = block.plane
        scores = block.scores.cpu().numpy()
        rows = slice(block.row, block.row + scores.shape[1])
        cols = slice(block.col, block.col + scores.shape[2])
        self._scores[: self._classes, rows, cols] = scores
        if block.touching is not None:
            self._scores[self._classes, rows, cols] = block.touching.cpu().numpy()
        self._store.free_memory()

    def finish(self) -> None:
        """Pass the scores of the last plane on, with the validity of the scene's own pixels."""
        for row, col, valid in validity(self._scene, self._plane):
            scores = torch.from_numpy(self._back((row, col, *valid.shape)))
            touching = scores[self._classes] if len(scores) > self._classes else None
            mask = None if valid.all() else valid
            self._writer.put(Block(self._plane, row, col, scores[: self._classes], mask, 0, touching))
            self._store.free_memory()

    def _back(self, window: Window) -> np.ndarray:
        steps = 1 / self._scene.steps[0], 1 / self._scene.steps[1]
        size = self._scene.height, self._scene.width
        row, col, height, width = needed_window(window, steps, size)
        scores = self._scores[:, row : row + height, col : col + width]
        return filtered_window(scores, window, steps, size)


def validity(scene: Resampled, plane: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Blocks of a plane of a scene on its own grid: first row, first column, and validity (h, w) of the pixels."""
    info = scene.source.info
    for row in range(0, info.height, _BLOCK):
        for col in range(0, info.width, _BLOCK):
            window = (row, col, min(_BLOCK, info.height - row), min(_BLOCK, info.width - col))
            yield row, col, scene.source.read(window, plane)[1]


def mask_back(scene: Resampled, row: int, col: int, mask: np.ndarray) -> tuple[int, int, np.ndarray]:
    """A mask of the new grid on the scene's own grid: the pixels of which it has at least half.

    Args:
        scene: the resampled scene.
        row: of the mask's first pixel.
        col: of the mask's first pixel.
        mask: (h, w) bool.

    Returns:
        First row and column on the scene's own grid, and the mask there, which can be empty.
    """
    info = scene.source.info
    top, tall = _centred(row, mask.shape[0], scene.steps[0], info.height)
    left, wide = _centred(col, mask.shape[1], scene.steps[1], info.width)
    if not tall or not wide:
        return top, left, np.zeros((tall, wide), bool)
    steps, size = (1 / scene.steps[0], 1 / scene.steps[1]), (scene.height, scene.width)
    old = needed_window((top, left, tall, wide), steps, size)
    rows, cols = (np.arange(first, first + count) for first, count in zip(old[:2], old[2:], strict=True))
    # with the pixels around the mask, which are not in it
    around = np.pad(mask, 1)
    inside = (
        np.clip(index - first + 1, 0, count + 1)
        for index, first, count in zip((rows, cols), (row, col), mask.shape, strict=True)
    )
    share = filtered_window(around[np.ix_(*inside)], (top, left, tall, wide), steps, size)
    return top, left, share >= _LEAST_SHARE


def _centred(first: int, count: int, step: float, size: int) -> tuple[int, int]:
    """Pixels of an axis of `size` pixels with their centre in new pixels: the first and the number of them."""
    low = max(math.ceil(first * step - 0.5), 0)
    return low, max(min(math.floor((first + count) * step - 0.5), size - 1) - low + 1, 0)
