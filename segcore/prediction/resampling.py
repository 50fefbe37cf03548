"""Scenes resampled to the pixel size of the training images, and their scores resampled back to the scene's own grid.

Both are done window by window. Towards larger pixels values are averaged with a triangular filter of two new pixels'
width, towards smaller pixels they are interpolated linearly, as Pillow's filter BILINEAR does.
"""

import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from segcore.data.raster import Window
from segcore.io.bands import Declared
from segcore.prediction.mosaic import Block

# pixels of the scene that are read at once
_PIECE = 2**22
# side in pixels of the blocks in which scores are resampled back
_BLOCK = 512


class _BlockWriter(Protocol):
    def put(self, plane: int, block: Block) -> None: ...


def filter_weights(first: int, count: int, step: float, size: int) -> tuple[int, np.ndarray]:
    """Weights of one axis for pixels `first` to `first + count` of a new grid that spans the same extent.

    Args:
        first: of the new pixels.
        count: number of new pixels.
        step: old pixels per new pixel.
        size: old pixels of the axis.

    Returns:
        The first old pixel that is needed, and (count, needed pixels) float32 weights, whose rows sum to 1.
    """
    radius = max(step, 1.0)
    centres = (np.arange(first, first + count) + 0.5) * step - 0.5
    low = max(math.ceil(centres[0] - radius), 0)
    high = min(math.floor(centres[-1] + radius), size - 1)
    # beyond the last pixel of a grid whose extent was rounded up
    low = min(low, high)
    distance = np.abs(np.arange(low, high + 1)[None] - np.clip(centres, 0, size - 1)[:, None])
    weights = np.maximum(1 - distance / radius, 0)
    return low, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


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
        # of the rounded size, so that both grids have the same extent
        self.steps = info.height / self.height, info.width / self.width
        self.info = replace(
            info,
            height=self.height,
            width=self.width,
            dtype="float32",
            block=None,
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
        block, most = self.source.info.block, _PIECE / (self.steps[0] * self.steps[1])
        # rows that are stored as a whole are decoded as a whole
        is_striped = block is not None and block[1] >= self.source.info.width
        cols = width if is_striped else min(width, max(1, int(most**0.5)))
        rows = max(1, int(most / cols))
        for top in range(row, row + height, rows):
            for left in range(col, col + width, cols):
                yield top, left, min(rows, row + height - top), min(cols, col + width - left)

    def _piece(self, window: Window, plane: int) -> tuple[np.ndarray, np.ndarray]:
        row, col, height, width = window
        top, down = filter_weights(row, height, self.steps[0], self.source.info.height)
        left, across = filter_weights(col, width, self.steps[1], self.source.info.width)
        pixels, valid = self.source.read((top, left, down.shape[1], across.shape[1]), plane)
        if valid.all():
            return down @ pixels.astype(np.float32) @ across.T, np.ones((height, width), bool)
        share = down @ valid.astype(np.float32) @ across.T
        # `Declared` gives 0 where invalid
        sums = down @ pixels.astype(np.float32) @ across.T
        return np.where(share > 0, sums / np.where(share > 0, share, 1), 0), share > 0


class ScoreStore:
    """Collects the scores of one plane on the new grid, and passes them on to a writer on the scene's own grid.

    Args:
        scene: the resampled scene.
        writer: of blocks on the scene's own grid.
        classes: number of scores per pixel.
        scratch: folder for the temporary file; None: in memory.

    Raises:
        OSError: the temporary file could not be written.
    """

    def __init__(self, scene: Resampled, writer: _BlockWriter, classes: int, scratch: Path | None) -> None:
        self._scene, self._writer, self._plane = scene, writer, 0
        shape = (classes, scene.height, scene.width)
        if scratch is None:
            self._scores = np.zeros(shape, np.float32)
        else:
            # The file has no name and is deleted with its last reference.
            with tempfile.TemporaryFile(dir=scratch) as file:
                # a full disk is an error here, and would be a signal when the mapped memory is written
                os.posix_fallocate(file.fileno(), 0, 4 * math.prod(shape))
                self._scores = np.memmap(file, np.float32, "w+", shape=shape)

    def put(self, plane: int, block: Block) -> None:
        """Add a block of the new grid; planes come one after the other."""
        if plane != self._plane:
            self.finish()
            self._plane = plane
        scores = block.scores.cpu().numpy()
        rows = slice(block.row, block.row + scores.shape[1])
        self._scores[:, rows, block.col : block.col + scores.shape[2]] = scores

    def finish(self) -> None:
        """Pass the scores of the last plane on, with the validity of the scene's own pixels."""
        info = self._scene.source.info
        for row in range(0, info.height, _BLOCK):
            for col in range(0, info.width, _BLOCK):
                window = (row, col, min(_BLOCK, info.height - row), min(_BLOCK, info.width - col))
                _, valid = self._scene.source.read(window, self._plane)
                scores = torch.from_numpy(self._back(window))
                self._writer.put(self._plane, Block(row, col, scores, None if valid.all() else valid, 0))

    def _back(self, window: Window) -> np.ndarray:
        row, col, height, width = window
        steps = [1 / step for step in self._scene.steps]
        top, down = filter_weights(row, height, steps[0], self._scene.height)
        left, across = filter_weights(col, width, steps[1], self._scene.width)
        scores = self._scores[:, top : top + down.shape[1], left : left + across.shape[1]]
        back: np.ndarray = down @ scores @ across.T
        return back
