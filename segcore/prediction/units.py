"""Whether the values of a scene can be in the units of the training images.

Scenes of the same units differ: night is darker, snow is brighter, water has no infrared. The limits are such that
those pass, and that other units do not: reflectance of 0 to 1 instead of 0 to 10,000, dB instead of linear backscatter,
Hounsfield units instead of stored values, 12 instead of 16 bits, another offset. Where values alone cannot tell both
apart, the scene passes.
"""

from typing import Any

import numpy as np

from segcore.data.value_facts import value_facts

# facts with a smallest and a largest value over the training images
_EXTREMES = ("low", "middle", "high", "spread", "level", "negative")
# valid pixels that a judgement needs
_FEWEST = 64
# share of values beyond the training range, widened on both sides by this share of its width
_OUTSIDE, _MARGIN = 0.9, 0.5
# Values this many times larger, or of another type and smaller, than those of the training images are in other units.
_FACTOR = 50
# The same for smaller values of the same type, which dark water and night have as well: with one factor for all bands
# and the contrast of the training images, with one band, and in any case.
_DARK_FACTOR, _DARK_FACTOR_OF_ONE, _DARKEST_FACTOR = 90, 150, 400
# The same for larger whole numbers, if the contrast is that of the training images: 12 bits in 16.
_BITS_FACTOR = 12
# Factors of bands, and contrasts, that differ by no more than these are the same.
_COMMON, _SAME_CONTRAST = 3, 2
# Scale and divisor of all values of a scene must both differ from the training images: by at least _STEP, and agree.
_STEP, _AGREE = 4, 3
# A uint8 scene has other units if values of the training images are this many times too large for uint8.
_TOO_LARGE = 2
# Values of a training image as dark, or as bright, as the scene up to this factor show that the units are possible.
_SEEN = 2
# Whole numbers that differ by fewer steps than this are of a scene without contrast, whatever its units.
_STEPS = 4
# Values count as negative below this share of the training range, so that noise around 0 does not.
_NOISE = 0.02
# share of negative values of a scene in signed units
_SIGNED = 0.1
# share of negative values of each training image in signed units
_MOST = 0.9
# Scenes are shifted training images if, after the shift, quantiles agree up to this share of the training range, and
# the spread is at least this share of that of the training images. A crop of one tissue has far less.
_AGREEMENT, _SPREAD = 0.15, 0.75
# lowest values of most training images in Hounsfield units, as a share of the training range
_BELOW = 0.1
# distance of the lowest values from those of the training images, as a share of the training range
_SHIFT = 0.25


def has_other_units(
    values: np.ndarray, trained: dict[str, Any], is_byte: bool, is_reduced: bool = False
) -> bool:
    """Whether the values of a scene are in other units than those of the training images.

    Args:
        values: (n, C) valid pixels of the scene.
        trained: `segcore.data.value_facts.value_ranges` of the training images.
        is_byte: whether scene and training images are both stored as uint8, which has one scale only.
        is_reduced: whether the scene is stored as uint8, and the training images are not.
    """
    if len(values) < _FEWEST:
        return False
    scene = value_facts(values)
    limits = {name: np.array(trained[name]) for name in _EXTREMES}
    few = _outside(values, limits) | _of_other_sign(values, scene, limits, trained)
    if is_byte:
        return bool(few.mean() > 0.5)
    scale = _Scale(scene, limits, trained)
    few |= scale.is_far()
    if is_reduced:
        few |= scale.is_too_large_for(np.iinfo(np.uint8).max)
    return bool(few.mean() > 0.5) or scale.is_of_other_bits() or scale.is_dark_copy()


def _outside(values: np.ndarray, limits: dict[str, np.ndarray]) -> np.ndarray:
    """(C,) whether almost all values are outside of the training range."""
    low, high = limits["low"][0], limits["high"][1]
    margin = _MARGIN * np.maximum(high - low, 1e-6 * np.maximum(np.abs(low), np.abs(high)))
    is_outside = (values < low - margin) | (values > high + margin)
    found: np.ndarray = is_outside.mean(axis=0) > _OUTSIDE
    return found


