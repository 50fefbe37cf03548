"""Regions of interest of Mask R-CNN: the choice of those to train on, pooling, and masks.

He et al. 2017, "Mask R-CNN", arXiv 1703.06870.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

from segcore.models.base.instance import Truth
from segcore.models.instance.boxes import mixed
from segcore.models.instance.roi_align import roi_align
from segcore.objects.found import Objects

# side in pixels from which a region is pooled at stride 4; it doubles with each stride (Lin et al. 2017: 224 at 16)
_POOLED_AT_4 = 56


@dataclass(frozen=True)
class Regions:
    """Regions of objects of a batch.

    Attributes:
        item: (R,) int64, place of the region's image in the batch.
        boxes: (R, 4) float32.
        classes: (R,) int64.
        numbers: (R,) int64 number of the region's object in `Truth.instance`, 0 for none.
    """

    item: Tensor
    boxes: Tensor
    classes: Tensor
    numbers: Tensor

    def select(self, chosen: Tensor) -> "Regions":
        """The regions of a mask (R,); one of no object if there are none, so that all layers get a gradient."""
        parts = [x[chosen] for x in (self.item, self.boxes, self.classes, self.numbers)]
        return Regions(*(x if len(x) else x.new_zeros(1, *x.shape[1:]) for x in parts))


def sample(
    positive: Tensor, negative: Tensor, count: int, boxes: Tensor, first: int
) -> tuple[Tensor, Tensor]:
    """Regions to train on, in an order that is neither random nor by score or number, the same on all devices.

    Args:
        positive: (N, P) bool.
        negative: (N, P) bool.
        count: of an image; at most half of them are positive.
        boxes: (N, P, 4) float32, from `first` in whole pixels.
        first: place from which positives come before all others, in an order that depends on where they are.

    Returns:
        Places (N, min(count, P)), and their kind: 0 positive, 1 negative, 2 neither, to be left out.
    """
    place = torch.arange(positive.shape[1], device=positive.device)
    # an odd factor permutes the numbers below a power of 2
    key = torch.where(place < first, (place * 40503) % (1 << 16) + (1 << 16), mixed(boxes))
    group = torch.where(positive, 0, torch.where(negative, 1, 2))
    rank = (group * (1 << 20) + key).argsort(dim=1, stable=True).argsort(dim=1)
    group = torch.where(positive & (rank >= count // 2), 2, group)
    chosen = (group * (1 << 20) + key).argsort(dim=1, stable=True)[:, :count]
    return chosen, group.gather(1, chosen)


def pyramid_level(boxes: Tensor, strides: Sequence[int]) -> Tensor:
    """Place in `strides` of the map that suits the size of each box, (R,) int64; arguments as of `pool`."""
    sides = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt()
    steps = (sides / (_POOLED_AT_4 * strides[0] / 4)).clamp(min=1).log2()
    return (steps + 1e-6).long().clamp(max=len(strides) - 1)


def pool(maps: Sequence[Tensor], strides: Sequence[int], item: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Features of regions, each from the map whose stride suits its size, by RoIAlign; waits for the device.

    Args:
        maps: (N, C, h, w) of each stride.
        strides: input pixels per pixel of each map, ascending, each twice the one before.
        item: (R,) int64, place of the region's image in the batch.
        boxes: (R, 4) float32.
        size: height and width of the result, at each pixel of which 2 x 2 points are averaged.

    Returns:
        (R, C, size, size) float32.
    """
    level = pyramid_level(boxes, strides)
    order = level.argsort(stable=True)
    regions = torch.cat([item[:, None].float(), boxes], dim=1)[order]
    counts = torch.bincount(level, minlength=len(strides)).tolist()
    align = _align if boxes.device.type == "cpu" else _align_on_accelerator
    pooled = [
        align(x.float(), part, stride, size)
        for x, part, stride in zip(maps, regions.split(counts), strides, strict=True)
    ]
    # channels are the last axis in memory, with which convolutions on a CPU take half the time
    return torch.cat(pooled)[order.argsort()].permute(0, 3, 1, 2)


def _align_on_accelerator(x: Tensor, regions: Tensor, stride: int, size: int) -> Tensor:
    return roi_align(x, regions, stride, size, points=2).permute(0, 2, 3, 1)


def _align(x: Tensor, regions: Tensor, stride: int, size: int) -> Tensor:
    """RoIAlign as by torchvision, as a sum over 4 x 4 pixels per part: three times as fast on a CPU.

    Args:
        x: (N, C, h, w).
        regions: (R, 5) place of the image, left, top, right, bottom.
        stride: input pixels per pixel of x.
        size: height and width of the result.

    Returns:
        (R, size, size, C).
    """
    channels, height, width = x.shape[1:]
    row, row_weight = _samples(regions[:, 2], regions[:, 4], stride, height, size)
    col, col_weight = _samples(regions[:, 1], regions[:, 3], stride, width, size)
    row = row + regions[:, 0].long()[:, None, None] * height
    # (R, size, size, 4, 4)
    index = row[:, :, None, :, None] * width + col[:, None, :, None, :]
    weight = row_weight[:, :, None, :, None] * col_weight[:, None, :, None, :]
    pooled = F.embedding_bag(
        index.view(-1, 16),
        x.permute(0, 2, 3, 1).reshape(-1, channels),
        per_sample_weights=weight.view(-1, 16),
        mode="sum",
    )
    return pooled.view(len(regions), size, size, channels)


