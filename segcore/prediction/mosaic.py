"""Overlapping windows blended into a scene of any size, in bounded memory.

Windows and weights are those of `segcore.inference.tiling`, so that a scene is predicted as in the evaluation. Windows
are processed in panels of columns, each from top to bottom. One row of windows of one panel is in memory, on a CPU two;
the `overlap` columns that neighbouring panels have in common are stored in a temporary file.
"""

import math
import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segcore.inference.device import autocast
from segcore.inference.tiling import of_classes
from segcore.models.base.model import SegmentationModel
from segcore.prediction.grid import Grid
from segcore.prediction.strips import Strip
from segcore.prediction.workers import Jobs, two_at_a_time

# Pixels per batch of windows: larger batches are slower on a CPU, and no faster on a GPU.
_BATCH_PIXELS = {"cpu": 2**19, "cuda": 2**22}
# what gives the scores (N, K, H, W) of windows
Scores = Jobs[Tensor]


@dataclass(frozen=True)
class Block:
    """A finished rectangle of a plane.

    Attributes:
        plane: its index.
        row, col: of its first pixel.
        scores: (K, H, W) float32 on the model's device, mean probabilities or logits; overwritten by the next block.
        valid: (H, W) bool; None if all are valid.
        windows: number of windows that were predicted for it.
        touching: (H, W) float32 probability that a pixel is near two objects, on the model's device; None for a model
            without that output.
    """

    plane: int
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

    def blocks(self, strips: Iterator[Strip], depth: int = 1) -> Generator[Block, None, None]:
        """Rectangles that cover each pixel of each plane once, plane by plane, panel by panel from top to bottom.

        Args:
            strips: from `strips` or `strips_of_planes`, in its order.
            depth: number of planes.
        """
        panels = [panel for _ in range(depth) for panel in self.grid.panels for _ in self.grid.rows]
        # not strict: no strip is taken after the last plane
        planned = ((strip, self._jobs(strip, panel)) for panel, strip in zip(panels, strips, strict=False))
        batches = len(self.grid) * depth // self.batch
        with closing(two_at_a_time(planned, self.device, batches)) as rows:
            for plane in range(depth):
                for number in range(len(self.grid.panels)):
                    yield from self._of_panel(plane, number, rows)

    def _of_panel(self, plane: int, number: int, rows: Iterator[tuple[Strip, Scores]]) -> Iterator[Block]:
        panel = self.grid.panels[number]
        left, width, unshared = self.grid.extent(panel)
        total = torch.zeros(self.model.outputs, self.grid.tall, width, device=self.device)
        for index, row in enumerate(self.grid.rows):
            (strip, scores), done = next(rows), self.grid.done_rows(index)
            self._add(total, scores, left, index)
            self._exchange(total[:, :done], row, number, unshared)
            valid = None if strip.valid is None else strip.valid[:done, :unshared]
            classes, touching = self._separated(total[:, :done, :unshared])
            yield Block(plane, row, left, classes, valid, panel[1] - panel[0], touching)
            rest = total[:, done:].clone()
            total[:, : rest.shape[1]] = rest
            total[:, rest.shape[1] :] = 0

    def _jobs(self, strip: Strip, panel: tuple[int, int]) -> Scores:
        """What predicts the windows of a strip, batch by batch; windows without a valid pixel are left out."""
        batches = self.grid.batches(panel, strip.valid, self.batch)
        return [(windows, partial(self._scores, strip, areas)) for windows, areas in batches]

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
    def _add(self, total: Tensor, predicted: Scores, left: int, index: int) -> None:
        """Add the weighted scores of the windows of a strip."""
        for windows, scores in predicted:
            for j, score in zip(windows, scores(), strict=True):
                weight = self.down[index][:, None] * self.across[j]
                at = self.grid.cols[j] - left
                total[:, :, at : at + self.grid.wide].addcmul_(score, weight)

    @torch.inference_mode()
    def _scores(self, strip: Strip, areas: list[slice]) -> Tensor:
        """(N, K, H, W) float32 probabilities or logits of windows."""
        images, valid = strip.windows(areas, self.device)
        with autocast(self.device, self.precision):
            logits: Tensor = self.model(images, valid).float()
        return logits.softmax(dim=1) if self.blend == "probabilities" else logits


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
