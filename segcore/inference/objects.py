"""Objects of a patch by an instance network, window by window."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from segcore.constants import IGNORE
from segcore.data.prepared import LabelledImage
from segcore.inference.device import Precision, autocast
from segcore.inference.tiling import tile_starts, to_batch
from segcore.models.base.bundle import DESCRIPTION, require
from segcore.models.base.instance import InstanceModel
from segcore.models.base.model import SegmentationModel
from segcore.objects.canvas import LEAST_KEPT, Canvas
from segcore.objects.found import Objects, from_numbers
from segcore.objects.stitching import Stitcher
from segcore.objects.windows import Windows

# pixels that neighbouring windows share at least: one row of each window's objects could not be compared
_LEAST_OVERLAP = 2
# pixels per forward pass, from which on more windows of small networks gained nothing
_PIXELS = {"fp32": 2 * 256**2, "bf16": 4 * 256**2}
_PIXELS_ON_GPU = 8 * 512**2


def windows_of(
    model: SegmentationModel, description: Mapping[str, Any], tile: int, overlap: int
) -> tuple[int, int]:
    """Side and overlap in pixels of the windows in which a bundle's model predicts.

    Those asked for, but of an instance network: windows overlap by at least the side of most objects, as far as half a
    window goes, so that a window sees such an object whole; and where results depend on the position in the window,
    windows are of the size of the training crops.

    Args:
        model: of the bundle.
        description: model.json.
        tile: side asked for.
        overlap: overlap asked for, at most half of `tile`.

    Raises:
        ModelError: model.json of a network that depends on the position has no tile.
    """
    if not isinstance(model, InstanceModel):
        return tile, overlap
    if model.is_position_dependent:
        require(dict(description), DESCRIPTION, ("tile",))
        tile = int(description["tile"])
    return tile, overlap_for(description.get("objects", {}).get("side", 0), overlap, tile)


def overlap_for(side: float, overlap: int, tile: int) -> int:
    """Overlap in pixels of an instance network's windows, so that one sees most objects whole; half a window at most.

    Args:
        side: of most objects in pixels.
        overlap: asked for.
        tile: side of the windows.
    """
    return min(max(overlap, math.ceil(side), _LEAST_OVERLAP), tile // 2)


def predict_objects(
    model: InstanceModel, patch: LabelledImage, tile: int, overlap: int, precision: Precision = "fp32"
) -> Objects:
    """Objects of a patch, of any score, in the order of their first pixels; a pixel is of one object at most.

    Objects that neighbouring windows see are joined or chosen among (`segcore.objects.stitching`). Where objects
    overlap, the one of higher score gets the pixels, and one that keeps at most half of its own is left out.

    Args:
        model: on its device.
        patch: the pixels; where they are not valid there are no objects.
        tile: side of the windows in pixels; if the network depends on the position in a window, a smaller patch is
            filled up to it, as in training, by pixels that are not valid.
        overlap: of neighbouring windows in pixels, at least 2.
        precision: "fp32" or "bf16".
    """
    height, width = patch.label.shape
    if model.is_position_dependent:
        patch = _at_least(patch, tile)
    tall, wide = patch.label.shape
    rows, cols = tile_starts(tall, tile, overlap), tile_starts(wide, tile, overlap)
    windows = Windows(tall, wide, rows, cols, min(tile, tall), min(tile, wide))
    canvas = Canvas(np.zeros((tall, wide), np.uint32), least_kept=LEAST_KEPT)
    stitcher = Stitcher(windows, canvas.paint)
    for place, found in _of_windows(model, patch, windows, precision):
        stitcher.add(*place, found)
    stitcher.finish()
    scene = canvas.finish()
    objects = from_numbers(scene.numbers, scene.classes, scene.scores)
    return Objects(height, width, objects.classes, objects.scores, objects.boxes, objects.masks)


def windows_per_pass(device: torch.device, precision: Precision, windows: Windows) -> int:
    """Number of windows that are predicted together, because that is faster."""
    pixels = _PIXELS[precision] if device.type == "cpu" else _PIXELS_ON_GPU
    return max(pixels // (windows.tall * windows.wide), 1)


def _of_windows(
    model: InstanceModel, patch: LabelledImage, windows: Windows, precision: Precision
) -> Iterator[tuple[tuple[int, int], Objects]]:
    """Row and column of each window, and its objects, several windows per forward pass."""
    device = next(model.parameters()).device
    places = list(itertools.product(range(len(windows.rows)), range(len(windows.cols))))
    at_once = windows_per_pass(device, precision, windows)
    for first in range(0, len(places), at_once):
        group, parts = places[first : first + at_once], []
        for i, j in group:
            row, col = windows.rows[i], windows.cols[j]
            part = (slice(row, row + windows.tall), slice(col, col + windows.wide))
            parts.append(
                to_batch(LabelledImage(patch.image[part], patch.label[part], patch.valid[part]), device)
            )
        images, valid = (torch.cat(each) for each in zip(*parts, strict=True))
        with autocast(device, precision):
            yield from zip(group, model.predict(images, valid), strict=True)


def _at_least(patch: LabelledImage, side: int) -> LabelledImage:
    """A patch with sides of at least `side`, by pixels at the right and bottom that are not valid."""
    height, width = patch.label.shape
    below, right = max(side - height, 0), max(side - width, 0)
    if not below and not right:
        return patch
    return LabelledImage(
        np.pad(patch.image, ((0, below), (0, right), (0, 0))),
        np.pad(patch.label, ((0, below), (0, right)), constant_values=IGNORE),
        np.pad(patch.valid, ((0, below), (0, right))),
    )


@torch.no_grad()
def objects_loss(
    model: InstanceModel, batch: dict[str, torch.Tensor], precision: Precision
) -> dict[str, tuple[float, float]]:
    """Sum and weight of each term of the loss of a batch, in evaluation mode."""
    was_training = model.training
    model.eval()
    try:
        truth = model.truth(batch)
        with autocast(batch["image"].device, precision):
            outputs = model(batch["image"], batch.get("valid"))
            terms = model.terms(outputs, truth)
        weights = model.weights(truth)
        return {name: (float(value), float(weights[name])) for name, value in terms.items()}
    finally:
        model.train(was_training)
