"""Masks as weighted sums of prototypes: their network, their loss, and masks of detected boxes.

Bolya et al. 2019, "YOLACT: Real-time Instance Segmentation", arXiv 1904.02689.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segcore.models.base.instance import Truth
from segcore.models.instance.anchor_head import convolution, xavier
from segcore.models.instance.anchor_targets import Positives
from segcore.models.instance.exportable import in_image, interpolation
from segcore.models.instance.mask_points import Points, areas, cells, chunks, cropped, enlarged, points

# points of an image at which masks are trained in a step; the last mask may exceed them
_MASK_POINTS = 1 << 16
# points of detected masks that are computed at once
_CHUNK = 1 << 21


class Protonet(nn.Sequential):
    """(N, width, h, w) to prototypes (N, prototypes, 2h, 2w), none below 0."""

    def __init__(self, width: int, prototypes: int) -> None:
        before = [layer for _ in range(3) for layer in convolution(width)]
        enlargement = nn.Upsample(scale_factor=2, mode="bilinear")
        last = nn.Conv2d(width, prototypes, 1)
        super().__init__(*before, enlargement, *convolution(width), last, nn.ReLU(inplace=True))
        self.apply(xavier)


def trained_masks(found: Positives, truth: Truth, stride: int) -> tuple[Tensor, Tensor]:
    """Positives whose masks count in the loss, (Q,) int64, and the prototype pixels of their true boxes, (Q, 4).

    They are the first of each image until their points are `_MASK_POINTS`, which differ between crops; boxes have a
    margin of one point.
    """
    height, width = (side // stride for side in truth.instance.shape[1:])
    ranges = cells(truth.boxes[found.place], stride, height, width, margin=1)
    before = areas(ranges).cumsum(0) - areas(ranges)
    before = before - before[torch.searchsorted(found.item, found.item)]
    chosen = (before < _MASK_POINTS).nonzero()[:, 0]
    return chosen, ranges[chosen]


def mask_loss(
    prototypes: Tensor, coefficients: Tensor, found: Positives, truth: Truth, stride: int
) -> Tensor:
    """Sum of the masks' mean cross-entropies in the true boxes.

    Args:
        prototypes: (N, P, h, w) float32.
        coefficients: (R, P) float32 of the positives.
        found: R positives.
        truth: true objects.
        stride: pixels per prototype pixel.
    """
    chosen, ranges = trained_masks(found, truth, stride)
    grid = points(ranges)
    logits = logits_at(grid, found.item[chosen], prototypes, coefficients[chosen])
    share, visible = targets_at(grid, found.place[chosen], truth, stride)
    loss = F.binary_cross_entropy_with_logits(logits, share, reduction="none") * visible
    return (loss / areas(ranges)[grid.owner]).sum()


def semantic_loss(logits: Tensor, truth: Truth) -> Tensor:
    """Sum of the cross-entropies with the share of each class in the visible pixels of a pixel of the finest level."""
    stride = truth.instance.shape[-1] // logits.shape[-1]
    classes, visible = truth.semantic(), pooled(~truth.ignored, stride)
    shares = torch.stack([pooled(classes == index, stride) for index in range(logits.shape[1])], dim=1)
    shares = shares / visible.clamp(min=1e-6)[:, None]
    loss = F.binary_cross_entropy_with_logits(logits, shares, reduction="none")
    return (loss * visible[:, None]).sum()


def pooled(mask: Tensor, stride: int) -> Tensor:
    """(N, H, W) bool to the share in each block of pixels, (N, H / stride, W / stride) float32."""
    return F.avg_pool2d(mask[:, None].float(), stride)[:, 0]


def _box_cells(
    prototypes: Tensor, boxes: Tensor, stride: int, magnify: float, size: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Original pixels and prototype pixels of boxes, as of `cells`; arguments as of `detected_masks`."""
    pixels = cells(boxes / magnify, 1, size[0], size[1])
    height, width = prototypes.shape[-2:]
    return pixels, cells(pixels * magnify, stride, height, width, margin=1)


