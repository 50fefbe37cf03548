"""Values of masks as whole numbers, also where they are stored as floats."""

import numpy as np

from segcore.data.raster import Note, Raster
from segcore.errors import DataError

# Floats that are as near to a whole number as this are rounded: absolute, and relative for the steps of scaled files.
_NEAR, _NEAR_RELATIVE, _FARTHEST = 1e-3, 1e-5, 1e-2


class Whole:
    """Rounds values that are nearly whole numbers, and counts them.

    Args:
        name: of the file.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._rounded, self._farthest = 0, 0.0

    @property
    def notes(self) -> list[Note]:
        """A note on values that were rounded; none if there are none."""
        if not self._rounded:
            return []
        text = f"{self._name}: {self._rounded} values were rounded to whole numbers, "
        return [("labels-rounded", text + f"by at most {self._farthest:.2g}")]

    def of(self, raster: Raster) -> np.ndarray:
        """Pixels (C, H, W) as integers, 0 where a float is no finite number.

        Raises:
            DataError: the values are not whole numbers.
        """
        pixels = raster.pixels
        if pixels.dtype == bool:
            return pixels.view(np.uint8)
        if not np.issubdtype(pixels.dtype, np.floating):
            return pixels
        pixels = np.where(np.isfinite(pixels), pixels, 0)
        whole = np.round(pixels)
        fractions = (pixels != whole) & raster.valid
        if fractions.any():
            self._require_near(pixels[fractions], whole[fractions])
        integers: np.ndarray = np.clip(whole.astype(np.float64), -(2.0**53), 2.0**53).astype(np.int64)
        return integers

    def _require_near(self, fractions: np.ndarray, whole: np.ndarray) -> None:
        apart = np.abs(fractions.astype(np.float64) - whole)
        far = apart > np.clip(_NEAR_RELATIVE * np.abs(whole), _NEAR, _FARTHEST)
        if far.any():
            examples = ", ".join(f"{v:g}" for v in np.unique(fractions[far])[:4])
            raise DataError(
                f"{self._name}: holds fractions ({fractions.dtype}), such as {examples}",
                "provide a mask of whole numbers; if it was resampled, resample it with nearest neighbour",
                kind="label-fractions",
            )
        self._rounded += len(apart)
        self._farthest = max(self._farthest, float(apart.max()))
