"""Objects of a patch by an instance network, window by window."""

import numpy as np
import torch

from segcore.constants import IGNORE
from segcore.data.prepared import LabelledImage
from segcore.inference.device import Precision, autocast
from segcore.inference.tiling import tile_starts, to_batch
from segcore.models.base.instance import InstanceModel
from segcore.objects.canvas import Canvas
from segcore.objects.found import Objects, from_numbers
from segcore.objects.stitching import Stitcher
from segcore.objects.windows import Windows


def predict_objects(
    model: InstanceModel, patch: LabelledImage, tile: int, overlap: int, precision: Precision = "fp32"
) -> Objects:
    """Objects of a patch, in the order of their first pixels; a pixel is of one object at most.

    Args:
        model: on its device.
        patch: the pixels; where they are not valid there are no objects.
        tile: side of the windows in pixels.
        overlap: of neighbouring windows in pixels.
        precision: "fp32" or "bf16".
    """
    device = next(model.parameters()).device
    height, width = patch.label.shape
    if model.is_position_dependent:
        patch = _at_least(patch, tile)
    tall, wide = patch.label.shape
    rows, cols = tile_starts(tall, tile, overlap), tile_starts(wide, tile, overlap)
    windows = Windows(tall, wide, rows, cols, min(tile, tall), min(tile, wide))
    canvas = Canvas(np.zeros((tall, wide), np.uint32))
    stitcher = Stitcher(windows, canvas.paint)
    for i, row in enumerate(rows):
        for j, col in enumerate(cols):
            part = (slice(row, row + windows.tall), slice(col, col + windows.wide))
            window = LabelledImage(patch.image[part], patch.label[part], patch.valid[part])
            with autocast(device, precision):
                (found,) = model.predict(*to_batch(window, device))
            stitcher.add(i, j, found)
    stitcher.finish()
    scene = canvas.finish()
    objects = from_numbers(scene.numbers, scene.classes, scene.scores)
    return Objects(height, width, objects.classes, objects.scores, objects.boxes, objects.masks)


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
