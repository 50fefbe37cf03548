"""Opens files with one GDAL driver and checks their headers."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from segcore.errors import DataError
from segcore.io.images._checks import RESTORE, unreadable

MOST_BLOCK_PIXELS = 2**28
_BLOCKS_CHECKED = 4096
# A small cache bounds the memory; folders are not listed, because they may hold very many files.
_SETTINGS = {"GDAL_CACHEMAX": 32_000_000, "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"}
# On damaged files rasterio raises more than RasterioError.
_ERRORS = (RasterioError, CPLE_BaseError, OSError, ValueError, TypeError, OverflowError, UnicodeError)


@contextmanager
def failures(path: Path) -> Iterator[None]:
    """Turn errors of GDAL into DataError."""
    try:
        yield
    except _ERRORS as error:
        raise unreadable(
            path, error.__cause__ if isinstance(error.__cause__, CPLE_BaseError) else error
        ) from error


def environment() -> rasterio.Env:
    """GDAL's options for reading, of the thread that enters it."""
    return rasterio.Env(**_SETTINGS)


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # An image without georeference is allowed; its `Info.transform` is None.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def open_dataset(name: str, path: Path, driver: str) -> Iterator[rasterio.DatasetReader]:
    """A data set with a sound header; opened within `environment`.

    Args:
        name: of the data set for GDAL.
        path: of the file, for errors.
        driver: the only driver that may open it.

    Raises:
        DataError: it is damaged or truncated, or cannot be read.
    """
    with failures(path), quiet():
        source = rasterio.open(name, driver=driver)
    # Not `with source`, which changes GDAL's options of the thread that leaves it, perhaps another than this one.
    try:
        with failures(path), quiet():
            _check_header(path, source, path.stat().st_size)
        yield source
    finally:
        source.close()


def _check_header(path: Path, source: rasterio.DatasetReader, size: int) -> None:
    """Check a header for what cannot be read.

    Raises:
        DataError: bands of different types, complex numbers, too large blocks, or a truncated file.
    """
    name = path.name
    kinds = sorted(set(source.dtypes))
    if len(kinds) > 1:
        raise DataError(
            f"{name}: bands have different data types ({', '.join(kinds)})",
            "convert all bands to one data type (gdal_translate -ot)",
            kind="unreadable",
        )
    if kinds[0].startswith("complex"):
        raise DataError(
            f"{name}: values are complex numbers ({kinds[0]})",
            "store amplitude, or amplitude and phase as two bands",
            kind="unreadable",
        )
    rows, columns = source.block_shapes[0]
    if rows * columns > MOST_BLOCK_PIXELS:
        raise DataError(
            f"{name}: is stored in blocks of {rows} x {columns} pixels, more than {MOST_BLOCK_PIXELS}",
            "write it tiled: gdal_translate -co TILED=YES -co COMPRESS=DEFLATE",
            kind="too-large",
        )
    if source.driver == "GTiff":
        required = _required_size(source)
        if required > size:
            raise DataError(
                f"{name}: truncated: {size} bytes, header requires {required}", RESTORE, kind="unreadable"
            )


def _required_size(source: rasterio.DatasetReader) -> int:
    """Bytes up to the end of the last block; of very many blocks only the first and last ones are checked.

    Blocks that were never written have no offset and are skipped, so sparse files pass.
    """
    rows, columns = source.block_shapes[0]
    down, across = math.ceil(source.height / rows), math.ceil(source.width / columns)
    blocks = range(down * across)
    half = _BLOCKS_CHECKED // 2
    checked = [*blocks] if len(blocks) <= 2 * half else [*blocks[:half], *blocks[-half:]]
    end = 0
    # Bands with pixel interleaving share their blocks.
    interleaved = source.interleaving is not None and source.interleaving.value == "PIXEL"
    for band in {1} if interleaved else {1, source.count}:
        for index in checked:
            at = f"{index % across}_{index // across}"
            offset = source.get_tag_item(f"BLOCK_OFFSET_{at}", "TIFF", bidx=band)
            length = source.get_tag_item(f"BLOCK_SIZE_{at}", "TIFF", bidx=band)
            if offset and length:
                end = max(end, int(offset) + int(length))
    return end
