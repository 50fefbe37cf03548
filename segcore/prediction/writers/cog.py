"""Predictions of a scene as cloud-optimised GeoTIFF on the grid of the scene.

Blocks are written to a plain tiled file as they are finished; GDAL's COG driver then compresses it and adds overviews.
Both need a bounded cache, however large the scene is.
"""

import errno
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.rpc import RPC
from rasterio.windows import Window

from segcore.constants import IGNORE
from segcore.data.raster import Info
from segcore.errors import DataError, StageError

# 255 is nodata
PROBABILITY_STEPS = 254
_BLOCK = 512
_CACHE = 32_000_000
# A disk with fewer bytes is full: a block of pixels does not fit.
_LEAST_FREE = 2**20


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise errors of GDAL and of the file system as DataError.

    Args:
        path: what is written, for the error message.

    Raises:
        StageError: the disk is full, so no other file can be written either.
        DataError: it is not writable.
    """
    try:
        # scenes without georeference are allowed; a small GDAL cache
        with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=_CACHE):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            yield
    except (RasterioError, CPLE_BaseError, OSError) as error:
        reason = error.__cause__ if isinstance(error.__cause__, CPLE_BaseError) else error
        if _is_full(path.parent, error, str(reason)):
            raise _full(path) from error
        raise DataError(
            f"{path}: could not be written ({reason})",
            "free disk space or choose another output folder, then run again",
        ) from error


def _full(path: Path) -> StageError:
    return StageError(
        f"{path}: could not be written, because the disk is full",
        "free disk space or choose another output folder, then run again: finished scenes are kept",
    )


def _is_full(folder: Path, error: Exception, reason: str) -> bool:
    """Whether an error is that of a full disk; libtiff does not say why it could not write."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in reason:
        return True
    with suppress(OSError):
        return shutil.disk_usage(folder).free < _LEAST_FREE
    return False


def check_room(folder: Path, info: Info, bands: int) -> None:
    """Check that the disk has room for the plain files, with one byte per pixel and band.

    Raises:
        StageError: the disk is full.
        DataError: it has too little room for this scene. GDAL itself may truncate a file without an error.
    """
    needed, free = 2 * info.height * info.width * bands, shutil.disk_usage(folder).free
    if needed > free and free < _LEAST_FREE:
        raise _full(folder)
    if needed > free:
        raise DataError(
            f"{folder}: {needed / 1e9:.2g} GB may be needed for a scene of {info.height} x {info.width} pixels, "
            f"{free / 1e9:.2g} GB are free",
            "free disk space or choose another output folder, then run again",
        )


def create(
    path: Path, info: Info, bands: int, dtype: str = "uint8", nodata: int = IGNORE, **options: object
) -> rasterio.io.DatasetWriter:
    """Open a plain tiled GeoTIFF with `bands` bands at the place of `info`, written in any order.

    Args:
        path: of the file.
        info: of the scene.
        bands: number of bands.
        dtype: of the values.
        nodata: value without meaning.
        options: further creation options of GDAL.
    """
    georeference = {"crs": info.crs} if info.crs else {}
    if info.transform:
        georeference |= {"transform": rasterio.Affine(*info.transform)}
    file = rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=bands,
        height=info.height,
        width=info.width,
        dtype=dtype,
        nodata=nodata,
        tiled=True,
        blockxsize=_BLOCK,
        blockysize=_BLOCK,
        interleave="pixel",
        bigtiff="IF_NEEDED",
        **georeference,
        **options,
    )
    if info.gcps:
        file.gcps = control_points(info), info.gcps_crs and rasterio.CRS.from_user_input(info.gcps_crs)
    if info.rpcs:
        file.rpcs = RPC.from_gdal(dict(info.rpcs))
    return file


def control_points(info: Info) -> list[GroundControlPoint]:
    """The control points of a scene; empty if it has none."""
    return [GroundControlPoint(row, col, x, y, z) for row, col, x, y, z in info.gcps or ()]


def put(file: rasterio.io.DatasetWriter, row: int, col: int, values: np.ndarray) -> None:
    """Write (bands, height, width) with its first pixel at (row, col)."""
    file.write(values, window=Window(col, row, values.shape[2], values.shape[1]))


def describe_classes(
    file: rasterio.io.DatasetWriter, names: Sequence[str], colors: Sequence[Sequence[int]]
) -> None:
    """Set the colour table of a class raster, and the class names as tags CLASS_0, CLASS_1, ..."""
    table = {i: (*map(int, color), 255) for i, color in enumerate(colors)}
    file.write_colormap(1, {**table, IGNORE: (0, 0, 0, 0)})
    file.set_band_description(1, "class")
    file.update_tags(**{f"CLASS_{i}": name for i, name in enumerate(names)})


def describe_objects(file: rasterio.io.DatasetWriter) -> None:
    """Name the band of a map of object numbers."""
    file.set_band_description(1, "object")


def describe_probabilities(file: rasterio.io.DatasetWriter, names: Sequence[str]) -> None:
    """Name the bands after the classes, and set the scale that maps 0..254 to 0..1."""
    for band, name in enumerate(names, 1):
        file.set_band_description(band, name)
    file.scales = [1 / PROBABILITY_STEPS] * len(names)


def describe_confidence(file: rasterio.io.DatasetWriter) -> None:
    """Name the band, and set the scale that maps 0..254 to 0..1."""
    file.set_band_description(1, "confidence")
    file.scales = [1 / PROBABILITY_STEPS]


def to_cog(plain: Path, target: Path, resampling: str, tags: Mapping[str, str]) -> None:
    """Convert a plain file to a COG with overviews and the statistics of each band, and remove it.

    Args:
        plain: from `create`, closed.
        target: the COG.
        resampling: of the overviews, "NEAREST" for class indices and "AVERAGE" for probabilities and confidence.
        tags: further metadata.

    Raises:
        OSError, RasterioError: a file cannot be read or written.
    """
    try:
        file = rasterio.open(plain, "r+")
    except TypeError as error:
        # the error of rasterio for a file that is gone, in this mode
        raise FileNotFoundError(str(error)) from error
    with file:
        file.update_tags(**tags)
    rasterio.shutil.copy(
        plain,
        target,
        driver="COG",
        blocksize=_BLOCK,
        compress="DEFLATE",
        overviews="IGNORE_EXISTING",
        overview_resampling=resampling,
        statistics="YES",
        bigtiff="IF_SAFER",
        num_threads="ALL_CPUS",
    )
    plain.unlink()
