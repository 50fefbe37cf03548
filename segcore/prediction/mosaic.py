"""Overlapping windows blended into a scene of any size, in bounded memory.

Windows and weights are those of `segcore.inference.tiling`, so that a scene is predicted as in the evaluation. Windows
are processed in panels of columns, each from top to bottom. One row of windows of one panel is in memory; the `overlap`
columns that neighbouring panels have in common are stored in a temporary file.
"""

import math
import os
import tempfile
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from segcore.data.raster import Window
from segcore.inference.device import autocast
from segcore.inference.tiling import blend_weights, of_classes, tile_starts
from segcore.models.base.model import SegmentationModel

T = TypeVar("T")
# returns pixels (C, H, W) and validity (H, W)
ReadWindow = Callable[[Window], tuple[np.ndarray, np.ndarray]]
# dtypes of pixels that torch supports; others are converted to float32
_TORCH_DTYPES = ("uint8", "int16", "int32", "float32")
# Pixels per batch of windows: larger batches are slower on a CPU, and no faster on a GPU.
_BATCH_PIXELS = {"cpu": 2**19, "cuda": 2**22}


class Grid:
    """The windows of a plane, their weights, and the panels in which they are processed.

    Args:
        height: of the plane in pixels.
        width: of the plane in pixels.
        tile: side of the windows in pixels; a plane smaller than a window is one window.
        overlap: of neighbouring windows in pixels.
        max_columns: width of a panel in pixels; a panel can be up to one window wider.

    Raises:
        ParamsError: the overlap is more than half a tile.
    """

    def __init__(self, height: int, width: int, tile: int, overlap: int, max_columns: int) -> None:
        self.height, self.width, self.overlap = height, width, overlap
        self.rows, self.cols = tile_starts(height, tile, overlap), tile_starts(width, tile, overlap)
        self.tall, self.wide = min(tile, height), min(tile, width)
        self.down = normalized_weights(self.rows, self.tall, height, overlap)
        self.across = normalized_weights(self.cols, self.wide, width, overlap)
        self.panels = panels(self.cols, self.wide, max_columns)

    def __len__(self) -> int:
        return len(self.rows) * len(self.cols)

    def done_rows(self, index: int) -> int:
        """Number of rows of a row of windows that no later row of windows covers."""
        return (self.rows[index + 1] if index + 1 < len(self.rows) else self.height) - self.rows[index]

    def extent(self, panel: tuple[int, int]) -> tuple[int, int, int]:
        """First column of a panel, its width, and the width that no later panel covers."""
        first, end = panel
        left, right = self.cols[first], self.cols[end - 1] + self.wide
        return left, right - left, (self.cols[end] if end < len(self.cols) else right) - left


def normalized_weights(starts: list[int], size: int, length: int, overlap: int) -> list[np.ndarray]:
    """(size,) float32 weights of each window along one axis; they sum to 1 at every pixel."""
    last = len(starts) - 1
    weights = [blend_weights(size, overlap, i == 0, i == last) for i in range(len(starts))]
    total = np.zeros(length, np.float32)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + size] += weight
    return [w / total[s : s + size] for s, w in zip(starts, weights, strict=True)]


def panels(starts: list[int], wide: int, max_columns: int) -> list[tuple[int, int]]:
    """Half-open ranges (first, end) of the windows of each panel.

    The last two windows can overlap by more than the others and share a panel, so that panels overlap by `overlap`.
    """
    borders = [0]
    for index in range(1, len(starts) - 1):
        if starts[index] + wide - starts[borders[-1]] > max_columns:
            borders.append(index)
    return list(zip(borders, [*borders[1:], len(starts)], strict=True))


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
        return cls(_supported(pixels), None if valid.all() else valid)


def _supported(pixels: np.ndarray) -> np.ndarray:
    """Pixels in a dtype that torch supports."""
    return pixels if pixels.dtype.name in _TORCH_DTYPES else pixels.astype(np.float32)


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


@dataclass(frozen=True)
class Block:
    """A finished rectangle of a plane.

    Attributes:
        row, col: of its first pixel.
        scores: (K, H, W) float32 on the model's device, mean probabilities or logits; overwritten by the next block.
        valid: (H, W) bool; None if all are valid.
        windows: number of windows that were predicted for it.
        touching: (H, W) float32 probability that a pixel is near two objects, on the model's device; None for a model
            without that output.
    """

    row: int
    col: int
    scores: Tensor
    valid: np.ndarray | None
    windows: int
    touching: Tensor | None = None


