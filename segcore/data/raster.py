"""Pixels of an image with their validity and position."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# row, column, height, width in pixels
Window = tuple[int, int, int, int]
# kind (a key of segcore.ingest.problems.KINDS with outcome "noted") and text of what was done to an item on reading
Note = tuple[str, str]
# stored axes of planes, rows and columns as read (see segcore.data.axes)
Order = tuple[int, int, int]


@dataclass(frozen=True)
class Info:
    """Header of an image.

    Attributes:
        height: rows of one plane in pixels.
        width: columns of one plane in pixels.
        bands: values per pixel.
        dtype: numpy name of the data type of the values.
        crs: coordinate reference system as "EPSG:..." or WKT; None: none.
        transform: affine of pixel corners to CRS coordinates, six numbers (a, b, c, d, e, f); None: none.
        gcps: control points (row, column, x, y, z) of a file that has them in place of a transform; None: none.
        gcps_crs: coordinate reference system of the control points.
        rpcs: rational polynomial coefficients, as names and texts of GDAL; None: none.
        nodata: value of pixels without data; None: none.
        depth: planes of a volume or stack; 1 for a picture.
        is_stack: whether planes are pages or frames of a file, without a position in space.
        spacing: of a volume, in mm: between planes, rows, columns.
        affine: of a volume as stored, 16 numbers row by row: voxel index to mm (RAS+); None: none.
        orientation: axis codes of a volume as stored, such as "RAS" or "LPS".
        axis: RAS axis of a volume that planes are numbered along: 0, 1 or 2.
        canonical: of a volume, 16 numbers row by row: (plane, row, column) as read to mm (RAS+); None: none.
        palette: colours (R, G, B) of index values, for pictures that have a palette.
        lossy: whether the file has lossy compression, such as JPEG.
        block: rows and columns of the blocks that the file is stored in; None: it is read as a whole.
        order: stored axis (1 planes, 2 rows, 3 columns) of planes, rows and columns as read; negative: backwards.
        placed: False for a volume whose file lacks the position that its format has; its affine is then a default.
        notes: what the reader did to the file: turned it, left out a band, read pages as planes, and so on.
    """

    height: int
    width: int
    bands: int
    dtype: str
    crs: str | None = None
    transform: tuple[float, ...] | None = None
    gcps: tuple[tuple[float, float, float, float, float], ...] | None = None
    gcps_crs: str | None = None
    rpcs: tuple[tuple[str, str], ...] | None = None
    nodata: float | None = None
    depth: int = 1
    is_stack: bool = False
    spacing: tuple[float, float, float] | None = None
    affine: tuple[float, ...] | None = None
    orientation: str | None = None
    axis: int = 2
    canonical: tuple[float, ...] | None = None
    palette: tuple[tuple[int, int, int], ...] | None = None
    lossy: bool = False
    block: tuple[int, int] | None = None
    order: Order = (1, 2, 3)
    placed: bool = True
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class Raster:
    """A window of one plane of an image.

    Attributes:
        pixels: (bands, height, width), the file's own dtype and values.
        valid: (height, width) bool, False where the file has no data.
        info: header of the whole file.
    """

    pixels: np.ndarray
    valid: np.ndarray
    info: Info


def pieces(info: Info, pixels: int = 2**20) -> Iterator[Window]:
    """Windows that cover a plane, of about `pixels` pixels and whole blocks, so that no block is decoded twice.

    They are as wide as possible, because long runs of pixels are written much faster than short ones.
    """
    block_rows, block_cols = info.block or (info.height, info.width)
    cols = info.width
    is_tiled = block_cols < info.width
    if is_tiled:
        cols = min(block_cols * max(1, pixels // (block_rows * block_cols)), info.width)
    rows = block_rows * max(1, pixels // max(cols * block_rows, 1))
    for row in range(0, info.height, rows):
        for col in range(0, info.width, cols):
            yield row, col, min(rows, info.height - row), min(cols, info.width - col)
