"""Objects of a scene by an instance network, and the classes and probabilities of pixels that follow from them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segcore.constants import IGNORE
from segcore.data.raster import Info
from segcore.data.scratch import ScratchArray
from segcore.objects.canvas import LEAST_KEPT, Canvas, SceneObjects
from segcore.objects.found import Objects, from_numbers
from segcore.objects.linking import VolumeObjects, linked
from segcore.prediction.arrays import Prediction
from segcore.prediction.class_store import ClassStore

# height and width in pixels of the blocks that are passed on; whole blocks of a GeoTIFF
_BLOCK = (512, 2048)


@dataclass(frozen=True)
class ClassBlock:
    """A rectangle of the class map that objects make.

    Attributes:
        plane: of the block.
        row, col: of its first pixel.
        classes: (h, w) uint8 class of each pixel's object, else the background; IGNORE without data.
        scores: (h, w) float32 score of each pixel's object, 0 where there is none.
        background: index of the class of pixels without object.
    """

    plane: int
    row: int
    col: int
    classes: np.ndarray
    scores: np.ndarray
    background: int

    def probabilities(self, count: int) -> np.ndarray:
        """(count, h, w) float32: of an object's class its score, the rest of the background; 0 without data."""
        found = np.zeros((count, *self.classes.shape), np.float32)
        found[self.background] = np.where(self.classes == IGNORE, 0, 1 - self.scores)
        for index in set(range(count)) - {self.background}:
            np.copyto(found[index], self.scores, where=self.classes == index)
        return found


class InstanceStore(ClassStore):
    """Maps of the numbers of objects, and what follows from them.

    Args:
        info: of the scene.
        foreground: indices of the classes that have objects.
        background: index of the class of all other pixels.
        score: objects of a lower score are left out.
        folder: for temporary files; None: in memory.

    Raises:
        OSError: the disk has too little room.
    """

    def __init__(
        self, info: Info, foreground: Sequence[int], background: int, score: float, folder: Path | None
    ) -> None:
        super().__init__(info, foreground, folder)
        self._background, self._score = background, score
        self._numbers = ScratchArray(self._shape, np.uint32, folder)
        self._canvases = [Canvas(numbers, None, self._pause, LEAST_KEPT) for numbers in self._numbers.values]
        self._found: SceneObjects | VolumeObjects | None = None

    def free_memory(self) -> None:
        """As of `ClassStore`."""
        super().free_memory()
        self._numbers.free_memory()

    def _pause(self) -> None:
        self.free_memory()
        self._stop_if_asked()

    def canvas(self, plane: int) -> Canvas:
        """Takes the objects of a plane."""
        return self._canvases[plane]

    def exclude(self, plane: int, row: int, col: int, valid: np.ndarray) -> None:
        """Mark the pixels of a rectangle that are not `valid` (h, w) as without data."""
        height, width = valid.shape
        self._classes.values[plane, row : row + height, col : col + width][~valid] = IGNORE

    def has_data(self, plane: int, row: int, col: int, height: int, width: int) -> np.ndarray:
        """(height, width) bool: pixels of a rectangle that were not excluded."""
        valid: np.ndarray = self._classes.values[plane, row : row + height, col : col + width] != IGNORE
        return valid

    def objects(
        self, min_area: int, stop_if_asked: Callable[[], object] = lambda: None
    ) -> SceneObjects | VolumeObjects:
        """As of `ClassStore`, after the objects of all windows were added; later calls return the same."""
        self._stop_if_asked = stop_if_asked
        if self._found is None and not self._is_volume:
            self._found = self._canvases[0].finish(min_area, self._score)
        elif self._found is None:
            # planes as in the evaluation: an object that does not count there joins no others
            planes = [canvas.finish(score=self._score) for canvas in self._canvases]
            self._found = linked(planes, self._numbers.values, min_area)
        assert self._found is not None
        return self._found

    def blocks(
        self, min_area: int, stop_if_asked: Callable[[], object] = lambda: None
    ) -> Iterator[ClassBlock]:
        """The class map that the objects make, in blocks that cover each pixel once; arguments as of `objects`."""
        found = self.objects(min_area, stop_if_asked)
        for plane in range(self._shape[0]):
            yield from self._of_plane(plane, found)

    def _of_plane(self, plane: int, found: SceneObjects | VolumeObjects | Objects) -> Iterator[ClassBlock]:
        """The class map of a plane, which becomes that of the store, too."""
        _, height, width = self._shape
        classes = np.append(np.uint8(self._background), found.classes)
        scores = np.append(np.float32(0), found.scores)
        for row in range(0, height, _BLOCK[0]):
            for col in range(0, width, _BLOCK[1]):
                part = (plane, slice(row, row + _BLOCK[0]), slice(col, col + _BLOCK[1]))
                numbers, held = self._numbers.values[part], self._classes.values[part]
                np.copyto(held, classes[numbers], where=held != IGNORE)
                yield ClassBlock(plane, row, col, held.copy(), scores[numbers], self._background)
                self._pause()

    def prediction(self, count: int, min_area: int, is_volume: bool) -> Prediction:
        """All in memory, with the class map of `blocks`; the objects of a volume are those of each plane.

        Args:
            count: number of classes.
            min_area: objects of fewer pixels, or of a volume voxels, are left out.
            is_volume: whether arrays have an axis of planes.
        """
        planes = [canvas.finish(score=self._score) for canvas in self._canvases]
        objects: list[Objects] = [from_numbers(p.numbers, p.classes, p.scores) for p in planes]
        numbers = linked(planes, self._numbers.values, min_area).numbers
        probabilities = np.zeros((count, *self._shape), np.float32)
        for index, plane in enumerate(objects):
            objects[index] = _of_numbers(plane, numbers[index])
            self._numbers.values[index] = objects[index].numbers()
            for block in self._of_plane(index, objects[index]):
                tall, wide = block.classes.shape
                at = (index, slice(block.row, block.row + tall), slice(block.col, block.col + wide))
                probabilities[:, *at] = block.probabilities(count)
        classes = self._classes.values
        if is_volume:
            return Prediction(classes, probabilities, classes != IGNORE, None, objects)
        return Prediction(classes[0], probabilities[:, 0], classes[0] != IGNORE, None, objects[0])


def _of_numbers(objects: Objects, numbers: np.ndarray) -> Objects:
    """The objects of a plane that have a number in a map of it; objects do not overlap."""
    firsts = np.array([np.argmax(mask[0]) for mask in objects.masks], np.int64)
    return objects.select(numbers[objects.boxes[:, 0], objects.boxes[:, 1] + firsts] > 0)
