"""One module per ground truth format, with `EXTENSIONS` and `open_labels(path, image_path, image, data)`.

Formats that share an extension also have `reads(path)`. Every format is read as class indices on the grid of its image.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from segcore import plugins
from segcore.data.axes import AS_STORED, TurnedReader, inverse
from segcore.data.raster import Info, Note, Order, Window
from segcore.errors import DataError
from segcore.io import images
from segcore.io.grid import orders_of_pixels
from segcore.io.images._orientation import turned_info
from segcore.params.data import Data

# formats that are placed on their image by themselves; all others are in pixel coordinates
_PLACED = ("dicomseg", "masks", "polygons")

# Images whose compression changes the values of a mask.
LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif")


@dataclass(frozen=True)
class Labels:
    """A window of ground truth.

    Attributes:
        classes: (H, W) uint8 class indices, IGNORE where the mask is ignored or has no data.
        instances: (H, W) uint32 object numbers, 0 for no object; None where the ground truth has no objects.
    """

    classes: np.ndarray
    instances: np.ndarray | None = None


class LabelSource(Protocol):
    """Open ground truth on the grid of its image."""

    @property
    def notes(self) -> list[Note]:
        """What was done to it, as (kind, text); complete once every window was read."""
        ...

    @property
    def found(self) -> dict[str, int]:
        """Pixels or objects by value, colour or category as it stands in the file, once every window was read."""
        ...

    def read(self, window: Window, plane: int = 0) -> Labels:
        """Class indices of a window of a plane.

        Raises:
            DataError: it cannot be read, or holds values that label_values does not declare.
        """
        ...


Opener = Callable[[Path, Path, Info, Data], AbstractContextManager[LabelSource, None]]


@cache
def extensions() -> tuple[str, ...]:
    """File extensions of ground truth, in lower case with the dot, sorted: those of masks and of all other formats."""
    masks = {e for e in images.extensions() if e not in LOSSY}
    return tuple(sorted(masks.union(*(m.EXTENSIONS for m in plugins.load_all(__name__)))))


def is_raster(path: Path) -> bool:
    """Whether ground truth is a raster, picture or volume, as opposed to polygons and other formats of objects."""
    endings = tuple(e for module in plugins.load_all(__name__) for e in module.EXTENSIONS)
    return not path.name.lower().endswith(endings)


def open_labels(
    path: Path, image_path: Path, image: Info, data: Data
) -> AbstractContextManager[LabelSource, None]:
    """Open the ground truth of one image.

    Args:
        path: of the ground truth; its file extension selects the format, and any other extension is read as a raster.
        image_path: of the image; a file of polygons or COCO annotations covers several.
        image: header of the image. Where it was turned on reading, annotations in pixel coordinates are turned like it.
        data: label_values and label_property map the ground truth to classes.

    Raises:
        DataError: it cannot be read, or is not on the image's grid.
    """
    module = _format_of(path)
    opener: Opener = module.open_labels
    is_as_stored = image.order == AS_STORED and not image.affine
    if is_as_stored or module.__name__.rpartition(".")[2] in _PLACED:
        return opener(path, image_path, image, data)
    opened: AbstractContextManager[LabelSource, Any] = _turned(opener, path, image_path, image, data)
    return opened


@contextmanager
def _turned(opener: Opener, path: Path, image_path: Path, image: Info, data: Data) -> Iterator[LabelSource]:
    """Annotations in pixel coordinates of an image that was turned on reading.

    Where several orders are possible (see `orders_of_pixels`), the first whose size is that of the annotations counts.
    """
    failed: DataError | None = None
    with ExitStack() as stack:
        for order in orders_of_pixels(image, image_path):
            header = image if order == AS_STORED else turned_info(image, inverse(order))
            try:
                source = stack.enter_context(opener(path, image_path, header, data))
            except DataError as error:
                if error.kind != "size-mismatch":
                    raise
                failed = failed or error
                continue
            if order != AS_STORED:
                text = (
                    f"{path.name}: is in the pixels of {image_path.name} as stored, and is turned like them"
                )
                source.notes.append(("mask-turned", text))
            yield source if order == AS_STORED else _TurnedLabels(source, header, order)
            return
    assert failed is not None
    raise failed


class _TurnedLabels:
    """Ground truth of a stored array, turned like its image."""

    def __init__(self, source: LabelSource, stored: Info, order: Order) -> None:
        self.notes, self.found = source.notes, source.found

        def read(window: Window, plane: int) -> tuple[np.ndarray, np.ndarray | None]:
            labels = source.read(window, plane)
            return labels.classes, labels.instances

        self._read = TurnedReader(read, order, (stored.depth, stored.height, stored.width))

    def read(self, window: Window, plane: int = 0) -> Labels:
        """Class indices and object numbers of a window of a plane of the turned image."""
        return Labels(*self._read(window, plane))


def without_image(path: Path, images: Sequence[Path]) -> tuple[list[str], int]:
    """File names of the entries of an annotation file that belong to none of some images, and number of all entries.

    Without entries for formats of one image a file, and for files that cannot be read.

    Args:
        path: of the annotation file.
        images: absolute paths.
    """
    if is_raster(path):
        return [], 0
    try:
        module = _format_of(path)
        if not hasattr(module, "entries"):
            return [], 0
        entries = module.entries(path)
    except DataError:
        # the images are quarantined with this error
        return [], 0
    return entries.unmatched(images), len(entries)


def _format_of(path: Path) -> ModuleType:
    """Module of a file's format, by its extension and, where several formats share it, by its content."""
    name = path.name.lower()
    modules = [m for m in plugins.load_all(__name__) if m.EXTENSIONS and name.endswith(tuple(m.EXTENSIONS))]
    if len(modules) < 2:
        return modules[0] if modules else plugins.load(__name__, "masks")
    # The error of COCO names the other formats.
    return next((m for m in modules if m.reads(path)), plugins.load(__name__, "coco"))


def read_labels(path: Path, image_path: Path, image: Info, data: Data, plane: int = 0) -> Labels:
    """Ground truth of a whole plane of an image.

    Raises:
        DataError: as `open_labels` and `LabelSource.read`.
    """
    with open_labels(path, image_path, image, data) as source:
        return source.read((0, 0, image.height, image.width), plane)