class Mosaic:
    """Predicts the windows of a grid and blends their scores.

    Args:
        model: on its device, in evaluation mode.
        grid: of the plane.
        blend: "probabilities", averaged after the softmax, or "logits", averaged before it.
        precision: "fp32" or "bf16".
        scratch: folder for the temporary file; None if there is only one panel.

    Raises:
        OSError: the temporary file could not be written.
    """

    def __init__(
        self, model: SegmentationModel, grid: Grid, blend: str, precision: str, scratch: Path | None
    ) -> None:
        self.model, self.grid, self.blend, self.precision = model, grid, blend, precision
        self.device = next(model.parameters()).device
        self.batch = max(1, _BATCH_PIXELS.get(self.device.type, 2**20) // (grid.tall * grid.wide))
        self.down, self.across = (
            [torch.from_numpy(w).to(self.device) for w in weights] for weights in (grid.down, grid.across)
        )
        self._shared_columns: np.ndarray | None = None
        if len(grid.panels) > 1 and grid.overlap:
            # The file has no name and is deleted with its last reference.
            with tempfile.TemporaryFile(dir=scratch) as file:
                shape = (grid.height, model.outputs, grid.overlap)
                # a full disk is an error here, and would be a signal when the mapped memory is written
                os.posix_fallocate(file.fileno(), 0, 4 * math.prod(shape))
                self._shared_columns = np.memmap(file, np.float32, "w+", shape=shape)

    def blocks(self, strips: Iterator[Strip]) -> Iterator[Block]:
        """Rectangles that cover each pixel of the plane once, panel by panel from top to bottom.

        Args:
            strips: from the function `strips`, in its order.
        """
        for number, panel in enumerate(self.grid.panels):
            left, width, unshared = self.grid.extent(panel)
            total = torch.zeros(self.model.outputs, self.grid.tall, width, device=self.device)
            for index, row in enumerate(self.grid.rows):
                strip, done = next(strips), self.grid.done_rows(index)
                self._add(total, strip, panel, index)
                self._exchange(total[:, :done], row, number, unshared)
                valid = None if strip.valid is None else strip.valid[:done, :unshared]
                scores, touching = self._separated(total[:, :done, :unshared])
                yield Block(row, left, scores, valid, panel[1] - panel[0], touching)
                rest = total[:, done:].clone()
                total[:, : rest.shape[1]] = rest
                total[:, rest.shape[1] :] = 0

    def _separated(self, scores: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores of the classes, and the probability of touching objects."""
        if not self.model.touching:
            return scores, None
        if self.blend == "probabilities":
            return of_classes(scores[:-1]), scores[-1]
        return scores[:-1], scores.softmax(dim=0)[-1]

    def _exchange(self, rows: Tensor, row: int, number: int, unshared: int) -> None:
        """Add the shared columns that the previous panel stored, and store those for the next panel."""
        if self._shared_columns is None:
            return
        stored = self._shared_columns[row : row + rows.shape[1]]
        if number > 0:
            rows[:, :, : self.grid.overlap] += torch.from_numpy(stored.transpose(1, 0, 2)).to(self.device)
        if number + 1 < len(self.grid.panels):
            stored[:] = rows[:, :, unshared:].cpu().numpy().transpose(1, 0, 2)

    @torch.inference_mode()
    def _add(self, total: Tensor, strip: Strip, panel: tuple[int, int], index: int) -> None:
        """Predict the windows of a strip and add their weighted scores; windows without a valid pixel are skipped."""
        left, wide = self.grid.cols[panel[0]], self.grid.wide
        areas = {j: slice(self.grid.cols[j] - left, self.grid.cols[j] - left + wide) for j in range(*panel)}
        used = [j for j in areas if strip.valid is None or strip.valid[:, areas[j]].any()]
        for first in range(0, len(used), self.batch):
            chosen = used[first : first + self.batch]
            scores = self._scores(strip, [areas[j] for j in chosen])
            for j, score in zip(chosen, scores, strict=True):
                weight = self.down[index][:, None] * self.across[j]
                total[:, :, areas[j]].addcmul_(score, weight)

    def _scores(self, strip: Strip, areas: list[slice]) -> Tensor:
        """(N, K, H, W) float32 probabilities or logits of windows."""
        images = self._stacked(strip.pixels, areas).float()
        valid = None if strip.valid is None else self._stacked(strip.valid, areas)
        with autocast(self.device, self.precision):
            logits: Tensor = self.model(images, valid).float()
        return logits.softmax(dim=1) if self.blend == "probabilities" else logits

    def _stacked(self, array: np.ndarray, areas: list[slice]) -> Tensor:
        parts = [torch.from_numpy(array[..., area]) for area in areas]
        return torch.stack([part.to(self.device) for part in parts])


def probabilities(scores: Tensor, blend: str) -> Tensor:
    """(K, H, W) float32 probabilities of blended scores."""
    return scores if blend == "probabilities" else scores.softmax(dim=0)


def classes(scores: Tensor) -> Tensor:
    """(H, W) uint8 index of the highest of the scores (K, H, W); the first of equal ones, as argmax.

    One comparison per class: torch.argmax along the first axis takes many times as long.
    """
    index_of_best = (scores[1] > scores[0]).view(torch.uint8)
    best = torch.maximum(scores[0], scores[1]) if len(scores) > 2 else scores[1]
    for index in range(2, len(scores)):
        index_of_best.masked_fill_(scores[index] > best, index)
        best = torch.maximum(best, scores[index])
    return index_of_best
