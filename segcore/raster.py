"""Pixels, their validity and where they lie travel together."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segcore.errors import DataError

Window = tuple[int, int, int, int]  # row, column, height, width in pixels


@dataclass(frozen=True)
class Info:
    """What an image's header says: sizes in pixels, CRS as WKT or None, affine transform as six numbers or None."""

    height: int
    width: int
    bands: int
    dtype: str
    crs: str | None = None
    transform: tuple[float, ...] | None = None
    nodata: float | None = None


@dataclass(frozen=True)
class Raster:
    """A window of an image.

    Attributes:
        pixels: (bands, height, width), the file's own dtype and values.
        valid: (height, width) bool, False where the file has no data.
        info: of the whole file.
    """

    pixels: np.ndarray
    valid: np.ndarray
    info: Info


def same_place(image: Info, mask: Info, names: tuple[Path, Path]) -> None:
    """Check that a mask lies on its image's grid.

    Raises:
        DataError: size, CRS or transform differ; both values are in the message.
    """
    pair = f"{names[0].name} and its mask {names[1].name}"
    if (image.height, image.width) != (mask.height, mask.width):
        raise DataError(
            f"{pair}: sizes differ, image {image.height} x {image.width}, mask {mask.height} x {mask.width}",
            "crop or resample the mask (nearest neighbour) to the image's grid, or remove the pair",
        )
    if image.crs and mask.crs and image.crs != mask.crs:
        raise DataError(
            f"{pair}: coordinate systems differ, image {image.crs}, mask {mask.crs}",
            "reproject the mask to the image's coordinate system",
        )
    if (
        image.transform
        and mask.transform
        and not np.allclose(image.transform, mask.transform, rtol=1e-9, atol=1e-6)
    ):
        raise DataError(
            f"{pair}: affine transforms differ, image {image.transform}, mask {mask.transform}",
            "resample the mask (nearest neighbour) to the image's grid",
        )
