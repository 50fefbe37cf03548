"""Pixels without a label: their class by data.unlabelled and data.background, and how many there are."""

import numpy as np

from segcore.constants import IGNORE
from segcore.data.raster import Note, Window
from segcore.errors import DataError
from segcore.io.annotations import Labels
from segcore.params.data import Data


def unlabelled_index(data: Data) -> int | None:
    """Class of pixels without a label, IGNORE included; None where data.unlabelled must be set."""
    if data.unlabelled is not None:
        return IGNORE if data.unlabelled == "ignore" else data.classes.index(data.unlabelled)
    return None if data.background is None else data.classes.index(data.background)


class Counts:
    """Number of pixels in the windows that were read; a window that is read again counts once."""

    def __init__(self) -> None:
        self._of_window: dict[tuple[int, int, int], int] = {}

    def add(self, count: int, window: Window, plane: int) -> None:
        """Set the number of a window; windows with the same first pixel replace each other."""
        self._of_window[plane, window[0], window[1]] = count

    def total(self) -> int:
        """Sum over all windows."""
        return sum(self._of_window.values())


class Unlabelled:
    """Pixels of one image that its annotation leaves without a label.

    Args:
        name: of the annotation.
        image: name of the image.
        data: settings.
        notes: gets a note with their number, where there are such pixels and data.unlabelled decides what they are.
        index: their class where data.unlabelled is not set; None: `unlabelled_index`.
        is_mask: whether they are the transparent pixels of a mask, which are noted in any case.

    Attributes:
        index: their class, IGNORE included; None where data.unlabelled must be set.
        fill: as `index`, IGNORE instead of None.
        others: classes that are not objects.
    """

    def __init__(
        self,
        name: str,
        image: str,
        data: Data,
        notes: list[Note],
        index: int | None = None,
        is_mask: bool = False,
    ) -> None:
        self._notes, self._is_mask = notes, is_mask
        self._name, self._image, self._data = name, image, data
        self.index = unlabelled_index(data) if data.unlabelled is not None or index is None else index
        self.fill = IGNORE if self.index is None else self.index
        background = None if data.background is None else data.classes.index(data.background)
        self.others = {IGNORE, self.fill, *([] if background is None else [background])}
        self._counts = Counts()

    def add(self, count: int, window: Window, plane: int) -> None:
        """Count the pixels without a label of a window.

        Raises:
            DataError: there are such pixels, and no setting gives them a class (kind "no-unlabelled").
        """
        if count and self.index is None:
            raise DataError(
                f"{self._name}: leaves pixels of {self._image} without a label, and params.yaml gives them no class: "
                "data.background is null, and data.unlabelled is not set",
                "set data.unlabelled to `ignore` (they are neither trained on nor scored) or to the class that they "
                "are, or set data.background to the class of all that is not annotated",
                kind="no-unlabelled",
            )
        self._counts.add(count, window, plane)
        if not count or (self._data.unlabelled is None and not self._is_mask):
            return
        # In place, because the list is that of the annotation.
        self._notes[:] = [note for note in self._notes if note[0] not in ("unlabelled", "transparent")]
        self._notes.append(self._note(self._counts.total()))

    def _note(self, count: int) -> Note:
        if self._data.unlabelled is None:
            text = f"{count} pixels of the mask are transparent or without data, and are ignored"
            return "transparent", text
        became = "ignored" if self.index == IGNORE else f"of class {self._data.unlabelled!r}"
        return "unlabelled", f"{count} pixels without a label are {became} (data.unlabelled)"


class Objects:
    """Classes of numbered objects of one image.

    Args:
        codes: (N,) class indices of the objects 1 to N.
        unlabelled: pixels outside all objects.

    Attributes:
        is_object: (N,) bool, False for those of background and ignored classes.
    """

    def __init__(self, codes: np.ndarray | list[int], unlabelled: Unlabelled) -> None:
        self._codes = np.array([unlabelled.fill, *codes], np.uint8)
        is_object = ~np.isin(self._codes, list(unlabelled.others))
        self.is_object: np.ndarray = is_object[1:]
        self._kept = np.where(is_object, np.arange(len(self._codes), dtype=np.uint32), np.uint32(0))
        self._unlabelled = unlabelled

    def labels(self, numbers: np.ndarray, window: Window, plane: int) -> Labels:
        """Labels of a window.

        Args:
            numbers: (H, W) unsigned integer object numbers, 0 outside all objects.
            window: that they are of.
            plane: that they are of.

        Raises:
            DataError: as `Unlabelled.add`.
        """
        self._unlabelled.add(numbers.size - int(np.count_nonzero(numbers)), window, plane)
        return Labels(self._codes[numbers], self._kept[numbers])
