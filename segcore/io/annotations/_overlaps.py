"""What objects lose where they overlap: a pixel belongs to one object, the last that was drawn over it."""

from collections.abc import Iterable, Sequence

import numpy as np

from segcore.data.raster import Note, Window
from segcore.io.annotations._shared import ids

_KINDS = ("objects-overlap", "objects-vanished")
# pixels that are counted at once
_CHUNK = 2**22


def areas(numbers: np.ndarray, most: int) -> np.ndarray:
    """(most + 1,) int64 pixels of each number of a map (H, W) of unsigned integers up to `most`."""
    rows = max(1, _CHUNK // max(numbers.shape[1], 1))
    total = np.zeros(most + 1, np.int64)
    for row in range(0, len(numbers), rows):
        total += np.bincount(numbers[row : row + rows].ravel(), minlength=most + 1)
    return total


def layers_of(shapes: np.ndarray) -> np.ndarray:
    """Layer (N,) of each polygon, from 0 on, so that polygons of one layer do not intersect."""
    import shapely

    layers = np.zeros(len(shapes), np.int64)
    later, earlier = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    later, earlier = later[earlier < later], earlier[earlier < later]
    order = np.argsort(later, kind="stable")
    indices, starts = np.unique(later[order], return_index=True)
    for index, below in zip(indices, np.split(earlier[order], starts[1:]), strict=False):
        taken = set(layers[below].tolist())
        layers[index] = next(layer for layer in range(len(taken) + 1) if layer not in taken)
    return layers


def without_losses(notes: Iterable[Note]) -> list[Note]:
    """Notes other than those of `Losses`, where the objects are not used."""
    return [note for note in notes if note[0] not in _KINDS]


class Losses:
    """Pixels that objects cover, and those that are left to them, over all windows of an image.

    Args:
        name: of the file, to begin notes with; empty where each object has a file of its own.
        what: name of an object, for messages, such as "polygon".
        ids: of the objects 1 to N, for messages.
        is_object: (N,) bool, False for what is drawn but is no object, such as background.
        is_whole: (N,) bool, False for objects that are noted elsewhere or reach outside of the image, so that they may
            have no pixel; None: all are.
    """

    def __init__(
        self,
        name: str,
        what: str,
        ids: Sequence[object],
        is_object: np.ndarray,
        is_whole: np.ndarray | None = None,
    ) -> None:
        self._text = f"{name}: {what}s" if name else f"{what}s"
        self._ids, self._is_object = ids, is_object
        self._is_whole = np.ones(len(ids), bool) if is_whole is None else is_whole
        self._covered, self._kept = (np.zeros(len(ids), np.int64) for _ in range(2))
        self._windows: set[tuple[int, int, int]] = set()

    def add(self, covered: np.ndarray, kept: np.ndarray, window: Window, plane: int = 0) -> None:
        """Count a window, once.

        Args:
            covered: (N,) pixels that each object covers there.
            kept: (N,) those of them that are its own in the end.
            window: that they are of.
            plane: that they are of.
        """
        key = (plane, window[0], window[1])
        if key not in self._windows:
            self._windows.add(key)
            self._covered += covered
            self._kept += kept

    def notes(self) -> list[Note]:
        """Notes on objects that lose pixels, and on objects that have none; none before a window was read."""
        if not self._windows:
            return []
        lost = np.where(self._is_object, self._covered - self._kept, 0)
        some, notes = np.flatnonzero(lost > 0), list[Note]()
        if some.size:
            text = f"{self._text} that lose pixels to others drawn over them: {self._counted(some)}"
            notes.append(("objects-overlap", f"{text}, {lost.sum()} pixels in total"))
        hidden = np.flatnonzero((lost > 0) & (self._kept == 0))
        empty = np.flatnonzero(self._is_object & self._is_whole & (self._covered == 0))
        texts = [f"{self._counted(hidden)} hidden by others"] if hidden.size else []
        texts += [f"{self._counted(empty)} that cover no pixel"] if empty.size else []
        if texts:
            text = f"{self._text} that have no pixel and are no objects: {', '.join(texts)}"
            notes.append(("objects-vanished", text))
        return notes

    def _counted(self, indices: np.ndarray) -> str:
        return f"{len(indices)} ({ids([self._ids[i] for i in indices])})"
