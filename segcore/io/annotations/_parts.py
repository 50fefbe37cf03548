"""Ground truth in several files of one image: a file for each class, or for each object.

Of a raster, all values but 0 are the class (see `_binary`); of other formats, all that they contain. Where the values
of an object's file say its class, data.label_values is applied.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from segcore.constants import IGNORE
from segcore.data.raster import Info, Note, Window
from segcore.io import annotations, images
from segcore.io.annotations import Labels, LabelSource
from segcore.io.annotations._binary import Binary
from segcore.io.annotations._overlaps import Losses, areas, without_losses
from segcore.io.annotations._shared import OTHERS, background_index
from segcore.io.annotations._unlabelled import Unlabelled
from segcore.io.annotations.masks import open_raster
from segcore.params.data import Data

# More files are opened for each window, because a process may have few files open.
_MOST_OPEN = 64


class _OneClass:
    """A raster of one class: class 1 where it is, 0 elsewhere."""

    def __init__(self, binary: Binary, source: images.Source) -> None:
        self._binary, self._source = binary, source
        self.found: dict[str, int] = {}

    @property
    def notes(self) -> list[Note]:
        return self._binary.notes

    def read(self, window: Window, plane: int = 0) -> Labels:
        return Labels(self._binary.read(self._source, window, plane).view(np.uint8))


class _Parts:
    """Open ground truth in several files.

    Args:
        parts: (class, path) of each file, in the order in which they are drawn; class "": by data.label_values.
        image_path: of the image.
        image: header of the image.
        data: settings.
        stack: keeps the files open if they are few.
    """

    def __init__(
        self,
        parts: Sequence[tuple[str, Path]],
        image_path: Path,
        image: Info,
        data: Data,
        stack: ExitStack,
    ) -> None:
        self._found = Counter({name: 0 for name, _ in parts if name})
        self._parts, self._image_path, self._image, self._data = parts, image_path, image, data
        self._background = background_index(data)
        self._notes: dict[Note, None] = {}
        # The counts of files that are opened again for each window.
        self._binaries = {path: Binary(path.name) for name, path in parts if name}
        self._of_rest: list[Note] = []
        self._rest = Unlabelled(parts[0][1].name, image_path.name, data, self._of_rest)
        self._overlapping = 0
        nothing = ("ignore", data.classes[self._background])
        is_object = np.array([name not in nothing for name, _ in parts], bool)
        self._losses = Losses("", "file", [path.name for _, path in parts], is_object)
        self._open: list[LabelSource] = []
        if len(parts) <= _MOST_OPEN:
            self._open = [stack.enter_context(self._opened(name, path)) for name, path in parts]

    @property
    def found(self) -> dict[str, int]:
        """Pixels of each class or, where values say the class of an object, pixels by value."""
        values = Counter[str]()
        for (name, _), source in zip(self._parts, self._open, strict=False):
            values.update({} if name else source.found)
        return {**self._found, **values}

    @property
    def notes(self) -> list[Note]:
        """What was done to the files, and the number of pixels that several of them claim."""
        of_files = [note for source in self._open for note in source.notes]
        of_files += [note for binary in self._binaries.values() for note in binary.notes]
        # a file is one object, if it is any, whatever is drawn in it
        notes = [*dict.fromkeys(without_losses([*of_files, *self._notes])), *self._of_rest]
        if self._overlapping:
            text = f"{self._overlapping} pixels belong to several files; the last of them counts"
            notes.append(("overlapping-masks", text))
        return notes + (self._losses.notes() if self._data.masks_have_numbers else [])

    @contextmanager
    def _opened(self, name: str, path: Path) -> Iterator[LabelSource]:
        data = self._data
        if name and annotations.is_raster(path):
            with open_raster(path, self._image_path, self._image, data) as source:
                yield _OneClass(self._binaries[path], source)
            return
        if name:
            one_class = {
                "classes": ["", name],
                "background": "",
                "colors": [(0, 0, 0)] * 2,
                "instances": False,
            }
            one_class |= {"label_values": {OTHERS: 1}, "label_property": None, "unlabelled": None}
            data = data.model_copy(update=one_class)
        with annotations.open_labels(path, self._image_path, self._image, data) as labels:
            yield labels

    def read(self, window: Window, plane: int = 0) -> Labels:
        """Class indices, and with data.instances a number for each file, of a window of a plane.

        Raises:
            DataError: a file cannot be read, or no setting gives pixels in no mask a class (kind "no-unlabelled").
        """
        data = self._data
        classes = np.full(window[2:], self._rest.fill, np.uint8)
        numbers, covered = np.zeros(window[2:], np.uint32), np.zeros(len(self._parts), np.int64)
        taken, unknown = np.zeros(window[2:], bool), np.zeros(window[2:], bool)
        for index, (name, _) in enumerate(self._parts):
            part = self._labels(index, window, plane)
            outside = 0 if name else self._background
            inside = (part != outside) & (part != IGNORE)
            unknown |= part == IGNORE
            if not inside.any():
                continue
            code = part[inside] if not name else IGNORE if name == "ignore" else data.classes.index(name)
            same_class = not data.masks_have_numbers and bool(name)
            clash = inside & taken & (classes != code) if same_class else inside & taken
            self._overlapping += int(np.count_nonzero(clash))
            classes[inside], taken = code, taken | inside
            numbers[inside] = 0 if name == "ignore" else index + 1
            covered[index] = np.count_nonzero(inside)
            if name:
                self._found[name] += int(covered[index])
        classes[unknown & ~taken] = IGNORE
        self._rest.add(int(np.count_nonzero(~(taken | unknown))), window, plane)
        if not data.masks_have_numbers:
            return Labels(classes)
        numbers[(classes == self._background) | (classes == IGNORE)] = 0
        self._losses.add(covered, areas(numbers, len(covered))[1:], window, plane)
        return Labels(classes, numbers)

    def _labels(self, index: int, window: Window, plane: int) -> np.ndarray:
        if self._open:
            return self._open[index].read(window, plane).classes
        with self._opened(*self._parts[index]) as source:
            labels = source.read(window, plane).classes
            if not isinstance(source, _OneClass):
                self._notes |= dict.fromkeys(source.notes)
            if not self._parts[index][0]:
                self._found.update(source.found)
        return labels


@contextmanager
def open_parts(
    parts: Sequence[tuple[str, Path]], image_path: Path, image: Info, data: Data
) -> Iterator[LabelSource]:
    """Open the ground truth of one image that is in several files.

    Args:
        parts: (class, path) of each file, in the order in which they are drawn, so that the last one counts where they
            overlap; class "ignore": pixels that are not used; "": data.label_values says the class.
        image_path: of the image.
        image: header of the image.
        data: settings; with data.instances, each file is one object.

    Raises:
        DataError: as `segcore.io.annotations.open_labels`.
    """
    with ExitStack() as stack:
        yield _Parts(parts, image_path, image, data, stack)
