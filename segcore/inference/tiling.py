"""Tiled inference of bounded memory: probabilities are blended over overlapping tiles, before the argmax.

Pixels near a tile's edge lack context. The outer quarter of the overlap therefore has weight 0, the next half fades
in linearly, and at the border of the scene all pixels have full weight.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from segcore.data.prepared import LabelledImage
from segcore.data.resampling import new_size, resized, resized_pixels
from segcore.errors import ParamsError
from segcore.inference.device import Precision, autocast
from segcore.models.base.semantic import SemanticModel

# called with row, col, height, width
Reader = Callable[[int, int, int, int], LabelledImage]
Array = TypeVar("Array", np.ndarray, Tensor)
# added to probabilities before they are divided by their sum, which may be 0
_SMALLEST = 1e-12


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """First pixels of tiles that cover `length` pixels; the last tile ends at `length`.

    Raises:
        ParamsError: the overlap is more than half a tile.
    """
    if overlap * 2 > tile:
        raise ParamsError(
            f"overlap {overlap} is more than half of tile {tile}", "choose a smaller evaluate.overlap"
        )
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def blend_weights(size: int, overlap: int, first: bool, last: bool) -> np.ndarray:
    """(size,) float32 weights of a tile along one axis; 1 up to the edge at the border of the scene."""
    margin, fade = overlap // 4, max(overlap - 2 * (overlap // 4), 0)
    distance = np.arange(size, dtype=np.float32) + 0.5
    ramp = np.clip((distance - margin) / fade, 0, 1) if fade else np.ones(size, np.float32)
    weights = np.ones(size, dtype=np.float32)
    if not first:
        weights *= ramp
    if not last:
        weights *= ramp[::-1]
    return weights


def to_batch(patch: LabelledImage, device: torch.device) -> tuple[Tensor, Tensor]:
    """(1, C, H, W) float32 raw pixels and (1, H, W) bool validity on the device."""
    image = torch.from_numpy(patch.image.astype(np.float32)).permute(2, 0, 1)[None]
    return image.to(device), torch.from_numpy(patch.valid)[None].to(device)


def predict_bands(
    model: SemanticModel,
    read: Reader,
    height: int,
    width: int,
    tile: int,
    overlap: int,
    precision: Precision = "fp32",
) -> Iterator[tuple[int, np.ndarray]]:
    """Probabilities of a scene from top to bottom, one per output of the model.

    One row of tiles is in memory, however high the scene is.

    Args:
        model: on its device; `predict` sets it to evaluation mode.
        read: reads a rectangle (row, col, height, width) of the scene.
        height: of the scene in pixels.
        width: of the scene in pixels.
        tile: side of the tiles in pixels; a scene smaller than a tile is one tile.
        overlap: of neighbouring tiles in pixels.
        precision: "fp32" or "bf16".

    Yields:
        The first row, and (outputs, rows, width) float32 probabilities, in order and without gaps.
    """
    device = next(model.parameters()).device
    rows, cols = tile_starts(height, tile, overlap), tile_starts(width, tile, overlap)
    tall, wide = min(tile, height), min(tile, width)
    total = np.zeros((model.outputs, tall, width), np.float32)
    weight = np.zeros((tall, width), np.float32)
    for i, row in enumerate(rows):
        down = blend_weights(tall, overlap, row == 0, i == len(rows) - 1)
        for j, col in enumerate(cols):
            image, valid = to_batch(read(row, col, tall, wide), device)
            with autocast(device, precision):
                probabilities = model.predict(image, valid)[0].cpu().numpy()
            across = blend_weights(wide, overlap, col == 0, j == len(cols) - 1)
            tile_weight = down[:, None] * across
            total[:, :, col : col + wide] += probabilities * tile_weight
            weight[:, col : col + wide] += tile_weight
        done = (rows[i + 1] if i + 1 < len(rows) else height) - row
        yield row, total[:, :done] / weight[:done]
        total = np.concatenate([total[:, done:], np.zeros_like(total[:, :done])], axis=1)
        weight = np.concatenate([weight[done:], np.zeros_like(weight[:done])], axis=0)


def patch_reader(patch: LabelledImage) -> Reader:
    """A function that reads rectangles of a patch in memory."""

    def read(row: int, col: int, height: int, width: int) -> LabelledImage:
        part = (slice(row, row + height), slice(col, col + width))
        return LabelledImage(patch.image[part], patch.label[part], patch.valid[part])

    return read


def predict_patch(
    model: SemanticModel, patch: LabelledImage, tile: int, overlap: int, precision: Precision = "fp32"
) -> np.ndarray:
    """(K, H, W) float32 class probabilities of a patch."""
    return predict_with_touching(model, patch, tile, overlap, precision)[0]


def predict_with_touching(
    model: SemanticModel, patch: LabelledImage, tile: int, overlap: int, precision: Precision = "fp32"
) -> tuple[np.ndarray, np.ndarray | None]:
    """(K, H, W) float32 class probabilities of a patch, and (H, W) that a pixel is near two objects.

    The latter is None for a model without that output.
    """
    if patch.steps is not None:
        return _resampled(model, patch, patch.steps, (tile, overlap), precision)
    height, width = patch.label.shape
    bands = predict_bands(model, patch_reader(patch), height, width, tile, overlap, precision)
    probabilities = np.concatenate([of_band for _, of_band in bands], axis=1)
    if not model.touching:
        return probabilities, None
    return of_classes(probabilities[:-1]), probabilities[-1]


def _resampled(
    model: SemanticModel,
    patch: LabelledImage,
    steps: tuple[float, float],
    tiling: tuple[int, int],
    precision: Precision,
) -> tuple[np.ndarray, np.ndarray | None]:
    """`predict_with_touching` of a resampled patch, with probabilities on the patch's own grid."""
    own = patch.valid.shape[0], patch.valid.shape[1]
    image, valid = resized_pixels(patch.image, patch.valid, new_size(own, steps))
    seen = LabelledImage(image, np.zeros(valid.shape, np.uint8), valid)
    probabilities, touching = predict_with_touching(model, seen, *tiling, precision)
    return resized(probabilities, own), None if touching is None else resized(touching, own)


def of_classes(probabilities: Array) -> Array:
    """Probabilities (K, H, W) that share 1 with that of touching objects, scaled to a sum of 1 over the classes.

    The most probable class stays the same.
    """
    positive = probabilities + _SMALLEST
    scaled: Array = positive / positive.sum(0)
    return scaled