def detected_masks(
    prototypes: Tensor,
    coefficients: Tensor,
    boxes: Tensor,
    stride: int,
    magnify: float,
    size: Sequence[int],
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Masks of the objects of one image in its original pixels, as in `Objects`; those without a pixel have size 0.

    Args:
        prototypes: (1, P, h, w) float32.
        coefficients: (R, P) float32.
        boxes: (R, 4) float32 in pixels of the network, to which masks are cropped before they are enlarged.
        stride: pixels of the network per prototype pixel.
        magnify: pixels of the network per original pixel.
        size: height and width of the image in original pixels.

    Returns:
        (R, 4) int32 first row, first column, height and width; and R masks.
    """
    pixels, coarse = _box_cells(prototypes, boxes, stride, magnify, size)
    item = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    found: list[tuple[tuple[int, int, int, int], np.ndarray]] = []
    for part in chunks(areas(pixels), _CHUNK):
        low, high = points(coarse[part]), points(pixels[part])
        mask = logits_at(low, item[part], prototypes, coefficients[part]).sigmoid()
        found += cropped(enlarged(mask, low, high, stride / magnify) > 0.5, high)
    return np.array([box for box, _ in found], np.int32).reshape(-1, 4), [mask for _, mask in found]


def detected_planes(
    prototypes: Tensor,
    coefficients: Tensor,
    boxes: Tensor,
    stride: int,
    magnify: float,
    size: Sequence[int],
) -> Tensor:
    """The masks of `detected_masks` of all images of a batch as planes, (N, R, height, width) bool.

    Arguments as there, but for each image: prototypes (N, P, h, w), coefficients (N, R, P), boxes (N, R, 4).
    """
    pixels, coarse = _box_cells(prototypes, boxes, stride, magnify, size)
    height, width = prototypes.shape[-2:]
    values = (coefficients @ prototypes.flatten(2)).sigmoid().unflatten(2, (height, width))
    weights = []
    for axis, (side, count) in enumerate(zip(size, (height, width), strict=True)):
        # y is the second of each pair
        (first, end), (low, high) = (x[..., 1 - axis :: 2].unbind(-1) for x in (pixels, coarse))
        position = (torch.arange(side, device=boxes.device) + 0.5) / (stride / magnify) - 0.5
        position = position.clamp(min=low[..., None], max=high[..., None] - 1)
        weights.append(interpolation(position, count, first, end))
    return in_image(values, *weights) > 0.5


def logits_at(points: Points, item: Tensor, prototypes: Tensor, coefficients: Tensor) -> Tensor:
    """(L,) logits of masks at points of the prototypes.

    Args:
        points: of R masks.
        item: (R,) int64 image of each mask.
        prototypes: (N, P, h, w) float32.
        coefficients: (R, P) float32.
    """
    height, width = prototypes.shape[-2:]
    place = (item[points.owner] * height + points.row) * width + points.col
    table = prototypes.permute(0, 2, 3, 1).reshape(-1, prototypes.shape[1])
    # embedding, because the gradient of plain indexing depends on the order of threads
    return (F.embedding(place, table) * F.embedding(points.owner, coefficients)).sum(1)


def targets_at(points: Points, place: Tensor, truth: Truth, stride: int) -> tuple[Tensor, Tensor]:
    """The share of a true object in the visible pixels at each point, and the share of pixels that are visible.

    Shares of an object that fills no point's pixels, such as a thin one, are divided by the largest of them.

    Args:
        points: of R masks in the grid of prototypes.
        place: (R,) int64 place of each mask's object.
        truth: true objects.
        stride: pixels per prototype pixel.

    Returns:
        Two (L,) float32 in 0..1.
    """
    at = (truth.item[place][points.owner], points.row, points.col)
    owner = place[points.owner]
    visible = 1 - _blocks(truth.ignored, stride)[at].float().mean(1)
    own = _blocks(truth.instance, stride)[at] == owner[:, None] + 1
    share = own.float().mean(1) / visible.clamp(min=1e-6)
    largest = share.new_zeros(len(truth)).scatter_reduce(0, owner, share, "amax")
    return (share / largest[owner].clamp(min=1e-6)).clamp(max=1), visible


def _blocks(x: Tensor, side: int) -> Tensor:
    """(N, H, W) to (N, H / side, W / side, side * side)."""
    count, height, width = x.shape
    blocks = x.view(count, height // side, side, width // side, side).transpose(2, 3)
    return blocks.reshape(count, height // side, width // side, side * side)
