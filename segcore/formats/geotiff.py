"""GeoTIFF through rasterio, with nodata, alpha and internal masks as validity."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from segcore.errors import DataError
from segcore.raster import Info, Raster, Window

ENDINGS = (".tif", ".tiff")


@contextmanager
def _opened(path: Path) -> Iterator[rasterio.DatasetReader]:
    with warnings.catch_warnings():
        # An image without georeference is fine here: `Info.transform` is None then.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.open(path) as source:
                yield source
        except RasterioError as error:
            reason = str(error).replace(f"{path.parent}/", "")
            raise DataError(
                f"{path.name}: cannot be read ({reason})",
                "restore the file from its source, or remove the pair",
            ) from error


def _info(source: rasterio.DatasetReader) -> Info:
    return Info(
        height=source.height,
        width=source.width,
        bands=source.count,
        dtype=source.dtypes[0],
        crs=source.crs.to_string() if source.crs else None,
        transform=None if source.transform.is_identity else tuple(source.transform)[:6],
        nodata=source.nodata,
    )


def info(path: Path) -> Info:
    """Header of a GeoTIFF."""
    with _opened(path) as source:
        return _info(source)


def read(path: Path, window: Window | None = None) -> Raster:
    """Pixels (bands, height, width) and validity of a window or of the whole file."""
    with _opened(path) as source:
        area = RasterioWindow(window[1], window[0], window[3], window[2]) if window else None
        pixels = source.read(window=area)
        valid = source.dataset_mask(window=area) > 0
        if np.issubdtype(pixels.dtype, np.floating):
            valid &= np.isfinite(pixels).all(axis=0)
        return Raster(pixels, valid, _info(source))


def write(path: Path, pixels: np.ndarray, like: Info) -> None:
    """Write (bands, height, width) on the grid of `like`, as a tiled, compressed GeoTIFF."""
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
