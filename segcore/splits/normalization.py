"""Statistics of the training split: mean, std and range per band, pixels per class. Other splits are not used."""

from typing import Any

import numpy as np
import pandas as pd

from segcore.data.class_counts import class_histogram
from segcore.data.packed import Packed
from segcore.errors import DataError
from segcore.params.data import Data

_PIXELS_AT_ONCE = 2**20
# rows whose squared 8-bit values sum exactly in float32: 256 x 255^2 < 2^24
_EXACT_ROWS = 256


class BandStatistics:
    """Mean, standard deviation and class counts of pixels, summed in float64."""

    def __init__(self, bands: int, classes: int) -> None:
        self.count = 0
        self.total = np.zeros(bands)
        self.squares = np.zeros(bands)
        self.class_pixels = np.zeros(classes, dtype=np.int64)

    def update(self, image: np.ndarray, label: np.ndarray, valid: np.ndarray) -> None:
        """Add pixels (h, w, C), labels (h, w) uint8 and validity (h, w) bool."""
        whole = bool(valid.all())
        self.count += int(np.count_nonzero(valid))
        if image.dtype == np.uint8:
            for row in range(0, len(image), _EXACT_ROWS):
                self._add_bytes(image[row : row + _EXACT_ROWS], valid[row : row + _EXACT_ROWS], whole)
        else:
            wide = (image.reshape(-1, image.shape[-1]) if whole else image[valid]).astype(np.float64)
            self.total += wide.sum(axis=0)
            self.squares += (wide**2).sum(axis=0)
        classes = len(self.class_pixels)
        self.class_pixels += class_histogram(label if whole else label[valid], classes)[:classes]

    def _add_bytes(self, image: np.ndarray, valid: np.ndarray, whole: bool) -> None:
        """Add at most 256 rows of uint8: float32 sums of a column are whole numbers below 2^24 and therefore exact."""
        values = image.astype(np.float32)
        if not whole:
            values *= valid[..., None]
        rows = values.reshape(len(values), -1)
        self.total += rows.sum(axis=0).reshape(-1, len(self.total)).sum(axis=0, dtype=np.float64)
        rows *= rows
        self.squares += rows.sum(axis=0).reshape(-1, len(self.total)).sum(axis=0, dtype=np.float64)

    def add(self, sums: dict[str, Any]) -> None:
        """Add the result of `sums` of other statistics."""
        self.count += sums["count"]
        self.total += sums["total"]
        self.squares += sums["squares"]
        self.class_pixels += sums["class_pixels"]

    def sums(self) -> dict[str, Any]:
        """Counts and sums so far, which can be written as JSON."""
        return {
            "count": self.count,
            "total": self.total.tolist(),
            "squares": self.squares.tolist(),
            "class_pixels": self.class_pixels.tolist(),
        }

    def result(self) -> dict[str, Any]:
        """Mean and std per band (std at least 1e-6), number of pixels, and pixels per class.

        Raises:
            DataError: no training pixel is valid.
        """
        if self.count == 0:
            raise DataError(
                "the training split has no valid pixel", "check nodata of the images, or the split"
            )
        mean = self.total / self.count
        std = np.sqrt(np.maximum(self.squares / self.count - mean**2, 1e-12))
        return {
            "mean": mean.tolist(),
            "std": std.tolist(),
            "pixels": self.count,
            "class_pixels": self.class_pixels.tolist(),
        }


def region_sums(packed: Packed, plane: int, region: Any, classes: int) -> dict[str, Any]:
    """Sums over the valid pixels of a region (row, col, height, width) of a plane."""
    statistics = BandStatistics(packed.shapes["pixels"][1][-1], classes)
    step = max(1, _PIXELS_AT_ONCE // packed.shapes["labels"][1][-1])
    for first in range(region.row, region.row + region.height, step):
        count = min(step, region.row + region.height - first)
        image, label, valid = (
            packed.window(n, (plane,), (first, region.col, count, region.width))
            for n in ("pixels", "labels", "valid")
        )
        statistics.update(image, label, valid > 0)
    return statistics.sums()


def sample_of(packed: Packed, plane: int, regions: pd.DataFrame) -> np.ndarray:
    """Valid pixels (n, C) of the even sample of a plane that are in the regions."""
    sample: np.ndarray = packed.array("sample")[plane][packed.sample_mask(plane, regions.itertuples())]
    return sample


def is_scaled(data: Data, dtype: str) -> bool:
    """Whether values are clipped to a range."""
    return data.scale not in ("none", "item") and not (data.scale == "auto" and dtype == "uint8")


def scaled(samples: np.ndarray, data: Data) -> dict[str, Any]:
    """Range per band, and mean and std of the values clipped to it.

    Args:
        samples: (n, C) even sample of the valid pixels of the training split.
        data: `scale` and `percentiles`.

    Returns:
        range: [low, high], each (C,); mean and std, each (C,).

    Raises:
        DataError: no valid pixel in the sample.
    """
    if len(samples) == 0:
        raise DataError("the training split has no valid pixel", "check nodata of the images, or the split")
    bands = samples.shape[1]
    wide = samples.astype(np.float64)
    if isinstance(data.scale, tuple):
        low, high = (np.full(bands, value) for value in data.scale)
    else:
        low, high = np.percentile(wide, data.percentiles, axis=0)
        # a constant band also needs a range
        high = np.maximum(high, low + np.maximum(np.abs(low), 1) * 1e-6)
    clipped = np.clip(wide, low, high)
    return {
        "range": [low.tolist(), high.tolist()],
        "mean": clipped.mean(axis=0).tolist(),
        "std": np.maximum(clipped.std(axis=0), 1e-6).tolist(),
    }
