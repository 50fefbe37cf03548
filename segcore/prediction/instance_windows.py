"""Objects of the windows of a scene by an instance network, stitched together window by window.

Windows are those of `segcore.inference.objects.predict_objects`, so that a scene is predicted as in the evaluation.
They are processed row by row, so that objects at the edges of windows are complete, and leave memory, after the next
row; a row is read in panels of columns.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial

import numpy as np

from segcore.inference.device import Precision, autocast
from segcore.inference.objects import windows_per_pass
from segcore.io.bands import Declared
from segcore.models.base.instance import InstanceModel
from segcore.objects.found import Objects
from segcore.objects.stitching import Stitcher, Whole
from segcore.objects.windows import Windows
from segcore.prediction.grid import Grid
from segcore.prediction.instance_store import InstanceStore
from segcore.prediction.resampling import Resampled, mask_back, validity
from segcore.prediction.scene_windows import ReadPlane
from segcore.prediction.strips import ReadWindow, Strip, ahead, strips_of_planes
from segcore.prediction.workers import Jobs, two_at_a_time


def grid_of(model: InstanceModel, height: int, width: int, tile: int, overlap: int, columns: int) -> Grid:
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
    return Grid(max(height, least), max(width, least), tile, overlap, columns)


def windows_in(grid: Grid) -> Windows:
    """The windows of a grid, as they are stitched."""
    return Windows(grid.height, grid.width, grid.rows, grid.cols, grid.tall, grid.wide)


def find_objects(
    model: InstanceModel,
    scene: Declared | Resampled,
    read: ReadPlane,
    grid: Grid,
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
    depth, done, total = scene.info.depth, 0, len(grid) * scene.info.depth
    if (grid.height, grid.width) != (scene.info.height, scene.info.width):
        read = partial(_filled_up, read, (scene.info.height, scene.info.width))
    network = _Network(model, grid, precision)
    panels = [panel for _ in range(depth) for _ in grid.rows for panel in grid.panels]
    strips = _strips(grid, depth, read)
    with closing(strips), closing(ahead(strips)) as upcoming:
        planned = ((strip, network.jobs(strip, panel)) for panel, strip in zip(panels, upcoming, strict=True))
        with closing(two_at_a_time(planned, network.device, total // network.at_once)) as rows:
            for plane in range(depth):
                finder = _Plane(grid, store, plane, scene)
                for i in range(len(grid.rows)):
                    for panel in grid.panels:
                        finder.add(i, panel, *next(rows))
                        done += panel[1] - panel[0]
                        progress(done, total)
                    store.free_memory()
                finder.stitcher.finish()


class _Network:
    """Predicts windows, several in a forward pass."""

    def __init__(self, model: InstanceModel, grid: Grid, precision: Precision) -> None:
        self._model, self._grid, self._precision = model, grid, precision
        self.device = next(model.parameters()).device
        self.at_once = windows_per_pass(self.device, precision, windows_in(grid))

    def jobs(self, strip: Strip, panel: tuple[int, int]) -> Jobs[list[Objects]]:
        """What finds the objects of a strip's windows; windows without a valid pixel are left out."""
        batches = self._grid.batches(panel, strip.valid, self.at_once)
        return [(windows, partial(self._found, strip, areas)) for windows, areas in batches]

    def _found(self, strip: Strip, areas: list[slice]) -> list[Objects]:
        images, valid = strip.windows(areas, self.device)
        with autocast(self.device, self._precision):
            return self._model.predict(images, valid)


class _Plane:
    """Adds the objects of the windows of a plane to the store."""

    def __init__(self, grid: Grid, store: InstanceStore, plane: int, scene: Declared | Resampled) -> None:
        self._grid, self._store, self._plane, self._scene = grid, store, plane, scene
        self._paint = store.canvas(plane).paint
        self._is_resampled = isinstance(scene, Resampled)
        if isinstance(scene, Resampled):
            for row, col, valid in validity(scene, plane):
                store.exclude(plane, row, col, valid)
        self.stitcher = Stitcher(windows_in(grid), self._paint_back if self._is_resampled else self._paint)

    def add(self, i: int, panel: tuple[int, int], strip: Strip, jobs: Jobs[list[Objects]]) -> None:
        """Add the windows of a panel of a row; one that was not predicted has no objects."""
        grid, first = self._grid, self._grid.cols[panel[0]]
        if strip.valid is not None and not self._is_resampled:
            info = self._scene.info
            valid = strip.valid[: info.height - grid.rows[i], : info.width - first]
            self._store.exclude(self._plane, grid.rows[i], first, valid)
        for j in set(range(*panel)).difference(*(group for group, _ in jobs)):
            self.stitcher.add(i, j, Objects(grid.tall, grid.wide))
        for group, found in jobs:
            for j, objects in zip(group, found(), strict=True):
                self.stitcher.add(i, j, objects)

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


def _strips(grid: Grid, depth: int, read: ReadPlane) -> Generator[Strip, None, None]:
    """The windows of all planes, row by row, each row in panels."""
    if len(grid.panels) == 1:
        # reads no pixel twice
        yield from strips_of_planes(grid, depth, read)
        return
    for plane in range(depth):
        yield from _rows(grid, partial(read, plane=plane))


def _rows(grid: Grid, read: ReadWindow) -> Iterator[Strip]:
    for row in grid.rows:
        for panel in grid.panels:
            left, width, _ = grid.extent(panel)
            yield Strip.of(*read((row, left, grid.tall, width)))


def _filled_up(
    read: ReadPlane, size: tuple[int, int], window: tuple[int, int, int, int], plane: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Read a window that can reach beyond a scene of this size, with pixels there that are not valid."""
    row, col, height, width = window
    tall, wide = min(height, size[0] - row), min(width, size[1] - col)
    pixels, valid = read((row, col, tall, wide), plane)
    beyond = ((0, height - tall), (0, width - wide))
    return np.pad(pixels, ((0, 0), *beyond)), np.pad(valid, beyond)
