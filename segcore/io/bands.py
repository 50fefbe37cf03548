"""Pixels of an image as params.yaml declares them: bands, nodata values and scale."""

from dataclasses import replace

import numpy as np

from segcore.data.raster import Raster, Window, pieces
from segcore.errors import DataError
from segcore.io.images import Source
from segcore.io.images._nodata import fitting, has_value
from segcore.params.data import Data

# Number of pixels that an item's percentiles are computed from.
_SAMPLES = 2**18


class Declared:
    """An open image with the bands, validity and scale of the data section of params.yaml.

    Args:
        source: the open image.
        data: the data section.
        name: of the image, for errors.

    Attributes:
        info: header, with the bands and dtype of the pixels that `read` returns.
        range: [low, high], each (C,), the values that are scaled to 0 and 1; None without scaling per item.

    Raises:
        DataError: a band in data.bands does not exist.
    """

    def __init__(self, source: Source, data: Data, name: str) -> None:
        self._source, self._data, self._name = source, data, name
        first = self._selected(source.read((0, 0, 1, 1)))[0]
        self.info = replace(source.info, bands=first.shape[0], dtype=str(first.dtype))
        self.range: list[list[float]] | None = None
        if data.scale == "item":
            self.range = self._percentiles()
            self.info = replace(self.info, dtype="float32")

    def read(self, window: Window, plane: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (C, H, W), 0 where invalid, and validity (H, W) bool of a window of a plane.

        Raises:
            DataError: the file cannot be read.
        """
        pixels, valid = self._selected(self._source.read(window, plane))
        if self.range is not None:
            low, high = (np.asarray(v, np.float32)[:, None, None] for v in self.range)
            pixels = (np.clip(pixels, low, high) - low) / (high - low)
        if not valid.all():
            pixels = np.where(valid, pixels, np.zeros((), pixels.dtype))
        return pixels, valid

    def _selected(self, raster: Raster) -> tuple[np.ndarray, np.ndarray]:
        pixels, valid, data = raster.pixels, raster.valid, self._data
        # Indices have no order, so they are replaced by their colours.
        if raster.info.palette:
            colors = np.zeros((256, 3), np.uint8)
            colors[: len(raster.info.palette)] = raster.info.palette[:256]
            pixels = np.moveaxis(colors[pixels[0]], -1, 0)
        if data.grey_to_rgb and pixels.shape[0] == 1:
            pixels = np.repeat(pixels, 3, axis=0)
        if data.bands is not None:
            if max(data.bands) > pixels.shape[0] or min(data.bands) < 1:
                raise DataError(
                    f"{self._name}: has {pixels.shape[0]} bands, but data.bands is {data.bands}",
                    "correct data.bands, or remove the image",
                    kind="band-missing",
                )
            pixels = pixels[[band - 1 for band in data.bands]]
        if data.nodata is not None:
            valid = valid & ~has_value(pixels, fitting(data.nodata, pixels.dtype)).all(axis=0)
        if np.issubdtype(pixels.dtype, np.floating):
            valid = valid & np.isfinite(pixels).all(axis=0)
        return pixels, valid

    def _percentiles(self) -> list[list[float]]:
        """[low, high] percentiles of the item's bands, from evenly spaced valid pixels."""
        info = self.info
        step = max(1, round((info.depth * info.height * info.width / _SAMPLES) ** 0.5))
        samples = []
        for plane in range(info.depth):
            for window in pieces(info):
                pixels, valid = self._selected(self._source.read(window, plane))
                rows, cols = (slice(-start % step, None, step) for start in window[:2])
                samples.append(pixels[:, rows, cols][:, valid[rows, cols]])
        values = np.concatenate(samples, axis=1).astype(np.float64)
        if values.size == 0:
            return [[0.0] * info.bands, [1.0] * info.bands]
        low, high = np.percentile(values, self._data.percentiles, axis=1)
        return [low.tolist(), np.maximum(high, low + np.maximum(np.abs(low), 1) * 1e-6).tolist()]
