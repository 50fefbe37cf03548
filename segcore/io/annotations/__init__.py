"""One file a kind of ground truth: `ENDINGS` and `open_labels(path, image_path, image, data)`.

Whatever ground truth is stored as, it comes out as class indices on the grid of its image.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from segcore import plugins
from segcore.data.raster import Info, Window
from segcore.params.data import Data


@dataclass(frozen=True)
class Labels:
    """A window of ground truth.

    Attributes:
        classes: (H, W) uint8 class indices, IGNORE where the mask says so or has no data.
        instances: (H, W) uint32 numbers of objects, 0 for none; None where the ground truth has no objects.
    """

    classes: np.ndarray
    instances: np.ndarray | None = None


class LabelSource(Protocol):
    """Open ground truth on the grid of its image.

    Attributes:
        notes: what is allowed but worth telling, as (kind, text), known once all was read.
    """

    notes: list[tuple[str, str]]

    def read(self, window: Window, plane: int = 0) -> Labels:
        """Class indices of a window of a plane.

        Raises:
            DataError: it cannot be read, or holds what label_values does not declare.
        """
        ...


def open_labels(path: Path, image_path: Path, image: Info, data: Data) -> AbstractContextManager[LabelSource]:
    """Open the ground truth of one image.

    Args:
        path: of the ground truth; its ending decides what it is, and anything else is a raster.
        image_path: of the image, because files of polygons and COCO annotations speak of many.
        image: header of the image.
        data: label_values and label_property say what becomes which class.

    Raises:
        DataError: it cannot be read, or does not lie on the image's grid.
    """
    name = path.name.lower()
    chosen = next(
        (m for m in plugins.load_all(__name__) if m.ENDINGS and name.endswith(tuple(m.ENDINGS))),
        plugins.load(__name__, "masks"),
    )
    opened: AbstractContextManager[LabelSource] = chosen.open_labels(path, image_path, image, data)
    return opened


@contextmanager
def _once(path: Path, image_path: Path, image: Info, data: Data) -> Iterator[LabelSource]:
    with open_labels(path, image_path, image, data) as source:
        yield source


def read_labels(path: Path, image_path: Path, image: Info, data: Data, plane: int = 0) -> Labels:
    """All ground truth of a plane of an image."""
    with _once(path, image_path, image, data) as source:
        return source.read((0, 0, image.height, image.width), plane)
