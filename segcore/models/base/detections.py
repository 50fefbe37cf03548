"""Objects of a batch as tensors of fixed shapes, by operations that every export format has."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Detections(NamedTuple):
    """Objects of N images, D places for each; a place with score 0 has class 0, a box of 0 and an empty mask.

    D depends on the network and the size of the images alone. Places without an object may precede others.

    Attributes:
        scores: (N, D) float32 in 0..1, 0 for no object.
        classes: (N, D) int64 class indices.
        boxes: (N, D, 4) float32 left, top, right and bottom edge of the mask in pixels; one pixel has sides of 1.
        masks: (N, D, H, W) bool, which may overlap.
    """

    scores: Tensor
    classes: Tensor
    boxes: Tensor
    masks: Tensor


def detections(scores: Tensor, classes: Tensor, masks: Tensor, foreground: Sequence[int]) -> Detections:
    """Detections without the objects of score 0 and those whose mask is empty.

    Args:
        scores: (N, D).
        classes: (N, D) int64 places in `foreground`.
        masks: (N, D, H, W) bool.
        foreground: class indices.
    """
    masks = masks & (scores > 0)[..., None, None]
    columns, rows = masks.any(2), masks.any(3)
    kept = rows.any(2)
    (left, right), (top, bottom) = limits(columns), limits(rows)
    boxes = torch.stack([left, top, right, bottom], dim=-1)
    indices = torch.tensor(list(foreground), device=classes.device)[classes]
    return Detections(scores.float() * kept, indices * kept, boxes.float(), masks)


def limits(inside: Tensor) -> tuple[Tensor, Tensor]:
    """First place and end (...) of those that are True in (..., L), int64; 0 if none is."""
    place = torch.arange(inside.shape[-1], device=inside.device)
    end = torch.where(inside, place + 1, 0).amax(-1)
    first = torch.where(inside, place, inside.shape[-1]).amin(-1)
    return torch.minimum(first, end), end
