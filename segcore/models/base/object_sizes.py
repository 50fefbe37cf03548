"""Sizes of the objects that an instance network is to find; its anchors, grids and limits follow from them."""

import math
from dataclasses import dataclass

from segcore.models.base.keywords import HIGHEST_RATIO

# quantiles of `ObjectSizes.sides`
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class ObjectSizes:
    """Sizes of the objects of the training data in pixels of the network, that is, times `magnify`.

    Attributes:
        sides: quantiles (`QUANTILES`) of the square root of height times width of the objects' boxes.
        ratios: quantiles 0.1, 0.5 and 0.9 of height / width of the boxes.
        most: largest number of objects in a window of the size of a crop.
        crop: side of a training crop.
    """

    sides: tuple[float, ...] = (16, 24, 32, 48, 96)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    most: int = 100
    crop: int = 256


def anchor_sides(sizes: ObjectSizes, finest: int, levels: int) -> list[float]:
    """Sides that double from those of small objects to those of large ones, in larger steps if there are many sizes."""
    # no more than a crop is seen of an object
    smallest = min(max(sizes.sides[0] * math.sqrt(2), 2 * finest), sizes.crop)
    octaves = max(math.log2(min(sizes.sides[-1], sizes.crop) / smallest), 0)
    count = min(round(octaves) + 1, levels)
    step = max(octaves / (count - 1), 1) if count > 1 else 1
    return [round(smallest * 2 ** (step * level), 1) for level in range(count)]


def distinct_ratios(sizes: ObjectSizes) -> list[float]:
    """The median ratio, and of the other two those that differ from it by a factor of at least 1.25."""
    low, median, high = map(usable_ratio, sizes.ratios)
    return [*([low] if low * 1.25 <= median else []), median, *([high] if high >= median * 1.25 else [])]


def usable_ratio(ratio: float) -> float:
    """A height / width of objects within the limits of those of anchors."""
    return min(max(ratio, 1 / HIGHEST_RATIO), HIGHEST_RATIO)
