"""Whether the values of a scene can be in the units of the training images.

Scenes of the same units differ: night is darker, snow is brighter, the sea has hardly any contrast. The limits are
such that those pass, and that other units do not: reflectance of 0 to 1 instead of 0 to 10,000, dB instead of linear
backscatter, Hounsfield units instead of stored values, 12 instead of 16 bits, another offset. Measured with each image
of six data sets as the scene and the others as the training images, no image is refused.
"""

from typing import Any

import numpy as np

from segcore.data.value_facts import value_facts

# valid pixels that a judgement needs
_FEWEST = 64
# share of values beyond the training range, widened on both sides by this share of its width
_OUTSIDE, _MARGIN = 0.9, 0.5
# Values this many times smaller or larger than those of any training image are in other units.
_FACTOR = 50
# The same for whole numbers of more than 8 bits, if the contrast is that of the training images: 12 bits in 16.
_BITS_FACTOR = 12
# Whole numbers that differ by fewer steps than this are of a scene without contrast, whatever its units.
_STEPS = 4
# Values count as negative below this share of the training range, so that noise around 0 does not.
_NOISE = 0.02
# share of negative values of a scene in signed units
_SIGNED = 0.1
# Share of negative values of each training image in signed units. Of the smaller one, such as Hounsfield units have, a
# scene without negative values must also have the spread of training images, because a crop can be of one tissue.
_SOME, _MOST = 0.2, 0.9
# distance of the lowest values from those of the training images, as a share of the training range
_SHIFT = 0.25


def has_other_units(values: np.ndarray, trained: dict[str, Any], is_byte: bool) -> bool:
    """Whether the values of a scene are in other units than those of the training images.

    Args:
        values: (n, C) valid pixels of the scene.
        trained: `segcore.data.value_facts.value_ranges` of the training images.
        is_byte: whether scene and training images are both stored as uint8, which has one scale only.
    """
    if len(values) < _FEWEST:
        return False
    scene = value_facts(values)
    limits = {name: np.array(pair) for name, pair in trained.items() if name != "whole"}
    few = _outside(values, limits) | _of_other_sign(values, scene, limits)
    if not is_byte:
        few |= _of_other_scale(scene, limits, _FACTOR)
    if few.mean() > 0.5:
        return True
    if is_byte or not trained["whole"]:
        return False
    # Dark bands of a sound scene, such as infrared over water, are as dark: all bands have to agree.
    least = limits["spread"][0] / np.maximum(limits["level"][1], 1e-30)
    has_contrast = scene["spread"] / np.maximum(scene["level"], 1e-30) > least / 2
    return bool((_of_other_scale(scene, limits, _BITS_FACTOR) & has_contrast).all())


def _outside(values: np.ndarray, limits: dict[str, np.ndarray]) -> np.ndarray:
    """(C,) whether almost all values are outside of the training range."""
    low, high = limits["low"][0], limits["high"][1]
    margin = _MARGIN * np.maximum(high - low, 1e-6 * np.maximum(np.abs(low), np.abs(high)))
    is_outside = (values < low - margin) | (values > high + margin)
    found: np.ndarray = is_outside.mean(axis=0) > _OUTSIDE
    return found


def _of_other_scale(scene: dict[str, np.ndarray], limits: dict[str, np.ndarray], factor: float) -> np.ndarray:
    """(C,) whether both spread and level are far smaller, or far larger, than those of any training image."""
    smaller, larger = (
        np.all([scene[n] * factor < limits[n][0] for n in ("spread", "level")], axis=0),
        np.all([scene[n] > limits[n][1] * factor for n in ("spread", "level")], axis=0),
    )
    has_no_steps = scene["whole"] & (scene["spread"] < _STEPS)
    # a band that is constant in all training images has no scale
    found: np.ndarray = ((smaller & ~has_no_steps) | larger) & (limits["spread"][1] > 0)
    return found


def _of_other_sign(
    values: np.ndarray, scene: dict[str, np.ndarray], limits: dict[str, np.ndarray]
) -> np.ndarray:
    """(C,) whether the scene has negative values and no training image has, or the reverse."""
    width = limits["high"][1] - limits["low"][0]
    below = scene["low"] < limits["low"][0] - _SHIFT * width
    above = scene["low"] > limits["low"][1] + 2 * _SHIFT * width
    is_signed = ((values < -_NOISE * width).mean(axis=0) >= _SIGNED) & (limits["low"][0] >= -_NOISE * width)
    trained = limits["negative"][0]
    is_shifted = (trained >= _SOME) & above & (scene["spread"] > limits["spread"][0] / 2)
    is_unsigned = (scene["low"] >= -_NOISE * width) & ((trained >= _MOST) | is_shifted)
    found: np.ndarray = is_signed & below | is_unsigned
    return found
