"""Pixels, their validity and where they lie travel together."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

Window = tuple[int, int, int, int]  # row, column, height, width in pixels


@dataclass(frozen=True)
class Info:
    """What an image's header says.

    Attributes:
        height, width: of one plane, in pixels.
        bands: channels of a pixel.
        dtype: numpy's name of the values.
        crs: coordinate reference system as "EPSG:..." or WKT; None without one.
        transform: affine of pixel corners to CRS coordinates, six numbers (a, b, c, d, e, f); None without one.
        nodata: value that stands for no data.
        depth: planes of a volume; 1 for a picture.
        spacing: of a volume, in mm: between planes, rows, columns.
        affine: of a volume as stored, 16 numbers row by row: voxel index to mm (RAS+); None without one.
        orientation: of a volume as stored, such as "RAS" or "LPS"; planes are handed out as in RAS.
        axis: of a volume in RAS order, the one that planes are numbered along: 0, 1 or 2.
        canonical: of a volume, 16 numbers: (plane, row, column) as handed out to mm (RAS+); None without one.
        palette: colours (R, G, B) of index values, for pictures that have a palette.
        lossy: whether the file was compressed with loss, as a JPEG is.
        block: rows and columns of what the file stores in one piece; None where it is read whole.
    """

    height: int
    width: int
    bands: int
    dtype: str
    crs: str | None = None
    transform: tuple[float, ...] | None = None
    nodata: float | None = None
    depth: int = 1
    spacing: tuple[float, float, float] | None = None
    affine: tuple[float, ...] | None = None
    orientation: str | None = None
    axis: int = 2
    canonical: tuple[float, ...] | None = None
    palette: tuple[tuple[int, int, int], ...] | None = None
    lossy: bool = False
    block: tuple[int, int] | None = None


@dataclass(frozen=True)
class Raster:
    """A window of one plane of an image.

    Attributes:
        pixels: (bands, height, width), the file's own dtype and values.
        valid: (height, width) bool, False where the file has no data.
        info: of the whole file.
    """

    pixels: np.ndarray
    valid: np.ndarray
    info: Info


def pieces(info: Info, pixels: int = 2**20) -> Iterator[Window]:
    """Windows that cover a plane, of about `pixels` pixels each and of whole blocks, so that none is decoded twice.

    They are as wide as that allows, because long runs of pixels are written many times faster than short ones.
    """
    block_rows, block_cols = info.block or (info.height, info.width)
    cols = info.width
    if block_cols < info.width:  # tiled
        cols = min(block_cols * max(1, pixels // (block_rows * block_cols)), info.width)
    rows = block_rows * max(1, pixels // max(cols * block_rows, 1))
    for row in range(0, info.height, rows):
        for col in range(0, info.width, cols):
            yield row, col, min(rows, info.height - row), min(cols, info.width - col)
