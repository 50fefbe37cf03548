"""Objects of a semantic network, from its class probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from segcore.objects.components import components
from segcore.objects.found import Objects, from_numbers

Method = Literal["components", "watershed"]


@dataclass(frozen=True)
class FindSettings:
    """How objects are found; chosen on the validation split, and stored in the bundle.

    Attributes:
        method: "components" (4-connected pixels of one class) or "watershed".
        score: objects of a lower score are left out, in [0, 1].
    """

    method: Method = "components"
    score: float = 0.0


def find(
    probabilities: np.ndarray, classes: np.ndarray, foreground: Sequence[int], settings: FindSettings
) -> Objects:
    """Objects of a region, in the order of their first pixels.

    Args:
        probabilities: (K, H, W) float32, those of the K classes.
        classes: (H, W) uint8 predicted class of each pixel; IGNORE where there are no data.
        foreground: indices of the classes that have objects.
        settings: method and its parameters.

    Returns:
        Objects that do not overlap; the score of an object is the mean probability of its class over its pixels.
    """
    numbers = components(classes, foreground)
    flat = numbers.ravel()
    first = np.unique(flat, return_index=True)[1][int((flat == 0).any()) :]
    found = classes.ravel()[first]
    inside = flat > 0
    chosen = np.take_along_axis(
        probabilities.reshape(len(probabilities), -1)[:, inside], classes.ravel()[inside][None].astype(int), 0
    )[0]
    areas = np.bincount(flat[inside], minlength=len(found) + 1)[1:]
    total = np.bincount(flat[inside], weights=chosen, minlength=len(found) + 1)[1:]
    objects = from_numbers(numbers, found, total / np.maximum(areas, 1))
    return objects.select(objects.scores >= settings.score)
