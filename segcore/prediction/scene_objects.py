"""Objects of a scene by a semantic network: class maps on disk, in which objects are found window by window."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from segcore.data.raster import Info
from segcore.data.scratch import ScratchArray
from segcore.objects.canvas import PROBABILITY_STEPS, Canvas, SceneObjects
from segcore.objects.components import components
from segcore.objects.find import FindSettings, find
from segcore.objects.found import Objects, from_numbers
from segcore.objects.linking import VolumeObjects, linked
from segcore.objects.stitching import Stitcher
from segcore.objects.windows import Windows
from segcore.prediction.class_store import ClassStore

# side of the windows in pixels
_SIDE = 1024
# overlap of windows: for components, which are the same in every window, and least and most for others
_OVERLAP, _LEAST_OVERLAP, _MOST_OVERLAP = 2, 64, _SIDE // 2
# Files of objects need as much room as this number of bands of classes: 1 + 2 bytes per pixel for classes and
# probabilities, 4 for numbers, and twice 4 for their GeoTIFF, which needs two bytes per pixel of a class.
BANDS = 8


class ObjectStore(ClassStore):
    """Class maps and probabilities of a scene, and the objects that are found in them.

    Args:
        info: of the scene.
        description: model.json of the bundle.
        settings: how objects are found.
        folder: for temporary files; None: in memory.

    Raises:
        OSError: the disk has too little room.
    """

    def __init__(
        self, info: Info, description: dict[str, Any], settings: FindSettings, folder: Path | None
    ) -> None:
        super().__init__(info, description["foreground"], folder)
        self._settings = settings
        self._count, self._side = len(description["classes"]), description["objects"].get("side", 0)
        self._is_foreground = np.isin(np.arange(256), self.foreground)
        self._probability = ScratchArray(self._shape, np.uint16, folder)
        self._touching: ScratchArray | None = None
        if description["objects"].get("touching"):
            self._touching = ScratchArray(self._shape, np.uint16, folder)
        # of all classes, where the surface of the watershed goes beyond the pixels of a class
        self._of_classes: ScratchArray | None = None
        if (settings.method, settings.seeds) == ("watershed", "probability") and self._count > 2:
            self._of_classes = ScratchArray((self._count, *self._shape), np.uint16, folder)

    def put(
        self, plane: int, place: tuple[slice, slice], classes: np.ndarray, probabilities: np.ndarray
    ) -> None:
        """Store a block.

        Args:
            plane: of the block.
            place: its rows and columns.
            classes: (h, w) uint8 class of each pixel, IGNORE without data.
            probabilities: as `as_steps` gives them: of the most probable class, of touching objects if the network
                has that output, and of all classes.
        """
        self._classes.values[plane, *place] = classes
        self._probability.values[plane, *place] = probabilities[0]
        if self._touching is not None:
            self._touching.values[plane, *place] = probabilities[1]
        if self._of_classes is not None:
            self._of_classes.values[:, plane, *place] = probabilities[-self._count :]
        self.free_memory()

    @property
    def wants_all(self) -> bool:
        """Whether `put` uses the probabilities of all classes."""
        return self._of_classes is not None

    def free_memory(self) -> None:
        """As of `ClassStore`."""
        for store in (self._classes, self._probability, self._touching, self._of_classes):
            if store is not None:
                store.free_memory()

    def objects(
        self, min_area: int, stop_if_asked: Callable[[], object] = lambda: None
    ) -> SceneObjects | VolumeObjects:
        """As of `ClassStore`."""
        self._stop_if_asked = stop_if_asked
        store = ScratchArray(self._shape, np.uint32, self._folder)

        def pause() -> None:
            store.free_memory()
            stop_if_asked()

        planes = []
        for plane, numbers in enumerate(store.values):
            canvas = Canvas(numbers, self._probability.values[plane], pause)
            self._stitch(plane, canvas, pause)
            planes.append(
                canvas.finish() if self._is_volume else canvas.finish(min_area, self._settings.score)
            )
        if not self._is_volume:
            return planes[0]
        return linked(planes, store.values, min_area, self._settings.score)

    def _stitch(self, plane: int, canvas: Canvas, pause: Callable[[], None]) -> None:
        is_exact = self._settings.method == "components" and self._touching is None
        overlap = _OVERLAP
        if not is_exact:
            overlap = int(np.clip(2 * self._side, _LEAST_OVERLAP, _MOST_OVERLAP))
        windows = Windows.over(self._info.height, self._info.width, _SIDE, overlap)
        stitcher = Stitcher(windows, canvas.paint, *([0] if is_exact else []))
        for i, row in enumerate(windows.rows):
            for j, col in enumerate(windows.cols):
                part = (plane, slice(row, row + windows.tall), slice(col, col + windows.wide))
                stitcher.add(i, j, self._components(part) if is_exact else self._found(part))
                pause()
                self.free_memory()
        stitcher.finish()

    def _components(self, part: tuple[int, slice, slice]) -> Objects:
        classes = self._classes.values[part]
        if not self._is_foreground[classes].any():
            return Objects(*classes.shape)
        numbers = components(classes, self.foreground)
        # scores follow from the pixels of whole objects
        nothing = np.zeros(int(numbers.max()))
        found = from_numbers(numbers, nothing, nothing)
        firsts = [np.argmax(mask[0]) for mask in found.masks]
        return replace(found, classes=classes[found.boxes[:, 0], found.boxes[:, 1] + firsts])

    def _found(self, part: tuple[int, slice, slice]) -> Objects:
        classes = self._classes.values[part]
        touching = None if self._touching is None else _share(self._touching.values[part])
        probabilities = self._probabilities(part, classes)
        settings = FindSettings(self._settings.method, 0, self._settings.seeds, self._settings.depth)
        return find(probabilities, classes, self.foreground, settings, touching)

    def _probabilities(self, part: tuple[int, slice, slice], classes: np.ndarray) -> np.ndarray:
        """(K, h, w) probabilities; where only that of the most probable class is stored, others share the rest."""
        if self._of_classes is not None:
            return _share(self._of_classes.values[:, *part])
        best = _share(self._probability.values[part])
        others = (1 - best) / max(self._count - 1, 1)
        return np.stack([np.where(classes == index, best, others) for index in range(self._count)])


def as_steps(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities as uint16 steps."""
    steps: np.ndarray = np.rint(probabilities * PROBABILITY_STEPS).astype(np.uint16)
    return steps


def _share(steps: np.ndarray) -> np.ndarray:
    shares: np.ndarray = steps.astype(np.float32) / PROBABILITY_STEPS
    return shares
