"""Which anchors are to find which true objects, and the loss of their classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from segcore.models.base.instance import Truth
from segcore.models.instance import boxes as of_boxes
from segcore.models.instance.exportable import ceil_div

# anchors of background that count in an image, at least
_NEGATIVES = 60


@dataclass(frozen=True)
class AnchorLevels:
    """Anchors of one side per level of a feature pyramid, each level of twice the stride of the one before.

    Attributes:
        finest: stride of the finest level in pixels.
        sides: square root of the anchors' area in pixels, one per level.
        ratios: height / width of the anchors at each place.
    """

    finest: int
    sides: Sequence[float]
    ratios: Sequence[float]

    @property
    def strides(self) -> list[int]:
        """Of each level, in pixels."""
        return [self.finest << level for level in range(len(self.sides))]

    def of_levels(self, size: Sequence[int], device: torch.device) -> list[Tensor]:
        """(A, 4) float32 anchors of each level for an input of the network, whose height and width are `size`."""
        found = []
        for stride, side in zip(self.strides, self.sides, strict=True):
            rows, cols = (ceil_div(length, stride) for length in size)
            found.append(of_boxes.anchors(rows, cols, stride, [side], self.ratios, device))
        return found

    def anchors(self, size: Sequence[int], device: torch.device) -> Tensor:
        """As `of_levels`, of all levels together."""
        return torch.cat(self.of_levels(size, device))


@dataclass(frozen=True)
class Positives:
    """Anchors that are to find an object. Ordered by image, and of an image the best anchor of each object first.

    Those of the same rank are in the order of `boxes.mixed`.

    Attributes:
        matched: (N, A) int64 place of each anchor's object in `Truth`, -1 for background, -2 for neither.
        item: (P,) int64 image.
        anchor: (P,) int64 place of the anchor.
        place: (P,) int64 place of the object in `Truth`.
        rank: (P,) int64 place among the anchors of the object, 0 for the best.
    """

    matched: Tensor
    item: Tensor
    anchor: Tensor
    place: Tensor
    rank: Tensor

    def __len__(self) -> int:
        return len(self.item)


def positives(anchors: Tensor, truth: Truth, high: float, low: float) -> Positives:
    """Match the anchors, the same for all images, with true objects.

    An anchor of which more than half is ignored is not background. An object that no anchor overlaps by `high` has one
    anchor: that of highest IoU, and of equal ones the nearest.

    Args:
        anchors: (A, 4).
        truth: of N images.
        high: IoU from which an anchor matches.
        low: IoU below which it is background.
    """
    matched = _matched(anchors, truth, high, low)
    item, anchor = (matched >= 0).nonzero().unbind(1)
    place = matched[item, anchor]
    overlap, distance = _fit(anchors[anchor], truth.boxes[place])
    order = distance.argsort(stable=True)
    # rounded, so that equal ones are equal on all devices
    order = order[(overlap[order] * 1e4).round().argsort(descending=True, stable=True)]
    order = order[place[order].argsort(stable=True)]
    rank = torch.arange(len(order), device=order.device) - torch.searchsorted(place[order], place[order])
    is_kept = (overlap[order] >= high) | (rank == 0)
    dropped = order[~is_kept]
    matched[item[dropped], anchor[dropped]] = -2
    order, rank = order[is_kept], rank[is_kept]
    last = of_boxes.mixed(truth.boxes[place[order]]).argsort(stable=True)
    last = last[(item[order] * (len(order) + 1) + rank)[last].argsort(stable=True)]
    order = order[last]
    return Positives(matched, item[order], anchor[order], place[order], rank[last])


def class_loss(logits: Tensor, matched: Tensor, truth: Truth) -> Tensor:
    """Sum of the cross-entropies of the anchors of objects, and of the hardest of background in each image.

    Of those, there are three times as many as of objects, as in SSD (Liu et al. 2016, arXiv 1512.02325), but at least
    `_NEGATIVES`, so that what is found in an image without objects has a loss.

    Args:
        logits: (N, A, classes + 1) float32, that of background last.
        matched: (N, A), as of `Positives`.
        truth: true objects.
    """
    classes = F.pad(truth.classes, (2, 0), value=logits.shape[-1] - 1)[matched + 2]
    loss = F.cross_entropy(logits.flatten(0, 1), classes.flatten(), reduction="none").view(matched.shape)
    background = loss.masked_fill(matched != -1, 0).sort(dim=1, descending=True, stable=True).values
    count = (3 * (matched >= 0).sum(dim=1, keepdim=True)).clamp(min=_NEGATIVES)
    place = torch.arange(loss.shape[1], device=loss.device)
    return loss[matched >= 0].sum() + background.masked_fill(place >= count, 0).sum()


def _matched(anchors: Tensor, truth: Truth, high: float, low: float) -> Tensor:
    images, first, rows = len(truth.instance), 0, []
    for count in torch.bincount(truth.item, minlength=images).tolist():
        found = of_boxes.match(anchors, truth.boxes[first : first + count], high, low, keep_best=True)
        rows.append(torch.where(found >= 0, found + first, found))
        first += count
    matched = torch.stack(rows)
    item = torch.arange(images, device=anchors.device).repeat_interleave(len(anchors))
    shares = truth.ignored_shares(item, anchors.repeat(images, 1)).view(images, -1)
    # an anchor beyond the image has no share
    is_ignored = (shares > 0.5) | truth.ignored.flatten(1).all(1)[:, None]
    return torch.where((matched == -1) & is_ignored, -2, matched)


def _fit(anchors: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(P,) IoU of each pair of boxes (P, 4), and (P,) distance of their centres."""
    overlap = of_boxes.iou(anchors[:, None], boxes[:, None])[:, 0, 0]
    centres = [(x[:, :2] + x[:, 2:]) / 2 for x in (anchors, boxes)]
    return overlap, (centres[0] - centres[1]).norm(dim=1)