def _samples(start: Tensor, end: Tensor, stride: int, length: int, size: int) -> tuple[Tensor, Tensor]:
    """Pixels of an axis and their weights in each of `size` parts of start..end, (R, size, 4).

    Each part has two points, and each point lies between two pixels.
    """
    share = (torch.arange(2 * size, device=start.device) + 0.5) / (2 * size)
    place = (start[:, None] + share * (end - start)[:, None]) / stride - 0.5
    inside = (place >= -1) & (place <= length)
    place = place.clamp(0, length - 1)
    below = place.long()
    part = place - below
    pixels = torch.stack([below, (below + 1).clamp(max=length - 1)], dim=-1)
    weights = torch.stack([1 - part, part], dim=-1) * inside[..., None] / 2
    return pixels.unflatten(1, (size, 2)).flatten(2), weights.unflatten(1, (size, 2)).flatten(2)


def mask_targets(truth: Truth, regions: Regions, size: int) -> tuple[Tensor, Tensor]:
    """Whether the centres of size x size parts of regions are in the region's object.

    Returns:
        Targets (R, size, size) float32 and whether the point counts (R, size, size) bool, False where ignored.
    """
    height, width = truth.instance.shape[1:]
    low, sides = regions.boxes[:, :2], regions.boxes[:, 2:] - regions.boxes[:, :2]
    share = (torch.arange(size, device=low.device) + 0.5) / size
    col, row = (low[..., None] + share * sides[..., None]).long().unbind(1)
    row, col = row.clamp(0, height - 1)[:, :, None], col.clamp(0, width - 1)[:, None]
    at = (regions.item[:, None, None], row, col)
    return (truth.instance[at] == regions.numbers[:, None, None]).float(), ~truth.ignored[at]


def mask_term(logits: Tensor, regions: Regions, truth: Truth) -> Tensor:
    """Sum over objects of the mean over an object's regions of the mean cross-entropy of a region's points.

    Args:
        logits: (R, S, S).
        regions: of the masks; those of no object do not count.
        truth: of the batch.
    """
    target, counted = mask_targets(truth, regions, logits.shape[-1])
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * counted
    mean = entropy.sum((1, 2)) / counted.sum((1, 2)).clamp(min=1)
    counts = torch.bincount(regions.numbers, minlength=len(truth) + 1)[regions.numbers]
    return (mean * (regions.numbers > 0) / counts).sum()


def best(
    boxes: Tensor, probabilities: Tensor, lowest: float, overlap: float, count: int
) -> tuple[Tensor, Tensor]:
    """Regions of an image without duplicates of the same class, in order of probability; waits for the device.

    Args:
        boxes: (P, K, 4) of each class.
        probabilities: (P, K).
        lowest: probability of a region.
        overlap: largest IoU of two regions of a class.
        count: regions at most.

    Returns:
        Place (D,) in 0..P-1 and class (D,).
    """
    chosen = []
    for k in range(probabilities.shape[1]):
        place = (probabilities[:, k] >= lowest).nonzero()[:, 0]
        kept = place[nms(boxes[place, k], probabilities[place, k], overlap)]
        chosen.append(torch.stack([kept, torch.full_like(kept, k)]))
    place, classes = torch.cat(chosen, dim=1)
    order = probabilities[place, classes].sort(descending=True, stable=True).indices[:count]
    return place[order], classes[order]


def objects_in_image(
    probabilities: np.ndarray,
    boxes: np.ndarray,
    classes: np.ndarray,
    scores: np.ndarray,
    height: int,
    width: int,
) -> Objects:
    """Objects of regions; those without a pixel are left out.

    Args:
        probabilities: (D, S, S), see `mask_in_image`.
        boxes: (D, 4) in pixels of the image.
        classes: (D,) uint8.
        scores: (D,) float32.
        height: of the image.
        width: of the image.
    """
    found = [mask_in_image(mask, box, height, width) for mask, box in zip(probabilities, boxes, strict=True)]
    kept = np.array([one is not None for one in found], bool)
    places = np.array([one[0] for one in found if one], np.int32).reshape(-1, 4)
    return Objects(height, width, classes[kept], scores[kept], places, [one[1] for one in found if one])


def mask_in_image(
    probability: np.ndarray, box: np.ndarray, height: int, width: int
) -> tuple[tuple[int, int, int, int], np.ndarray] | None:
    """Pixels whose centre is in a box and has a probability above 0.5 there, interpolated bilinearly.

    Args:
        probability: (S, S) at the centres of the parts of the box.
        box: (4,) left, top, right, bottom in pixels of the image.
        height: of the image.
        width: of the image.

    Returns:
        First row, first column, height and width of the pixels, and their mask of this size; None if there are none.
    """
    left, top, right, bottom = (float(edge) for edge in box)
    rows, upper, lower, row_share = _points(top, bottom, height, len(probability))
    cols, before, after, col_share = _points(left, right, width, len(probability))
    if not len(rows) or not len(cols):
        return None
    lines = probability[upper] * (1 - row_share)[:, None] + probability[lower] * row_share[:, None]
    mask = lines[:, before] * (1 - col_share) + lines[:, after] * col_share > 0.5
    some_row, some_col = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
    if not len(some_row):
        return None
    tight = mask[some_row[0] : some_row[-1] + 1, some_col[0] : some_col[-1] + 1]
    return (int(rows[some_row[0]]), int(cols[some_col[0]]), *tight.shape), tight


def _points(
    start: float, end: float, length: int, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pixels with their centre in start..end, the two of `size` parts around each, and the share of the second."""
    pixels = np.arange(max(math.ceil(start - 0.5), 0), min(math.floor(end - 0.5) + 1, length))
    place = ((pixels + 0.5 - start) / max(end - start, 1e-6) * size - 0.5).clip(0, size - 1)
    below = np.minimum(place.astype(int), size - 1)
    return pixels, below, np.minimum(below + 1, size - 1), (place - below).astype(np.float32)
