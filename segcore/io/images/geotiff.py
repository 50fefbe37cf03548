"""GeoTIFF and VRT through rasterio, with nodata, alpha and internal masks as validity."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from segcore.data.raster import Info, Raster, Window
from segcore.errors import DataError
from segcore.io.images._checks import RESTORE, check_file, unreadable
from segcore.io.images._vrt import local_vrt

EXTENSIONS = (".tif", ".tiff", ".vrt")
MOST_BLOCK_PIXELS = 2**28
_BLOCKS_CHECKED = 4096
# A small cache bounds the memory; folders are not listed, because they may hold very many files.
_SETTINGS = {"GDAL_CACHEMAX": 32_000_000, "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"}
# On damaged files rasterio raises more than RasterioError.
_ERRORS = (RasterioError, CPLE_BaseError, OSError, ValueError, TypeError, OverflowError, UnicodeError)


@contextmanager
def _failures(path: Path) -> Iterator[None]:
    """Turn errors of GDAL into DataError."""
    try:
        yield
    except _ERRORS as error:
        raise unreadable(
            path, error.__cause__ if isinstance(error.__cause__, CPLE_BaseError) else error
        ) from error


class _GeoTiff:
    """An open GeoTIFF or VRT."""

    def __init__(self, path: Path, source: rasterio.DatasetReader) -> None:
        self._path = path
        self._source = source
        alpha = [i for i, use in enumerate(source.colorinterp, 1) if use == ColorInterp.alpha]
        bands = [i for i in range(1, source.count + 1) if i not in alpha]
        self._bands, self._alpha = (bands, alpha) if bands else (alpha, [])
        self.info = _info(source, self._bands)

    def read(self, window: Window | None = None, plane: int = 0) -> Raster:
        """Pixels (bands, height, width) of a window or of the whole file.

        A pixel is valid unless it is transparent or masked in the file, NaN or infinite in any band, or nodata.
        A pixel with nodata in only some bands is invalid if nodata cannot be a regular value. For 8-bit files, and for
        nodata of 0, it can, so there all bands must have it.

        Raises:
            DataError: the file is damaged within the window.
        """
        area = RasterioWindow(window[1], window[0], window[3], window[2]) if window else None
        with _failures(self._path):
            pixels = self._source.read(self._bands, window=area)
            valid = ~_nodata(pixels, [self._source.nodatavals[i - 1] for i in self._bands])
            for band in self._alpha:
                valid &= self._source.read(band, window=area) > 0
            flags = self._source.mask_flag_enums[self._bands[0] - 1]
            if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
                valid &= self._source.read_masks(self._bands[0], window=area) > 0
        return Raster(pixels, valid, self.info)


def _nodata(pixels: np.ndarray, nodata: list[float | None]) -> np.ndarray:
    """Where pixel values mean no data, (height, width) bool.

    Args:
        pixels: (bands, height, width).
        nodata: nodata value of each band.
    """
    floating = np.issubdtype(pixels.dtype, np.floating)
    not_finite = ~np.isfinite(pixels).all(axis=0) if floating else np.zeros(pixels.shape[1:], bool)
    fits = [n is not None and math.isfinite(n) and (floating or n in _span(pixels.dtype)) for n in nodata]
    if not any(fits):
        return not_finite
    equal = np.stack(
        [
            band == np.array(value).astype(pixels.dtype) if fit else np.zeros(band.shape, bool)
            for band, value, fit in zip(pixels, nodata, fits, strict=True)
        ]
    )
    regular_value = pixels.dtype == np.uint8 or all(value in (0, None) for value in nodata)
    return not_finite | (equal.all(axis=0) if regular_value else equal.any(axis=0))


def _span(dtype: np.dtype) -> range:
    return range(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max) + 1)


def _info(source: rasterio.DatasetReader, bands: list[int]) -> Info:
    palette = None
    if len(bands) == 1 and source.colorinterp[bands[0] - 1] == ColorInterp.palette:
        table = source.colormap(bands[0])
        palette = tuple(tuple(table.get(i, (0, 0, 0))[:3]) for i in range(max(table) + 1))
    return Info(
        lossy="JPEG" in (source.driver, getattr(source.compression, "value", None)),
        height=source.height,
        width=source.width,
        bands=len(bands),
        dtype=source.dtypes[bands[0] - 1],
        crs=source.crs.to_string() if source.crs else None,
        transform=None if source.transform.is_identity else tuple(source.transform)[:6],
        nodata=source.nodatavals[bands[0] - 1],
        palette=palette,
        block=tuple(source.block_shapes[bands[0] - 1]),
    )


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


def _driver(path: Path) -> str:
    """Name of the only GDAL driver that may open a .tif.

    Tiles from tile servers are often JPEG or PNG with the extension .tif, and a sidecar file with their location.
    """
    with path.open("rb") as stream:
        start = stream.read(8)
    return {b"\xff\xd8": "JPEG", b"\x89P": "PNG"}.get(start[:2], "GTiff")


def sources(path: Path) -> list[Path]:
    """Files that a VRT mosaics, absolute.

    Raises:
        DataError: as `open_source` of a VRT.
    """
    check_file(path)
    return local_vrt(path)[1]


@contextmanager
def open_source(
    path: Path, slices: str | int = "auto", pages: str | None = None, bands: tuple[int, ...] | None = None
) -> Iterator[_GeoTiff]:
    """Open a GeoTIFF or VRT; it stays open for all windows.

    A VRT may only mosaic GeoTIFFs in its folder tree. Palette files are read as indices.

    Raises:
        DataError: the file is empty, may not be read, is damaged or truncated, holds complex numbers, has blocks that
            are too large for memory, or is a VRT that refers to files outside its folder.
    """
    size = check_file(path)
    is_vrt = path.name.lower().endswith(".vrt")
    name = local_vrt(path)[0] if is_vrt else str(path.absolute())
    with rasterio.Env(**_SETTINGS):
        with _failures(path), warnings.catch_warnings():
            # An image without georeference is allowed; its `Info.transform` is None.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            source = rasterio.open(name, driver="VRT" if is_vrt else _driver(path))
        with source:
            with _failures(path), warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                _check_header(path, source, size)
                opened = _GeoTiff(path, source)
            yield opened


def write(path: Path, pixels: np.ndarray, like: Info) -> None:
    """Write pixels (bands, height, width) on the grid of `like`, as a compressed GeoTIFF."""
    profile = {
        "driver": "GTiff",
        "count": pixels.shape[0],
        "height": pixels.shape[1],
        "width": pixels.shape[2],
        "dtype": pixels.dtype,
        "compress": "deflate",
        "nodata": like.nodata,
    }
    if like.crs:
        profile["crs"] = like.crs
    if like.transform:
        profile["transform"] = rasterio.Affine(*like.transform)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile) as out:
            out.write(pixels)
