"""Statistics from one pass over an item: class pixels, band ranges, valid pixels, and an even sample of pixels."""

import json
from typing import Any

import numpy as np

from segcore.constants import IGNORE
from segcore.data.class_counts import class_histogram
from segcore.data.packed import sample_shape, sample_step
from segcore.data.raster import Info, Window
from segcore.errors import DataError
from segcore.io.annotations import Labels
from segcore.params.data import Data


class Measures:
    """Running counts of one item.

    Args:
        info: header of the image.
        classes: number of classes.
    """

    def __init__(self, info: Info, classes: int) -> None:
        bands, self._classes = info.bands, classes
        self.pixels = info.depth * info.height * info.width
        self.valid = 0
        self.low, self.high = np.full(bands, np.inf), np.full(bands, -np.inf)
        self.class_pixels = np.zeros(256, dtype=np.int64)
        self.step = sample_step(info.height, info.width)
        size = sample_shape(info.height, info.width)
        self._sample = np.zeros((*size, bands), np.dtype(info.dtype))
        self._sample_valid = np.zeros(size, np.uint8)
        self._float = np.issubdtype(np.dtype(info.dtype), np.floating)

    def update(
        self, pixels: np.ndarray, valid: np.ndarray, labels: Labels, plane: int, window: Window
    ) -> None:
        """Add a window: pixels (C, h, w), valid (h, w) bool, labels (h, w)."""
        count = int(np.count_nonzero(valid))
        self.valid += count
        if count:
            some = count < valid.size
            for band, values in enumerate(pixels):
                part = values[valid] if some else values
                self.low[band] = min(self.low[band], part.min())
                self.high[band] = max(self.high[band], part.max())
        self.class_pixels += class_histogram(labels.classes, self._classes)
        row, col = window[0], window[1]
        first_row, first_col = -row % self.step, -col % self.step
        sampled = pixels[:, first_row :: self.step, first_col :: self.step]
        at = (
            slice((row + first_row) // self.step, (row + first_row) // self.step + sampled.shape[1]),
            slice((col + first_col) // self.step, (col + first_col) // self.step + sampled.shape[2]),
        )
        self._sample[at] = np.moveaxis(sampled, 0, -1)
        self._sample_valid[at] = valid[first_row :: self.step, first_col :: self.step]

    def take_sample(self) -> tuple[np.ndarray, np.ndarray]:
        """Copies of the sample (h, w, C) of the plane that was read last, and of its validity (h, w) uint8."""
        return self._sample.copy(), self._sample_valid.copy()

    def require_usable(self, name: str) -> None:
        """Check that the item can be used for training or scoring.

        Raises:
            DataError: no pixel is valid, all have the same value, or none is labelled.
        """
        if self.valid == 0:
            values = "NaN or infinite" if self._float else "nodata or transparent"
            raise DataError(
                f"{name}: no valid pixel, all {self.pixels} are {values}",
                "remove it, or correct its nodata value",
                kind="all-nodata",
            )
        if self.valid > 1 and (self.low == self.high).all():
            raise DataError(
                f"{name}: every valid pixel has the value {self.low.tolist()}",
                "restore the file from its source, or remove it",
                kind="constant",
            )
        if self.class_pixels[:IGNORE].sum() == 0:
            raise DataError(
                f"{name}: its mask leaves nothing to train on or score: all pixels are ignored",
                "correct data.label_values, or remove the pair",
                kind="all-ignored",
            )

    def notes(self, data: Data) -> list[tuple[str, str]]:
        """Notes on accepted but unusual content: (kind, text)."""
        notes = []
        constant = [str(i + 1) for i in np.nonzero(self.low == self.high)[0]]
        if constant:
            notes.append(("constant-band", f"band {', '.join(constant)} has a single value"))
        if self._float and self.valid < self.pixels:
            notes.append(("nan-pixels", f"{self.pixels - self.valid} pixels are not valid (NaN or nodata)"))
        present = [name for i, name in enumerate(data.classes) if self.class_pixels[i]]
        if data.background is not None and present == [data.background]:
            notes.append(("empty-mask", "contains only background"))
        elif len(present) == 1:
            notes.append(("one-class", f"contains only {present[0]}"))
        return notes

    def facts(self, data: Data) -> dict[str, Any]:
        """Columns of the catalogue with these statistics."""
        return {
            "valid_share": self.valid / max(self.pixels, 1),
            "pixels_per_class": json.dumps(
                {n: int(self.class_pixels[i]) for i, n in enumerate(data.classes)}
            ),
            "ignored_pixels": int(self.class_pixels[IGNORE]),
            "band_min": json.dumps(self.low.tolist()),
            "band_max": json.dumps(self.high.tolist()),
        }