class _Scale:
    """How many times smaller or larger a scene's values are than those of the training images.

    Args:
        scene: its facts.
        limits: smallest and largest of each fact over the training images.
        trained: the training images, with medians if they were measured.
    """

    def __init__(
        self, scene: dict[str, np.ndarray], limits: dict[str, np.ndarray], trained: dict[str, Any]
    ) -> None:
        self._scene, self._trained = scene, trained
        self._whole, names = scene["whole"].all(), ("spread", "level")
        # models of older versions have no medians: the nearest of their training images counts
        medians = trained.get("medians")
        bright = np.array([medians[n] if medians else limits[n][1] for n in names])
        self._dark = np.array([medians[n] if medians else limits[n][0] for n in names])
        is_scaled = limits["spread"][1] > 0
        has_steps = ~(scene["whole"] & (scene["spread"] < _STEPS))
        self._is_unseen_dark = is_scaled & has_steps & self._all(scene, limits, 0)
        self._is_unseen_bright = is_scaled & self._all(scene, limits, 1)
        # (2, C): of spread and level
        own = np.maximum([scene[n] for n in names], 1e-30)
        self._smaller, self._larger = self._dark / own, own / np.maximum(bright, 1e-30)

    @staticmethod
    def _all(scene: dict[str, np.ndarray], limits: dict[str, np.ndarray], side: int) -> np.ndarray:
        """(C,) whether spread and level are beyond those of all training images, below (0) or above (1)."""
        beyond = [
            scene[n] > limits[n][1] * _SEEN if side else scene[n] * _SEEN < limits[n][0]
            for n in ("spread", "level")
        ]
        found: np.ndarray = np.all(beyond, axis=0)
        return found

    def is_far(self) -> np.ndarray:
        """(C,) whether values are so much smaller or larger that no content explains it."""
        factor = _DARKEST_FACTOR if self._whole == self._trained["whole"] else _FACTOR
        found: np.ndarray = (self._is_unseen_dark & (self._smaller > factor).all(axis=0)) | (
            self._is_unseen_bright & (self._larger > _FACTOR).all(axis=0)
        )
        return found

    def is_too_large_for(self, largest: int) -> np.ndarray:
        """(C,) whether a type that ends at `largest` cannot hold the values of most training images."""
        found: np.ndarray = self._dark[1] > _TOO_LARGE * largest
        return found

    def is_dark_copy(self) -> bool:
        """Whether all bands are smaller by one factor and have the contrast of the training images."""
        factor = _DARK_FACTOR_OF_ONE if self._smaller.shape[1] == 1 else _DARK_FACTOR
        contrast = self._smaller[1] / self._smaller[0]
        return bool(
            self._is_unseen_dark.all()
            and (self._smaller > factor).all()
            and self._smaller.max() < _COMMON * self._smaller.min()
            and (contrast < _SAME_CONTRAST).all()
            and (contrast * _SAME_CONTRAST > 1).all()
        )

    def is_of_other_bits(self) -> bool:
        """Whether whole numbers are stored with another number of bits."""
        if not (self._whole and self._trained["whole"]):
            return False
        has_contrast = self._larger[0] * _SAME_CONTRAST > self._larger[1]
        if (self._is_unseen_bright & (self._larger > _BITS_FACTOR).all(axis=0) & has_contrast).all():
            return True
        own, step = int(np.gcd.reduce(self._scene["step"])), self._trained.get("step", 0)
        if not own or not step or max(own, step) < _STEP * min(own, step):
            return False
        # of multiples of 16, such as 12 bits in the upper ones of 16, also the values are 16 times as large
        ratio = self._larger[1] * step / own
        return bool((ratio < _AGREE).all() and (ratio * _AGREE > 1).all())


def _of_other_sign(
    values: np.ndarray, scene: dict[str, np.ndarray], limits: dict[str, np.ndarray], trained: dict[str, Any]
) -> np.ndarray:
    """(C,) whether the scene has negative values and no training image has, or the reverse."""
    width = limits["high"][1] - limits["low"][0]
    below = scene["low"] < limits["low"][0] - _SHIFT * width
    is_signed = ((values < -_NOISE * width).mean(axis=0) >= _SIGNED) & (limits["low"][0] >= -_NOISE * width)
    is_always_negative = limits["negative"][0] >= _MOST
    is_unsigned = (scene["low"] >= -_NOISE * width) & (
        is_always_negative | _is_shifted(scene, limits, trained, width)
    )
    found: np.ndarray = is_signed & below | is_unsigned
    return found


def _is_shifted(
    scene: dict[str, np.ndarray], limits: dict[str, np.ndarray], trained: dict[str, Any], width: np.ndarray
) -> np.ndarray:
    """(C,) whether the scene is like training images of signed values that were shifted to 0."""
    # models of older versions have no medians
    medians = trained.get("medians") or {n: limits[n].mean(axis=0) for n in ("low", "spread")}
    shift = scene["low"] - medians["low"]
    is_shifted: np.ndarray = (np.array(medians["low"]) < -_BELOW * width) & (shift > _SHIFT * width)
    is_shifted &= scene["spread"] >= _SPREAD * np.array(medians["spread"])
    for name in ("middle", "high"):
        low, high = limits[name]
        is_shifted &= scene[name] - shift >= low - _AGREEMENT * width
        is_shifted &= scene[name] - shift <= high + _AGREEMENT * width
    return is_shifted
