"""An image's pixels as params.yaml declares them: which bands, which values are no data, scaled by what."""

from dataclasses import replace

import numpy as np

from segcore.data.raster import Raster, Window, pieces
from segcore.errors import DataError
from segcore.io.images import Source
from segcore.params.data import Data

_SAMPLES = 2**18  # pixels that an item's percentiles are measured on


class Declared:
    """An open image with the bands, validity and scale that params.yaml asks for.

    Attributes:
        info: header, with the bands and the dtype that `read` gives.
        range: [low, high], each (C,), that the item's values were scaled from; None where they were not.

    Raises:
        DataError: a band that is asked for does not exist.
    """

    def __init__(self, source: Source, data: Data, name: str) -> None:
        self._source, self._data, self._name = source, data, name
        first = self._selected(source.read((0, 0, 1, 1)))[0]
        self.info = replace(source.info, bands=first.shape[0], dtype=str(first.dtype))
        self.range: list[list[float]] | None = None
        if data.scale == "item":
            self.range = self._measured()
            self.info = replace(self.info, dtype="float32")

    def read(self, window: Window, plane: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (C, H, W), 0 where invalid, and validity (H, W) bool of a window of a plane."""
        pixels, valid = self._selected(self._source.read(window, plane))
        if self.range is not None:
            low, high = (np.asarray(v, np.float32)[:, None, None] for v in self.range)
            pixels = (np.clip(pixels, low, high) - low) / (high - low)
        if not valid.all():
            pixels = np.where(valid, pixels, np.zeros((), pixels.dtype))
        return pixels, valid

    def _selected(self, raster: Raster) -> tuple[np.ndarray, np.ndarray]:
        pixels, valid, data = raster.pixels, raster.valid, self._data
        if raster.info.palette:  # an index is no brightness
            colors = np.zeros((256, 3), np.uint8)
            colors[: len(raster.info.palette)] = raster.info.palette[:256]
            pixels = np.moveaxis(colors[pixels[0]], -1, 0)
        if data.grey_to_rgb and pixels.shape[0] == 1:
            pixels = np.repeat(pixels, 3, axis=0)
        if data.bands is not None:
            if max(data.bands) > pixels.shape[0] or min(data.bands) < 1:
                raise DataError(
                    f"{self._name}: has {pixels.shape[0]} bands, data.bands asks for {data.bands}",
                    "correct data.bands, or remove the image",
                    kind="band-missing",
                )
            pixels = pixels[[band - 1 for band in data.bands]]
        if data.nodata is not None:
            valid = valid & ~(pixels == data.nodata).all(axis=0)
        if np.issubdtype(pixels.dtype, np.floating):
            valid = valid & np.isfinite(pixels).all(axis=0)
        return pixels, valid

    def _measured(self) -> list[list[float]]:
        """The item's own percentiles, of evenly spaced valid pixels."""
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
