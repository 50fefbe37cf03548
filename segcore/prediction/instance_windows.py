"""Objects of the windows of a scene by an instance network, stitched together window by window.

Windows are those of `segcore.inference.objects.predict_objects`, so that a scene is predicted as in the evaluation.
They are processed row by row, so that objects at the edges of windows are complete, and leave memory, after the next
row; a row is read in panels of columns.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial

import numpy as np
import torch
from torch import Tensor

from segcore.inference.device import Precision, autocast
from segcore.inference.objects import windows_per_pass
from segcore.io.bands import Declared
from segcore.models.base.instance import InstanceModel
from segcore.objects.found import Objects
from segcore.objects.stitching import Stitcher, Whole
from segcore.objects.windows import Windows
from segcore.prediction import mosaic
from segcore.prediction.instance_store import InstanceStore
from segcore.prediction.resampling import Resampled, mask_back, validity
from segcore.prediction.scene_windows import ReadPlane


def grid_of(
    model: InstanceModel, height: int, width: int, tile: int, overlap: int, columns: int
) -> mosaic.Grid:
    """The windows of a plane; if results depend on the place in a window, no window is smaller than `tile`.

    Args:
        model: that predicts them.
        height: of the plane in pixels.
        width: of the plane in pixels.
        tile: side of the windows in pixels.
        overlap: of neighbouring windows in pixels.
        columns: width of a panel in pixels.
    """
    least = tile if model.is_position_dependent else 0
    return mosaic.Grid(max(height, least), max(width, least), tile, overlap, columns)


def find_objects(
    model: InstanceModel,
    scene: Declared | Resampled,
    read: ReadPlane,
    grid: mosaic.Grid,
    precision: Precision,
    store: InstanceStore,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Find the objects of all planes of a scene.

    Args:
        model: on its device, in evaluation mode.
        scene: as it is read.
        read: reads windows of it as the model's input.
        grid: from `grid_of`.
        precision: "fp32" or "bf16".
        store: takes the objects, and which pixels have data.
        progress: called with the number of windows done and their total.

    Raises:
        DataError: from `read`.
    """
    depth, done = scene.info.depth, 0
    if (grid.height, grid.width) != (scene.info.height, scene.info.width):
        read = partial(_filled_up, read, (scene.info.height, scene.info.width))
    strips = _strips(grid, depth, read)
    with closing(strips), closing(mosaic.ahead(strips)) as upcoming:
        for plane in range(depth):
            finder = _Plane(model, grid, precision, store, plane, scene)
            for i in range(len(grid.rows)):
                for panel in grid.panels:
                    finder.add(i, panel, next(upcoming))
                    done += panel[1] - panel[0]
                    progress(done, len(grid) * depth)
            finder.stitcher.finish()


class _Plane:
    """Predicts the windows of a plane, and adds their objects to the store."""

    def __init__(
        self,
        model: InstanceModel,
        grid: mosaic.Grid,
        precision: Precision,
        store: InstanceStore,
        plane: int,
        scene: Declared | Resampled,
    ) -> None:
        self._model, self._grid, self._precision = model, grid, precision
        self._store, self._plane, self._scene = store, plane, scene
        self._device = next(model.parameters()).device
        windows = Windows(grid.height, grid.width, grid.rows, grid.cols, grid.tall, grid.wide)
        self._paint = store.canvas(plane).paint
        self._is_resampled = isinstance(scene, Resampled)
        if isinstance(scene, Resampled):
            for row, col, valid in validity(scene, plane):
                store.exclude(plane, row, col, valid)
        self.stitcher = Stitcher(windows, self._paint_back if self._is_resampled else self._paint)

    def add(self, i: int, panel: tuple[int, int], strip: mosaic.Strip) -> None:
        """Add the windows of a panel of a row; those without a valid pixel are not predicted."""
        grid, first = self._grid, self._grid.cols[panel[0]]
        if strip.valid is not None and not self._is_resampled:
            info = self._scene.info
            valid = strip.valid[: info.height - grid.rows[i], : info.width - first]
            self._store.exclude(self._plane, grid.rows[i], first, valid)
        areas = {j: slice(grid.cols[j] - first, grid.cols[j] - first + grid.wide) for j in range(*panel)}
        used = [j for j in areas if strip.valid is None or strip.valid[:, areas[j]].any()]
        for j in areas.keys() - set(used):
            self.stitcher.add(i, j, Objects(grid.tall, grid.wide))
        at_once = windows_per_pass(self._device, self._precision, self.stitcher.windows)
        for start in range(0, len(used), at_once):
            chosen = used[start : start + at_once]
            for j, found in zip(chosen, self._found(strip, [areas[j] for j in chosen]), strict=True):
                self.stitcher.add(i, j, found)

    def _found(self, strip: mosaic.Strip, areas: list[slice]) -> list[Objects]:
        images = self._stacked(strip.pixels, areas).float()
        valid = None if strip.valid is None else self._stacked(strip.valid, areas)
        with autocast(self._device, self._precision):
            return self._model.predict(images, valid)

    def _stacked(self, array: np.ndarray, areas: list[slice]) -> Tensor:
        return torch.stack([torch.from_numpy(array[..., area]).to(self._device) for area in areas])

    def _paint_back(self, whole: Whole) -> None:
        """Add an object of the resampled scene on the scene's own grid; it can have no pixel there."""
        assert isinstance(self._scene, Resampled)
        parts = []
        for row, col, mask in whole.parts:
            top, left, own = mask_back(self._scene, row, col, mask)
            own &= self._store.has_data(self._plane, top, left, *own.shape)
            if own.any():
                parts.append(_tight(top, left, own))
        if parts:
            self._paint(Whole(whole.class_index, whole.score, parts))


def _tight(row: int, col: int, mask: np.ndarray) -> tuple[int, int, np.ndarray]:
    """A mask without empty rows and columns at its edges."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return row + int(rows[0]), col + int(cols[0]), mask[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]


def _strips(grid: mosaic.Grid, depth: int, read: ReadPlane) -> Generator[mosaic.Strip, None, None]:
    """The windows of all planes, row by row, each row in panels."""
    if len(grid.panels) == 1:
        # reads no pixel twice
        yield from mosaic.strips_of_planes(grid, depth, read)
        return
    for plane in range(depth):
        yield from _rows(grid, partial(read, plane=plane))


def _rows(grid: mosaic.Grid, read: mosaic.ReadWindow) -> Iterator[mosaic.Strip]:
    for row in grid.rows:
        for panel in grid.panels:
            left, width, _ = grid.extent(panel)
            yield mosaic.Strip.of(*read((row, left, grid.tall, width)))


def _filled_up(
    read: ReadPlane, size: tuple[int, int], window: tuple[int, int, int, int], plane: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Read a window that can reach beyond a scene of this size, with pixels there that are not valid."""
    row, col, height, width = window
    tall, wide = min(height, size[0] - row), min(width, size[1] - col)
    pixels, valid = read((row, col, tall, wide), plane)
    beyond = ((0, height - tall), (0, width - wide))
    return np.pad(pixels, ((0, 0), *beyond)), np.pad(valid, beyond)
