"""Classes of the pixels of a scene on disk; base of what finds its objects."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from segcore.constants import IGNORE
from segcore.data.raster import Info
from segcore.data.scratch import ScratchArray
from segcore.objects.canvas import SceneObjects, bands
from segcore.objects.linking import VolumeObjects
from segcore.prediction.ground import PixelAreas


class ClassStore(ABC):
    """Classes of the pixels of a scene, and its objects.

    Args:
        info: of the scene.
        foreground: indices of the classes that have objects.
        folder: for temporary files; None: in memory.

    Attributes:
        foreground: as given.

    Raises:
        OSError: the disk has too little room.
    """

    def __init__(self, info: Info, foreground: Sequence[int], folder: Path | None) -> None:
        self._info, self._folder, self.foreground = info, folder, list(foreground)
        self._shape = (info.depth, info.height, info.width)
        self._is_volume = info.affine is not None or info.depth > 1
        self._stop_if_asked: Callable[[], object] = lambda: None
        # IGNORE where there are no data
        self._classes = ScratchArray(self._shape, np.uint8, folder)

    @abstractmethod
    def objects(
        self, min_area: int, stop_if_asked: Callable[[], object] = lambda: None
    ) -> SceneObjects | VolumeObjects:
        """The objects of a picture, or of a volume or stack, whose planes are linked.

        Args:
            min_area: objects of fewer pixels are left out.
            stop_if_asked: called at least once a second here and while the result is read; may raise to stop.

        Raises:
            OSError: the disk has too little room.
        """

    def free_memory(self) -> None:
        """Take what is on disk out of memory."""
        self._classes.free_memory()

    def valid(self, rows: slice, cols: slice) -> np.ndarray:
        """Whether the pixels of a part of a picture have data, (h, w) bool."""
        valid: np.ndarray = self._classes.values[0, rows, cols] != IGNORE
        self.free_memory()
        self._stop_if_asked()
        return valid

    def square_metres(self, of_pixels: PixelAreas) -> float:
        """Area of the pixels of a picture with data."""
        rows = bands(self._classes.values.shape[1:])
        return sum(of_pixels.total(part.start, 0, self.valid(part, slice(None))) for part in rows)
