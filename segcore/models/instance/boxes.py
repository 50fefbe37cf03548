"""Anchors and boxes: left, top, right and bottom edge in pixels; a box of one pixel has sides of 1.

Ren et al. 2015, "Faster R-CNN", arXiv 1506.01497.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# a box is never predicted to be more than this factor larger than its anchor, as in Faster R-CNN
_LARGEST = 1000 / 16


def anchors(
    height: int,
    width: int,
    stride: int,
    sides: Sequence[float],
    ratios: Sequence[float],
    device: torch.device,
) -> Tensor:
    """Anchors centred on the pixels of a feature map, row by row, at each pixel sides x ratios.

    Args:
        height: of the feature map.
        width: of the feature map.
        stride: input pixels per pixel of the map.
        sides: square roots of the anchors' areas in pixels.
        ratios: height / width.
        device: of the result.

    Returns:
        (height * width * len(sides) * len(ratios), 4) float32.
    """
    half = torch.tensor(
        [(side / math.sqrt(ratio) / 2, side * math.sqrt(ratio) / 2) for side in sides for ratio in ratios],
        device=device,
    )
    y, x = (
        (torch.arange(length, device=device, dtype=torch.float32) + 0.5) * stride
        for length in (height, width)
    )
    centre = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)[:, :, None]
    return torch.cat([centre - half, centre + half], dim=-1).view(-1, 4)


def encode(boxes: Tensor, reference: Tensor, weights: Sequence[float] = (1, 1, 1, 1)) -> Tensor:
    """(..., 4) offsets of boxes from reference boxes: centre in units of the sides, and logarithm of the sides."""
    centre, size = _centre_size(reference)
    of_centre, of_size = _centre_size(boxes)
    offsets = torch.cat([(of_centre - centre) / size, (of_size / size).log()], dim=-1)
    return offsets * offsets.new_tensor(weights)


def decode(offsets: Tensor, reference: Tensor, weights: Sequence[float] = (1, 1, 1, 1)) -> Tensor:
    """(..., 4) boxes from offsets as `encode` gives them; float32."""
    centre, size = _centre_size(reference)
    offsets = offsets.float() / offsets.new_tensor(weights, dtype=torch.float32)
    moved = centre + offsets[..., :2] * size
    half = size * offsets[..., 2:].clamp(max=math.log(_LARGEST)).exp() / 2
    return torch.cat([moved - half, moved + half], dim=-1)


def _centre_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-3)


def clip(boxes: Tensor, height: float, width: float) -> Tensor:
    """(..., 4) boxes, limited to an image of `height` x `width` pixels."""
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=-1)


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """(..., A, M) intersection over union of boxes (..., A, 4) and others (..., M, 4); 0 with a box without area."""
    # edge by edge, which takes half the time of pairs of edges
    left, top, right, bottom = (edge[..., :, None] for edge in boxes.unbind(dim=-1))
    from_left, from_top, to_right, to_bottom = (edge[..., None, :] for edge in others.unbind(dim=-1))
    across = (torch.minimum(right, to_right) - torch.maximum(left, from_left)).clamp(min=0)
    down = (torch.minimum(bottom, to_bottom) - torch.maximum(top, from_top)).clamp(min=0)
    intersection = across * down
    areas = (right - left) * (bottom - top) + (to_right - from_left) * (to_bottom - from_top)
    return intersection / (areas - intersection).clamp(min=1e-6)


def match(boxes: Tensor, truth: Tensor, high: float, low: float, *, keep_best: bool) -> Tensor:
    """The true box of each anchor or proposal of an image, or of each of several images.

    Args:
        boxes: (..., A, 4).
        truth: (..., M, 4), possibly none; those without area match nothing.
        high: IoU from which a box matches the true box that it overlaps most.
        low: IoU below which a box is background.
        keep_best: also match each true box with the boxes that overlap it most, so that none is without; of several
            true boxes that one box is best for, with the one that it overlaps most.

    Returns:
        (..., A) int64: place of the true box, -1 for background, -2 for neither.
    """
    if not truth.shape[-2]:
        shape = torch.broadcast_shapes(boxes.shape[:-2], truth.shape[:-2])
        return torch.full((*shape, boxes.shape[-2]), -1, dtype=torch.int64, device=boxes.device)
    overlap = iou(boxes, truth)
    value, place = overlap.max(dim=-1)
    found = torch.where(value >= high, place, torch.where(value < low, -1, -2))
    if keep_best:
        best = overlap.amax(dim=-2, keepdim=True)
        of_best = overlap.masked_fill((overlap < best) | (best <= 0), -1).max(dim=-1)
        found = torch.where(of_best.values > 0, of_best.indices, found)
    return found


def fast_nms(boxes: Tensor, most: float) -> Tensor:
    """Whether to keep each of (..., R, 4) boxes, highest score first: (..., R) bool.

    A box is dropped if its IoU with any of higher score, kept or not, is above `most`.
    """
    overlap = iou(boxes, boxes).triu(diagonal=1)
    return F.pad(overlap, (0, 0, 1, 0)).amax(dim=-2) <= most


def mixed(boxes: Tensor) -> Tensor:
    """Numbers below 2 ** 16, the same on all devices, by which objects are in an order that is not that of places.

    With them, where not all objects of an image can be trained, others are left out in each crop.

    Args:
        boxes: (..., 4), rounded down to whole pixels.

    Returns:
        (...) int64.
    """
    factors = torch.tensor([40503, 30011, 50021, 60013], device=boxes.device)
    product = (boxes.long() * factors).sum(-1)
    product = (product ^ (product >> 7)) * 40503
    return (product ^ (product >> 9)) % (1 << 16)
