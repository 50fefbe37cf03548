"""Predicted stacks as TIFF with one page per plane, like their source."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segcore.data.raster import Info
from segcore.prediction.writers import cog


def write_stack(
    path: Path, planes: np.ndarray, info: Info, names: Sequence[str], colors: Sequence[Sequence[int]]
) -> None:
    """Write class indices as a TIFF of several pages, each on the grid of the source.

    Args:
        path: of the file; an existing one is replaced.
        planes: (D, H, W) uint8, in the order of the pages.
        info: of the source.
        names: of the classes.
        colors: red, green and blue of each class.

    Raises:
        OSError, RasterioError: the disk is full or not writable.
    """
    path.unlink(missing_ok=True)
    for number, plane in enumerate(planes):
        page = cog.create(path, info, 1, compress="DEFLATE", append_subdataset=number > 0)
        with page:
            cog.put(page, 0, 0, plane[None])
            cog.describe_classes(page, names, colors)


def write_object_stack(path: Path, planes: np.ndarray, info: Info) -> None:
    """Write object numbers as a TIFF of several pages.

    Args:
        path: of the file; an existing one is replaced.
        planes: (D, H, W) uint32, 0 where there is no object.
        info: of the source.

    Raises:
        OSError, RasterioError: the disk is full or not writable.
    """
    path.unlink(missing_ok=True)
    for number, plane in enumerate(planes):
        page = cog.create(path, info, 1, "uint32", 0, compress="DEFLATE", append_subdataset=number > 0)
        with page:
            cog.put(page, 0, 0, plane[None])
            cog.describe_objects(page)
