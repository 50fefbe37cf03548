"""Sizes of the objects that an instance network is to find; its anchors, grids and limits follow from them."""

from dataclasses import dataclass

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
