"""Prediction of arrays in memory: arrays as image sources, and a writer that collects blocks into arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from segcore.constants import IGNORE
from segcore.data.raster import Info, Raster, Window
from segcore.errors import DataError
from segcore.inference.calibration import confidence
from segcore.objects.find import FindSettings, find
from segcore.objects.found import Objects
from segcore.prediction import mosaic

_SHAPES = "(H, W), (H, W, C), or (D, H, W, C) for a volume"


@dataclass(frozen=True)
class Prediction:
    """Prediction for one image; for a volume, each array has an axis D before H.

    Attributes:
        classes: (H, W) uint8 class indices, 255 where invalid; after the model's post-processing.
        probabilities: (K, H, W) float32 in 0..1, with sum 1 where valid; 0 elsewhere. Of the network, as all others.
        valid: (H, W) bool, False where the image has no data.
        touching: (H, W) float32, probability that a pixel is near two objects; None for a network not trained for it.
        objects: of the image, or of each plane of a volume; None unless an output of objects is asked for.
        confidence: (H, W) float32, calibrated probability of the class, 0 where invalid; None unless it is asked for.
    """

    classes: np.ndarray
    probabilities: np.ndarray
    valid: np.ndarray
    touching: np.ndarray | None = None
    objects: Objects | list[Objects] | None = None
    confidence: np.ndarray | None = None


class ArraySource:
    """An array with the interface of an open image (`segcore.io.images.Source`).

    Args:
        image: (H, W), (H, W, C), or (D, H, W, C) raw pixels, of an integer or floating dtype.
        valid: (H, W), or (D, H, W) for a volume; True (or not 0) where there is data. None: everywhere.

    Raises:
        DataError: an empty or masked array, a wrong number of axes or dtype, or a `valid` of another size.
    """

    def __init__(self, image: np.ndarray, valid: np.ndarray | None = None) -> None:
        if isinstance(image, np.ma.MaskedArray):
            raise DataError(
                "array: is a masked array", "give its data, and valid=~mask with one value per pixel"
            )
        image = np.asarray(image)
        if image.ndim not in (2, 3, 4) or image.size == 0:
            raise DataError(f"array: shape {image.shape} is not that of an image", f"give {_SHAPES}")
        if image.dtype.kind not in "uif":
            raise DataError(
                f"array: has {image.dtype} values",
                "give raw pixel values as integers or floating-point numbers",
            )
        self.is_volume = image.ndim == 4
        if image.ndim == 2:
            image = image[..., None]
        self._planes = image if self.is_volume else image[None]
        size = image.shape[:-1]
        mask = np.ones(size, bool) if valid is None else np.asarray(valid)
        if mask.shape != size:
            raise DataError(
                f"array: valid has shape {mask.shape}, the image {size}",
                "give one value of valid for each pixel",
            )
        self._valid = (mask != 0).reshape(self._planes.shape[:3])
        depth, height, width, bands = self._planes.shape
        self.info = Info(height, width, bands, image.dtype.name, depth=depth)

    def read(self, window: Window | None = None, plane: int = 0) -> Raster:
        """Pixels of a window of a plane, or of the whole plane."""
        row, col, height, width = window or (0, 0, self.info.height, self.info.width)
        part = (plane, slice(row, row + height), slice(col, col + width))
        # a copy, because torch accepts no negative strides, foreign byte order or read-only memory
        pixels = np.array(np.moveaxis(self._planes[part], -1, 0), self.info.dtype, order="C")
        return Raster(pixels, self._valid[part], self.info)


class ArrayWriter:
    """Collects the blocks of all planes in memory.

    Args:
        info: of the image.
        num_classes: K.
        blend: what the blocks' scores are, "probabilities" or "logits".
        touching: whether the blocks have the probability of touching objects.
    """

    def __init__(self, info: Info, num_classes: int, blend: str, touching: bool = False) -> None:
        size = (info.depth, info.height, info.width)
        self._blend = blend
        self._classes = np.zeros(size, np.uint8)
        self._probabilities = np.zeros((num_classes, *size), np.float32)
        self._valid = np.ones(size, bool)
        self._touching = np.zeros(size, np.float32) if touching else None

    def put(self, block: mosaic.Block) -> None:
        """Add a finished block."""
        height, width = block.scores.shape[1:]
        at: Any = (block.plane, slice(block.row, block.row + height), slice(block.col, block.col + width))
        self._classes[at] = mosaic.classes(block.scores).cpu().numpy()
        self._probabilities[:, *at] = mosaic.probabilities(block.scores, self._blend).cpu().numpy()
        if block.valid is not None:
            self._valid[at] = block.valid
        if self._touching is not None and block.touching is not None:
            self._touching[at] = block.touching.cpu().numpy()

    def result(self, is_volume: bool) -> Prediction:
        """The prediction of all planes; without the axis D if it is not a volume."""
        self._classes[~self._valid] = IGNORE
        self._probabilities[:, ~self._valid] = 0
        touching = self._touching
        if touching is not None:
            touching[~self._valid] = 0
        if is_volume:
            return Prediction(self._classes, self._probabilities, self._valid, touching)
        plane = None if touching is None else touching[0]
        return Prediction(self._classes[0], self._probabilities[:, 0], self._valid[0], plane)


def with_confidence(made: Prediction, temperature: float) -> Prediction:
    """A prediction with its confidence, by the temperature of the model."""
    values = confidence(torch.from_numpy(made.probabilities), temperature).numpy()
    return replace(made, confidence=np.where(made.valid, values, np.float32(0)))


def with_objects(
    made: Prediction, foreground: Sequence[int], settings: FindSettings, min_area: int
) -> Prediction:
    """A prediction with its objects.

    Args:
        made: the prediction.
        foreground: indices of the classes that have objects.
        settings: how objects are found.
        min_area: objects of fewer pixels are left out.
    """

    def of_plane(probabilities: np.ndarray, classes: np.ndarray, touching: np.ndarray | None) -> Objects:
        found = find(probabilities, classes, foreground, settings, touching)
        return found.select(found.areas >= min_area)

    if made.classes.ndim == 2:
        return replace(made, objects=of_plane(made.probabilities, made.classes, made.touching))
    planes = [
        of_plane(made.probabilities[:, z], classes, None if made.touching is None else made.touching[z])
        for z, classes in enumerate(made.classes)
    ]
    return replace(made, objects=planes)
