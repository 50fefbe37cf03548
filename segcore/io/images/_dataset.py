"""An open GDAL data set, with nodata, alpha and internal masks as validity."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window as RasterioWindow

from segcore.data.raster import Info, Raster, Window
from segcore.io.images import LABELS
from segcore.io.images._alpha import alpha_bands
from segcore.io.images._gdal import failures
from segcore.io.images._nodata import exact, fitting, is_nodata
from segcore.io.images._position import position
from segcore.io.images._scales import as_declared
from segcore.io.images._tiff_tags import Tag

JPEG_2000 = "JP2OpenJPEG"


class Dataset:
    """An open raster, or one page of a TIFF.

    Grey values of images whose lowest value is white (MinIsWhite) are inverted, as viewers show them. Scale and offset
    of bands are not applied.

    Args:
        path: of the file.
        source: the open file.
        wanted: bands that are data by the user's settings; None: not set; LABELS: it is a mask.
        tags: of a TIFF, from `first_tags`.
        alpha: bands that are transparency; None: found by their values.
    """

    def __init__(
        self,
        path: Path,
        source: rasterio.DatasetReader,
        wanted: Sequence[int] | None,
        tags: Mapping[int, Tag],
        alpha: list[int] | None = None,
    ) -> None:
        self._path, self._source, self.tags = path, source, tags
        found, self._notes = alpha_bands(source, tags, wanted) if alpha is None else (alpha, [])
        self.alpha = found
        # Alpha before a wanted band is read too, so that bands are numbered as in the file.
        last = max(wanted, default=0) if wanted else 0
        self._bands = [b for b in range(1, source.count + 1) if b not in found or b < last]
        dtype = np.dtype(source.dtypes[self._bands[0] - 1])
        declared = [exact(tags, n, dtype) for n in source.nodatavals]
        self.nodata = [None if b in found else fitting(declared[b - 1], dtype) for b in self._bands]
        self._is_data = [b not in found for b in self._bands]
        self._most, noted = as_declared(source, self._bands, is_mask=wanted == LABELS)
        self._notes += noted
        first = declared[self._bands[0] - 1]
        if self._most is not None:
            inverted = [self._most - n if isinstance(n, int) else None for n in self.nodata]
            self.nodata, first = [*inverted], inverted[0]
        self.info = self._info(first)

    def _info(self, nodata: float | None) -> Info:
        source, band = self._source, self._bands[0]
        palette = None
        if len(self._bands) == 1 and source.colorinterp[band - 1] == ColorInterp.palette:
            table = source.colormap(band)
            palette = tuple(tuple(table.get(i, (0, 0, 0))[:3]) for i in range(max(table) + 1))
        place, notes = position(source, self._path)
        not_a_number = (
            nodata is not None and math.isnan(nodata) and source.dtypes[band - 1].startswith("float")
        )
        return Info(
            lossy=_is_lossy(source),
            height=source.height,
            width=source.width,
            bands=len(self._bands),
            dtype=source.dtypes[band - 1],
            nodata=float(nodata)
            if nodata is not None and (not_a_number or self.nodata[0] is not None)
            else None,
            palette=palette,
            block=tuple(source.block_shapes[band - 1]),
            notes=(*self._notes, *notes),
            **place,
        )

    def read(self, window: Window | None = None, plane: int = 0) -> Raster:
        """Pixels (bands, height, width) of a window or of the whole file.

        A pixel is valid unless it is transparent or masked in the file, NaN or infinite in any band, or nodata
        (`segcore.io.images._nodata.is_nodata`).

        Raises:
            DataError: the file is damaged within the window.
        """
        pixels, visible = self.values(window)
        if all(self._is_data):
            return Raster(pixels, visible & ~is_nodata(pixels, self.nodata), self.info)
        nodata = [n for n, is_data in zip(self.nodata, self._is_data, strict=True) if is_data]
        return Raster(pixels, visible & ~is_nodata(pixels[self._is_data], nodata), self.info)

    def values(self, window: Window | None) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (bands, height, width) of a window, and where they are not transparent or masked.

        Raises:
            DataError: the file is damaged within the window.
        """
        area = RasterioWindow(window[1], window[0], window[3], window[2]) if window else None
        with failures(self._path):
            pixels = self._source.read(self._bands, window=area)
            if self._most is not None:
                pixels = pixels.dtype.type(self._most) - pixels
            visible = np.ones(pixels.shape[1:], bool)
            for band in self.alpha:
                visible &= self._source.read(band, window=area) > 0
            flags = self._source.mask_flag_enums[self._bands[0] - 1]
            if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
                visible &= self._source.read_masks(self._bands[0], window=area) > 0
        return pixels, visible


def _is_lossy(source: rasterio.DatasetReader) -> bool:
    """Whether the compression changes values; of JPEG 2000, which has both kinds, by its wavelet transform."""
    if source.driver == JPEG_2000:
        reversibility: str | None = source.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION_REVERSIBILITY")
        return reversibility is not None and not reversibility.startswith("LOSSLESS")
    return "JPEG" in (source.driver, getattr(source.compression, "value", None))
