"""The class map of a picture on disk until its last block: post-processing needs components, which reach across it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from segcore.data.scratch import ScratchArray
from segcore.inference.postprocess import Postprocess
from segcore.objects.canvas import bands


class HeldClasses:
    """A class map that is collected in blocks, and read in bands of rows after post-processing.

    Args:
        height: of the picture in pixels.
        width: of the picture in pixels.
        postprocess: the steps.
        folder: for the temporary file.

    Raises:
        OSError: the disk has too little room.
    """

    def __init__(self, height: int, width: int, postprocess: Postprocess, folder: Path) -> None:
        self._postprocess = postprocess
        self._store = ScratchArray((height, width), np.uint8, folder)

    def put(self, row: int, col: int, classes: np.ndarray) -> None:
        """Add a block (h, w) uint8 of class indices, IGNORE without data, with its first pixel at (row, col)."""
        height, width = classes.shape
        self._store.values[row : row + height, col : col + width] = classes
        self._store.free_memory()

    def finished(self, stop_if_asked: Callable[[], object]) -> Iterator[tuple[int, np.ndarray]]:
        """First row and class indices (h, W) uint8 of each band after all steps.

        Args:
            stop_if_asked: called after each band; may raise to stop.
        """

        def pause() -> None:
            self._store.free_memory()
            stop_if_asked()

        self._postprocess.apply(self._store.values, pause)
        for rows in bands(self._store.values.shape):
            yield rows.start, self._store.values[rows]
            pause()
