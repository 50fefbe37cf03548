"""Regions of interest of Mask R-CNN: proposals, the choice of those to train on, pooling, and masks.

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

from segcore.models.base.boxes import match
from segcore.models.base.instance import Truth
from segcore.models.base.roi_align import roi_align

# elements of an array of overlaps, which limits its memory to some 100 MB
_OVERLAPS = 1 << 24
# side in pixels from which a region is pooled at stride 4; it doubles with each stride (Lin et al. 2017: 224 at 16)
_POOLED_AT_4 = 56


@dataclass(frozen=True)
class TrueBoxes:
    """True objects of a batch, one row per image, padded at its end.

    Attributes:
        boxes: (N, M, 4) float32, 0 where padded.
        classes: (N, M) int64.
        numbers: (N, M) int64, as in `Truth.instance`; 0 where padded.
    """

    boxes: Tensor
    classes: Tensor
    numbers: Tensor

    @property
    def real(self) -> Tensor:
        """(N, M) bool, False where padded."""
        return self.numbers > 0

    def matched(self, boxes: Tensor, high: float, low: float, *, keep_best: bool) -> Tensor:
        """`match` of boxes (N, A, 4), or (A, 4) of all images, in parts of limited memory."""
        boxes = boxes.expand(len(self.boxes), -1, -1)
        step = max(1, _OVERLAPS // max(1, boxes.shape[1] * self.boxes.shape[1]))
        parts = zip(boxes.split(step), self.boxes.split(step), strict=True)
        return torch.cat([match(b, truth, high, low, keep_best=keep_best) for b, truth in parts])


def true_boxes(truth: Truth) -> TrueBoxes:
    """The objects of each image; waits for the device."""
    images, device = len(truth.instance), truth.item.device
    counts = torch.bincount(truth.item, minlength=images)
    longest = int(counts.max())
    place = torch.arange(longest, device=device) + (counts.cumsum(0) - counts)[:, None]
    real = torch.arange(longest, device=device) < counts[:, None]
    place = place.clamp(max=max(len(truth) - 1, 0))
    return TrueBoxes(truth.boxes[place] * real[..., None], truth.classes[place] * real, (place + 1) * real)


def highest(scores: Tensor, boxes: Tensor, lengths: Sequence[int], count: int) -> tuple[Tensor, Tensor]:
    """The `count` boxes of highest score of each level, in order of score; of equal scores the first.

    Args:
        scores: (N, A).
        boxes: (N, A, 4).
        lengths: number of boxes of each level.
        count: boxes of each level at most.

    Returns:
        Scores (N, K) and boxes (N, K, 4).
    """
    chosen, first = [], 0
    for length in lengths:
        order = scores[:, first : first + length].sort(dim=1, descending=True, stable=True).indices[:, :count]
        chosen.append(order + first)
        first += length
    index = torch.cat(chosen, dim=1)
    return scores.gather(1, index), boxes.gather(1, index[..., None].expand(-1, -1, 4))


def without_duplicates(scores: Tensor, boxes: Tensor, overlap: float, count: int) -> tuple[Tensor, Tensor]:
    """Proposals of each image by non-maximum suppression, padded to the same number; waits for the device.

    Args:
        scores: (N, K).
        boxes: (N, K, 4); those without area are left out.
        overlap: largest IoU of two proposals.
        count: proposals of an image at most.

    Returns:
        Boxes (N, count, 4), and whether each is one (N, count).
    """
    found = boxes.new_zeros(len(boxes), count, 4)
    real = torch.zeros(len(boxes), count, dtype=torch.bool, device=boxes.device)
    has_area = ((boxes[..., 2:] - boxes[..., :2]) > 1e-2).all(dim=-1)
    for index, usable in enumerate(has_area):
        candidates = boxes[index, usable]
        kept = nms(candidates, scores[index, usable], overlap)[:count]
        found[index, : len(kept)] = candidates[kept]
        real[index, : len(kept)] = True
    return found, real


def sample(positive: Tensor, negative: Tensor, count: int, first: int) -> tuple[Tensor, Tensor]:
    """Regions to train on, in an order that is neither random nor by score, and is the same on all devices.

    Args:
        positive: (N, P) bool.
        negative: (N, P) bool.
        count: of an image; at most half of them are positive.
        first: place from which positives come before all others.

    Returns:
        Places (N, min(count, P)), and their kind: 0 positive, 1 negative, 2 neither, to be left out.
    """
    place = torch.arange(positive.shape[1], device=positive.device)
    # an odd factor permutes the numbers below a power of 2
    key = torch.where(place < first, (place * 40503) % (1 << 16) + (1 << 16), place)
    group = torch.where(positive, 0, torch.where(negative, 1, 2))
    rank = (group * (1 << 20) + key).argsort(dim=1).argsort(dim=1)
    group = torch.where(positive & (rank >= count // 2), 2, group)
    chosen = (group * (1 << 20) + key).argsort(dim=1)[:, :count]
    return chosen, group.gather(1, chosen)


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
    sides = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt()
    steps = (sides / (_POOLED_AT_4 * strides[0] / 4)).clamp(min=1).log2()
    level = (steps + 1e-6).long().clamp(max=len(strides) - 1)
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


def mask_targets(
    truth: Truth, item: Tensor, boxes: Tensor, numbers: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Whether the centres of size x size parts of regions are in a given object.

    Args:
        truth: of the batch.
        item: (R,) int64, place of the region's image in the batch.
        boxes: (R, 4) float32.
        numbers: (R,) int64 number of the region's object in `Truth.instance`.
        size: points along a side.

    Returns:
        Targets (R, size, size) float32 and whether the point counts (R, size, size) bool, False where ignored.
    """
    height, width = truth.instance.shape[1:]
    share = (torch.arange(size, device=boxes.device) + 0.5) / size
    col = (boxes[:, 0:1] + share * (boxes[:, 2:3] - boxes[:, 0:1])).long().clamp(0, width - 1)
    row = (boxes[:, 1:2] + share * (boxes[:, 3:4] - boxes[:, 1:2])).long().clamp(0, height - 1)
    at = (item[:, None, None], row[:, :, None], col[:, None, :])
    return (truth.instance[at] == numbers[:, None, None]).float(), ~truth.ignored[at]


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
