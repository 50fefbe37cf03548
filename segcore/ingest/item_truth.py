"""The ground truth of an item: its labels, mask of valid pixels, object numbers and other annotators."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from segcore.constants import IGNORE
from segcore.data.annotators import majority
from segcore.data.raster import Info, Note, Window
from segcore.errors import DataError
from segcore.io import annotations
from segcore.io.annotations._numbers import open_numbers
from segcore.io.annotations._overlaps import without_losses
from segcore.io.annotations._parts import open_parts
from segcore.io.grid import open_on_grid
from segcore.io.layouts._item import Item
from segcore.params.data import Data


@contextmanager
def _of_mask(path: Path, image: Path) -> Iterator[None]:
    """Let errors about a mask that has the name of its image begin with its folder, unless their kind is of masks."""
    try:
        yield
    except DataError as error:
        is_clear = error.kind.startswith("label-") or error.kind == "jpeg-mask"
        if is_clear or path.name != image.name or not error.what.startswith(f"{path.name}: "):
            raise
        raise DataError(f"{path.parent.name}/{error.what}", error.remedy, kind=error.kind) from error


@contextmanager
def _of_annotator(path: Path, item: Item) -> Iterator[None]:
    """Let errors about an annotator's mask give its whole path, if only that says which one it is."""
    try:
        yield
    except DataError as error:
        if item.mask is None or path.name not in (item.image.name, item.mask.name):
            raise
        name = next((n for n in ("/".join(path.parts[-2:]), path.name) if f"{n}: " in error.what), None)
        if name is None:
            raise
        what = error.what.replace(f"{name}: ", f"{path.as_posix()}: ", 1)
        raise DataError(what, error.remedy, kind=error.kind) from error


@contextmanager
def _of_numbers(item: Item) -> Iterator[None]:
    """Let errors about object numbers call them so, and begin with their folder if the mask has the same name."""
    try:
        yield
    except DataError as error:
        assert item.objects and item.mask
        what = error.what.replace(" and its mask ", " and its object numbers ", 1)
        if item.objects.name == item.mask.name and what.startswith(f"{item.objects.name}: "):
            what = f"{item.objects.parent.name}/{what}"
        raise DataError(what, error.remedy, kind=error.kind) from error


class Truth:
    """Labels of an image, its mask of valid pixels, object numbers, and the labels of other annotators.

    Attributes:
        objects_of: what has the objects: "labels", if these have any, "numbers" (data.objects) or "components".
        labels: those of the mask or annotation; with data.annotators, of the first of them.
        numbers: those of data.objects; None: none.
        valid: mask of valid pixels (data.valid); None: none.
        others: labels of other annotators (data.baselines).
    """

    def __init__(self, item: Item, folder: Path, info: Info, data: Data, stack: ExitStack) -> None:
        assert item.mask is not None
        image = folder / item.image

        # number of classes where the masks of several annotators are the truth, else 0
        self._annotators = len(data.classes) if data.annotators else 0
        self._item, self._paths, self._counts_objects = item, (item.mask, item.image), data.has_objects
        self.objects_of = (
            "components" if data.instances == "components" else "numbers" if item.objects else "labels"
        )

        def opened(path: Path, is_mask: bool = False) -> annotations.LabelSource:
            with _of_mask(path, item.image) if is_mask else _of_annotator(path, item):
                return stack.enter_context(annotations.open_labels(folder / path, image, info, data))

        if self._annotators:
            self.labels = opened(item.mask)
        elif item.parts:
            parts = [(name, folder / path) for name, path in item.parts]
            self.labels = stack.enter_context(open_parts(parts, image, info, data))
        else:
            self.labels = opened(item.mask, is_mask=True)
        self.numbers = None
        if item.objects is not None:
            with _of_numbers(item):
                opened_numbers = open_numbers(folder / item.objects, image, info, data)
                self.numbers = stack.enter_context(opened_numbers)
        # the mask is that of the first of several annotators
        first = [self.labels] if self._annotators else []
        self.others = [*first, *(opened(path) for path in list(item.baselines.values())[len(first) :])]
        self.valid = None
        if item.valid is not None:
            opened_valid = open_on_grid(folder / item.valid, folder / item.image, info, data)
            self.valid = stack.enter_context(opened_valid)

    @property
    def notes(self) -> list[Note]:
        """What was done to all of them; complete once every window was read."""
        valid = self.valid.info.notes if self.valid else ()
        named = [(kind, f"mask of valid pixels: {text}") for kind, text in valid]
        rest = self.others[1:] if self._annotators else self.others
        own, others = self.labels.notes, [note for other in rest for note in other.notes]
        if self.objects_of != "labels" or not self._counts_objects:
            own = without_losses(own)
        return [*own, *(self.numbers.notes if self.numbers else []), *named, *without_losses(others)]

    @property
    def found(self) -> dict[str, int]:
        """Values or categories and their numbers in the mask, or in those of several annotators together."""
        total: Counter[str] = Counter()
        for source in self.others if self._annotators else [self.labels]:
            total.update(source.found)
        return dict(total)

    def read(
        self, window: Window, plane: int, valid: np.ndarray
    ) -> tuple[annotations.Labels, list[np.ndarray]]:
        """Labels, and those of other annotators, of a window (h, w); IGNORE where pixels are not valid.

        Those of other annotators are IGNORE where the labels are; with objects, only where the image has no data.
        """
        if not self._annotators:
            with _of_mask(*self._paths):
                labels = self.labels.read(window, plane)
        read = []
        for path, other in zip(self._item.baselines.values(), self.others, strict=True):
            with _of_annotator(path, self._item):
                read.append(other.read(window, plane).classes)
        if self._annotators:
            labels = annotations.Labels(majority(read, self._annotators), None)
        has_data = valid
        if self.valid is not None:
            valid = valid & (self.valid.read(window, plane).pixels != 0).any(axis=0)
        classes = labels.classes if valid.all() else np.where(valid, labels.classes, np.uint8(IGNORE))
        hidden = classes == IGNORE
        # as in a prediction, an object can reach into ignored pixels
        unknown = ~has_data if self._counts_objects or self.numbers else hidden
        others = [np.where(unknown, IGNORE, other).astype(np.uint8) for other in read]
        instances = labels.instances if self.objects_of == "labels" else None
        if self.numbers:
            with _of_numbers(self._item):
                instances = self.numbers.read(window, plane)
        if instances is not None:
            instances = np.where(hidden, 0, instances).astype(np.uint32)
        return annotations.Labels(classes, instances), others
