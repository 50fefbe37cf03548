"""Rasters of object numbers (data.objects), whose classes are in the mask of the image."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from segcore.data.raster import Info, Note, Window
from segcore.errors import DataError
from segcore.io import images
from segcore.io.annotations._shared import named
from segcore.io.annotations._whole import Whole
from segcore.io.annotations.masks import open_raster
from segcore.params.data import Data

_MOST = int(np.iinfo(np.uint32).max)


class Numbers:
    """An open raster of object numbers.

    Args:
        name: of the file.
        source: the open raster.
    """

    def __init__(self, name: str, source: images.Source) -> None:
        self.name, self._source, self._whole = name, source, Whole(name)

    @property
    def notes(self) -> list[Note]:
        """What was done to the raster; complete once every window was read."""
        return [*named(self.name, self._source.info.notes), *self._whole.notes]

    def read(self, window: Window, plane: int = 0) -> np.ndarray:
        """Object numbers (H, W) uint32 of a window of a plane, 0 for none and where the raster has no data.

        Raises:
            DataError: numbers are fractions, negative or too large, or bands differ.
        """
        raster = self._source.read(window, plane)
        whole = self._whole.of(raster)
        if any(not np.array_equal(whole[0], other) for other in whole[1:]):
            raise DataError(
                f"{self.name}: has {len(whole)} bands that differ where object numbers are expected",
                "save the numbers as one band of 32-bit integers, such as a GeoTIFF",
                kind="label-bands",
            )
        numbers = np.where(raster.valid, whole[0], 0)
        low, high = int(numbers.min()), int(numbers.max())
        if low < 0 or high > _MOST:
            raise DataError(
                f"{self.name}: object numbers range from {low} to {high}",
                f"number objects from 1 to {_MOST}, with 0 where there is none; if a negative value marks pixels "
                "without an object, declare it as nodata in the header of the file",
                kind="object-numbers",
            )
        return numbers.astype(np.uint32)


@contextmanager
def open_numbers(path: Path, image_path: Path, image: Info, data: Data) -> Iterator[Numbers]:
    """Open a raster of object numbers.

    Raises:
        DataError: it is no raster, is a JPEG, cannot be read, or is not on the image's grid.
    """
    with open_raster(path, image_path, image, data) as source:
        yield Numbers(path.name, source)
