"""YOLACT.

Bolya, Zhou, Xiao and Lee 2019, "YOLACT: Real-time Instance Segmentation", arXiv 1904.02689.

One head, shared by the levels of a feature pyramid, predicts for each anchor a class, a box and coefficients; a small
network on the finest level predicts prototypes, of which a mask is the sum weighted by the coefficients, cropped by the
box. With `mask_iou`, another network rates the masks, as in YOLACT++ (Bolya et al. 2020, arXiv 1912.06218).
Differences from the paper: classes are trained by focal loss (Lin et al. 2017, arXiv 1708.02002) on all anchors of all
images, so that images without objects count; each anchor has the shape of its ratio; masks are enlarged after they are
cropped; the target of a prototype pixel is the share of its pixels that are of the object.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou, roi_align, sigmoid_focal_loss

from segcore.errors import ModelError
from segcore.models.base import boxes as boxes_of
from segcore.models.base import mask_points
from segcore.models.base.encoders import build_encoder
from segcore.models.base.instance import InstanceModel, Outputs, Truth
from segcore.models.base.model import upsample
from segcore.models.base.object_sizes import ObjectSizes
from segcore.models.base.pyramid import Pyramid
from segcore.objects.found import Objects

KIND = "instance"

# IoU of an anchor with a true box from which it is positive, and below which it is negative
_HIGH, _LOW = 0.5, 0.4
# the paper's variances .1 and .2
_OFFSETS = (10.0, 10.0, 5.0, 5.0)
# probability of an object at each anchor before training
_PRIOR = 0.01
# objects of a lower score are not detected
_LOWEST_SCORE = 0.05
# IoU of boxes above which the one of lower score is suppressed
_SUPPRESSED = 0.5
# prototype pixels of an image whose masks are trained on in a step; the last mask may reach beyond
_MASK_POINTS = 1 << 16
# points of masks that are handled at once
_CHUNK = 1 << 21
# points on each side of a mask whose IoU is predicted
_RATED = 16


def build(
    in_channels: int,
    num_classes: int,
    foreground: Sequence[int],
    *,
    encoder: str = "mobilenet_v2",
    weights: str = "none",
    width: int = 64,
    finest: Any = "auto",
    sides: Any = "auto",
    ratios: Any = "auto",
    prototypes: int = 32,
    candidates: Any = "auto",
    mask_iou: bool = False,
) -> InstanceModel:
    """A YOLACT.

    Args:
        in_channels: bands of the image.
        num_classes: classes, background included.
        foreground: indices of the classes that have objects.
        encoder: one of `ENCODERS`.
        weights: of the encoder, see `load_encoder_weights`.
        width: channels of pyramid, head and the network of the prototypes; 256 as published.
        finest: stride of the finest level, 4 or 8; prototypes have half of it. As published: 8.
        sides: of the anchors in pixels, one per level.
        ratios: height / width of the anchors.
        prototypes: their number.
        candidates: anchors of highest score of each class that are compared for duplicates.
        mask_iou: whether scores are multiplied by a prediction of the mask's IoU.

    Raises:
        ModelError: an unknown value, or weights that do not fit.
    """
    model = Yolact(
        in_channels, num_classes, foreground, encoder, weights, width, sides, ratios, finest, prototypes
    )
    model.candidates = candidates
    if mask_iou:
        model.rating = MaskRating(len(foreground))
    return model


def fit(keywords: Mapping[str, Any], sizes: ObjectSizes) -> dict[str, Any]:
    """Keywords in which each "auto" is replaced by the value that fits objects of these sizes.

    The anchors of the finest level have a side between those of small objects; each further level doubles it, up to
    those of large objects.

    Raises:
        ModelError: a value is impossible.
    """
    fitted = dict(keywords)
    # between the smallest and the lower quartile
    small, large = (sizes.sides[0] * sizes.sides[1]) ** 0.5, sizes.sides[-1]
    if fitted["finest"] == "auto":
        smallest = small if fitted["sides"] == "auto" else min(fitted["sides"])
        fitted["finest"] = 8 if smallest >= 16 else 4
    if fitted["finest"] not in (4, 8):
        raise ModelError(f"finest {fitted['finest']!r} is unknown", "choose one of auto, 4, 8")
    finest = int(fitted["finest"])
    if fitted["sides"] == "auto":
        # sides outside of this range would not fit the receptive field and the spacing of the finest level
        sides = [min(max(small, 2 * finest), 4 * finest)]
        while sides[-1] * 2**0.5 < large and len(sides) < 5:
            sides.append(2 * sides[-1])
        fitted["sides"] = [round(side, 1) for side in sides]
    if fitted["ratios"] == "auto":
        low, middle, high = sizes.ratios
        fitted["ratios"] = [
            round(ratio, 2) for ratio in (middle, min(low, middle / 1.5), max(high, middle * 1.5))
        ]
    for name in ("sides", "ratios"):
        if not fitted[name] or min(fitted[name]) <= 0:
            raise ModelError(
                f"{name} {fitted[name]!r} are not all above 0", "give at least one number above 0, or auto"
            )
    if fitted["candidates"] == "auto":
        # about ten anchors are positive for each object
        fitted["candidates"] = min(max(200, 10 * sizes.most), 4096)
    return fitted


class Positives(NamedTuple):
    """Anchors that match a true object, of all images.

    Attributes:
        matched: (N, A) int64 place of each anchor's object in `Truth`, -1 for background, -2 for neither.
        item: (P,) int64 image.
        anchor: (P,) int64 anchor.
        object: (P,) int64 place of the object in `Truth`.
        masks: (Q,) int64, places in the lists above of those whose masks are trained, each object's best first.
        best: (B,) int64, places in the lists above of the best anchor of each object.
        points: of the masks, in the grid of prototypes.
    """

    matched: Tensor
    item: Tensor
    anchor: Tensor
    object: Tensor
    masks: Tensor
    best: Tensor
    points: mask_points.Points


class Head(nn.Module):
    """Classes, box and coefficients at the anchors of one level; arguments are the numbers of channels."""

    def __init__(self, width: int, anchors: int, classes: int, prototypes: int) -> None:
        super().__init__()
        self.shared = nn.Conv2d(width, width, 3, padding=1)
        self.outputs = nn.ModuleList(
            nn.Conv2d(width, anchors * channels, 3, padding=1) for channels in (classes, 4, prototypes)
        )
        self.channels = (classes, 4, prototypes)
        with torch.no_grad():
            self.outputs[0].bias.fill_(-np.log((1 - _PRIOR) / _PRIOR))  # type: ignore[operator, union-attr]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Logits (N, A, classes), offsets (N, A, 4) and coefficients (N, A, prototypes) of (N, width, h, w)."""
        x = F.relu(self.shared(x))
        logits, offsets, coefficients = (
            layer(x).permute(0, 2, 3, 1).reshape(len(x), -1, channels)
            for layer, channels in zip(self.outputs, self.channels, strict=True)
        )
        return [logits, offsets, torch.tanh(coefficients)]


class Protonet(nn.Module):
    """Prototypes at twice the resolution of its input."""

    def __init__(self, width: int, prototypes: int) -> None:
        super().__init__()
        self.before = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.after = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, prototypes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, h, w) to (N, prototypes, 2h, 2w), none below 0."""
        for layer in self.before:
            x = F.relu(layer(x))
        x = upsample(x, [2 * side for side in x.shape[-2:]])
        return F.relu(self.last(F.relu(self.after(x))))


class Yolact(InstanceModel):
    """YOLACT; arguments as those of `build`."""

    coefficients: ClassVar[dict[str, float]] = {
        "class": 1.0,
        "box": 1.5,
        "mask": 6.125,
        "semantic": 1.0,
        "mask_iou": 25.0,
    }
    is_position_dependent: ClassVar[bool] = True

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        foreground: Sequence[int],
        encoder: str,
        weights: str,
        width: int,
        sides: Sequence[float],
        ratios: Sequence[float],
        finest: int,
        prototypes: int,
    ) -> None:
        trunk = build_encoder(encoder, in_channels, weights)
        super().__init__(in_channels, num_classes, "YOLACT", trunk.strides[-1], foreground)
        self.sides, self.ratios, self.stride = list(sides), list(ratios), finest // 2
        self.candidates = 200
        classes = len(self.foreground)
        self.encoder = trunk
        self.pyramid = Pyramid(trunk, width, [finest << level for level in range(len(sides))], extra="conv")
        self.head = Head(width, len(ratios), classes, prototypes)
        self.protonet = Protonet(width, prototypes)
        self.semantic = nn.Conv2d(width, classes, 1)
        self.rating: MaskRating | None = None

    def heads(self, x: Tensor) -> Outputs:
        """Logits, offsets and coefficients of all anchors, prototypes, and logits of classes at the finest level."""
        levels = self.pyramid(self.encoder(x))
        predicted = zip(*(self.head(level) for level in levels), strict=True)
        return (
            *(torch.cat(parts, dim=1) for parts in predicted),
            self.protonet(levels[0]),
            self.semantic(levels[0]),
        )

    def anchors(self, height: int, width: int, device: torch.device) -> Tensor:
        """(A, 4) float32 anchors of an input of the network of height x width pixels."""
        found = []
        for stride, side in zip(self.pyramid.strides, self.sides, strict=True):
            rows, cols = -(-height // stride), -(-width // stride)
            found.append(boxes_of.anchors(rows, cols, stride, [side], self.ratios, device))
        return torch.cat(found)

    def positives(self, truth: Truth) -> Positives:
        """Anchors that match true objects."""
        height, width = truth.instance.shape[1:]
        anchors = self.anchors(height, width, truth.boxes.device)
        matched = self._matched(anchors, truth)
        item, anchor = (matched >= 0).nonzero().unbind(1)
        place = matched[item, anchor]
        # rank of an anchor among those of its object, the one of highest IoU first
        overlap = _paired_iou(anchors[anchor], truth.boxes[place])
        order = overlap.argsort(descending=True, stable=True)
        order = order[place[order].argsort(stable=True)]
        first = torch.searchsorted(place[order], place[order])
        rank = torch.arange(len(order), device=order.device) - first
        best = order[rank == 0]
        order = order[rank.argsort(stable=True)]
        order = order[item[order].argsort(stable=True)]
        ranges = self._cells(truth.boxes[place[order]], height, width, margin=1)
        before = mask_points.areas(ranges).cumsum(0) - mask_points.areas(ranges)
        before = before - before[torch.searchsorted(item[order], item[order])]
        chosen = before < _MASK_POINTS
        return Positives(
            matched, item, anchor, place, order[chosen], best, mask_points.points(ranges[chosen])
        )

    def _cells(self, boxes: Tensor, height: int, width: int, margin: int) -> Tensor:
        return mask_points.cells(boxes, self.stride, height // self.stride, width // self.stride, margin)

    def _matched(self, anchors: Tensor, truth: Truth) -> Tensor:
        """(N, A): `Positives.matched`. Anchors of which more than half is ignored are no background."""
        images = len(truth.instance)
        counts = torch.bincount(truth.item, minlength=images).tolist()
        matched, first = [], 0
        for count in counts:
            found = boxes_of.match(anchors, truth.boxes[first : first + count], _HIGH, _LOW, keep_best=True)
            matched.append(torch.where(found >= 0, found + first, found))
            first += count
        item = torch.arange(images, device=anchors.device).repeat_interleave(len(anchors))
        shares = truth.ignored_shares(item, anchors.repeat(images, 1)).view(images, -1)
        # anchors beyond the image have no share
        is_ignored = (shares > 0.5) | truth.ignored.flatten(1).all(1)[:, None]
        found = torch.stack(matched)
        return torch.where((found == -1) & is_ignored, -2, found)

    def weights(self, truth: Truth) -> dict[str, Tensor]:
        """Classes: matched anchors and images; boxes: matched anchors; masks: their number; semantic: pixels."""
        positives = self.positives(truth)
        images = (~truth.ignored).flatten(1).any(1).sum()
        matched = torch.tensor(len(positives.item), device=images.device)
        weights = {
            "class": matched + images,
            "box": matched,
            "mask": torch.tensor(len(positives.masks), device=images.device),
            "semantic": self._pooled(~truth.ignored).sum(),
        }
        if self.rating is not None:
            weights["mask_iou"] = torch.tensor(len(positives.best), device=images.device)
        return {name: weight.float() for name, weight in weights.items()}

    def _pooled(self, mask: Tensor) -> Tensor:
        """(N, H, W) bool to the share in each pixel of the finest level."""
        return F.avg_pool2d(mask[:, None].float(), 2 * self.stride)[:, 0]

    def terms(self, outputs: Outputs, truth: Truth) -> dict[str, Tensor]:
        """Sums of the terms of the loss."""
        logits, offsets, coefficients, prototypes, semantic = (x.float() for x in outputs)
        positives = self.positives(truth)
        _, item, anchor, place = positives[:4]
        anchors = self.anchors(*truth.instance.shape[1:], logits.device)
        boxes = boxes_of.encode(truth.boxes[place], anchors[anchor], _OFFSETS)
        terms = {
            "class": self._class_loss(logits, positives, truth),
            "box": F.smooth_l1_loss(offsets[item, anchor], boxes, reduction="sum"),
            "mask": self._mask_loss(coefficients, prototypes, positives, truth),
            "semantic": self._semantic_loss(semantic, truth),
        }
        if self.rating is not None:
            best = positives.best
            item, anchor, place = item[best], anchor[best], place[best]
            boxes = boxes_of.decode(offsets[item, anchor], anchors[anchor], _OFFSETS).detach()
            with torch.no_grad():
                masks = self._crops(prototypes, coefficients[item, anchor], boxes, item)
            rated = self.rating(masks)[torch.arange(len(best)), truth.classes[place]]
            terms["mask_iou"] = F.smooth_l1_loss(rated, _ious(masks, boxes, place, truth), reduction="sum")
        return terms

    def _crops(self, prototypes: Tensor, coefficients: Tensor, boxes: Tensor, item: Tensor) -> Tensor:
        """(R, side, side) masks of R objects, each at a grid of points of its box."""
        regions = torch.cat([item[:, None].float(), boxes], dim=1)
        crops = roi_align(prototypes, regions, _RATED, 1 / self.stride, sampling_ratio=1, aligned=True)
        return (crops * coefficients[:, :, None, None]).sum(1).sigmoid()

    def _class_loss(self, logits: Tensor, positives: Positives, truth: Truth) -> Tensor:
        # (N, A): class of each anchor, or the number of classes for background
        classes = F.pad(truth.classes, (2, 0), value=logits.shape[-1])[positives.matched + 2]
        target = F.one_hot(classes, logits.shape[-1] + 1)[..., :-1].float()
        loss = sigmoid_focal_loss(logits, target)
        return loss.masked_fill((positives.matched == -2)[..., None], 0).sum()

    def _mask_loss(
        self, coefficients: Tensor, prototypes: Tensor, positives: Positives, truth: Truth
    ) -> Tensor:
        """Sum of the masks' mean cross-entropies within the true boxes and a margin of one prototype pixel."""
        points, masks = positives.points, positives.masks
        item = positives.item[masks]
        logits = _logits(prototypes, coefficients[item, positives.anchor[masks]], points, item)
        share, visible = self._target(points, item, positives.object[masks], truth)
        loss = F.binary_cross_entropy_with_logits(logits, share, reduction="none") * visible
        return (loss / mask_points.areas(points.cells)[points.index]).sum()

    def _target(
        self, points: mask_points.Points, item: Tensor, place: Tensor, truth: Truth
    ) -> tuple[Tensor, Tensor]:
        """Share of the object in each prototype pixel's visible pixels, and share of pixels that are not ignored.

        Shares of an object that fills no prototype pixel, such as a thin one, are divided by the largest.
        """
        at = (item[points.index], points.row, points.col)
        visible = 1 - _blocks(truth.ignored, self.stride)[at].float().mean(1)
        own = _blocks(truth.instance, self.stride)[at] == place[points.index, None] + 1
        share = own.float().mean(1) / visible.clamp(min=1e-6)
        largest = share.new_zeros(len(truth)).scatter_reduce(0, place[points.index], share, "amax")
        return (share / largest[place[points.index]].clamp(min=1e-6)).clamp(max=1), visible

    def _semantic_loss(self, logits: Tensor, truth: Truth) -> Tensor:
        classes, visible = truth.semantic(), self._pooled(~truth.ignored)
        total = logits.sum() * 0
        for index in range(logits.shape[1]):
            share = self._pooled(classes == index) / visible.clamp(min=1e-6)
            loss = F.binary_cross_entropy_with_logits(logits[:, index], share, reduction="none")
            total = total + (loss * visible).sum()
        return total

    def detect(self, outputs: Outputs, height: int, width: int) -> list[Objects]:
        """Objects of each image."""
        logits, offsets, coefficients, prototypes = (x.float() for x in outputs[:4])
        rows, cols = (side * self.stride for side in prototypes.shape[-2:])
        anchors = self.anchors(rows, cols, logits.device)
        found = []
        for index in range(len(logits)):
            anchor, classes, scores, boxes = self._distinct(logits[index].sigmoid(), offsets[index], anchors)
            found.append(
                self._objects(
                    classes, scores, boxes, coefficients[index, anchor], prototypes[index], height, width
                )
            )
        return found

    def _distinct(self, scores: Tensor, offsets: Tensor, anchors: Tensor) -> tuple[Tensor, ...]:
        """Anchor, class, score and box (R, 4) of what fast NMS leaves of one image, class by class."""
        parts = []
        for index in range(scores.shape[1]):
            above = (scores[:, index] > _LOWEST_SCORE).nonzero()[:, 0]
            order = scores[above, index].argsort(descending=True, stable=True)
            anchor = above[order[: self.candidates]]
            boxes = boxes_of.decode(offsets[anchor], anchors[anchor], _OFFSETS)
            kept = fast_nms(boxes, _SUPPRESSED)
            anchor, boxes = anchor[kept], boxes[kept]
            parts.append((anchor, torch.full_like(anchor, index), scores[anchor, index], boxes))
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))

    def _objects(
        self,
        classes: Tensor,
        scores: Tensor,
        boxes: Tensor,
        coefficients: Tensor,
        prototypes: Tensor,
        height: int,
        width: int,
    ) -> Objects:
        """Objects of one image, whose masks are cropped to the boxes."""
        pixels = mask_points.cells(boxes / self.magnify, 1, height, width)
        coarse = self._cells(boxes, *(side * self.stride for side in prototypes.shape[-2:]), margin=1)
        factor, crops = self.stride / self.magnify, []
        for part in mask_points.chunks(mask_points.areas(pixels), _CHUNK):
            low, high = mask_points.points(coarse[part]), mask_points.points(pixels[part])
            item = torch.zeros(len(coarse[part]), dtype=torch.int64, device=boxes.device)
            mask = _logits(prototypes[None], coefficients[part], low, item).sigmoid()
            crops += mask_points.cropped(mask_points.enlarged(mask, low, high, factor) > 0.5, high)
        if self.rating is not None:
            item = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
            rated = self.rating(self._crops(prototypes[None], coefficients, boxes, item))
            scores = scores * rated.gather(1, classes[:, None])[:, 0]
        filled = [index for index, (_, mask) in enumerate(crops) if mask.size]
        return Objects(
            height,
            width,
            np.array(self.foreground, np.uint8)[classes.cpu().numpy()[filled]],
            scores.cpu().numpy()[filled],
            np.array([crops[index][0] for index in filled], np.int32).reshape(-1, 4),
            [crops[index][1] for index in filled],
        )


class MaskRating(nn.Module):
    """The IoU of masks with the truth for each class, as predicted from the masks."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        channels = (1, 16, 32, 64)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(below, above, 3, stride=2, padding=1) for below, above in pairwise(channels)
        )
        self.last = nn.Linear(channels[-1], classes)

    def forward(self, masks: Tensor) -> Tensor:
        """(R, side, side) probabilities to (R, classes) float32 in 0..1."""
        x = masks[:, None]
        for layer in self.convolutions:
            x = F.relu(layer(x))
        return self.last(x.amax(dim=(2, 3))).float().sigmoid()


def fast_nms(boxes: Tensor, most: float) -> Tensor:
    """Whether to keep each of (R, 4) boxes, highest score first: (R,) bool.

    A box is dropped if its IoU with any of higher score, kept or not, is above `most`.
    """
    iou = box_iou(boxes, boxes).triu(diagonal=1)
    return F.pad(iou, (0, 0, 1, 0)).amax(dim=0) <= most


def _paired_iou(first: Tensor, second: Tensor) -> Tensor:
    """(R,) IoU of each pair of boxes (R, 4)."""
    shared = (torch.minimum(first[:, 2:], second[:, 2:]) - torch.maximum(first[:, :2], second[:, :2])).clamp(
        min=0
    )
    both, one, other = (
        x.prod(1) for x in (shared, first[:, 2:] - first[:, :2], second[:, 2:] - second[:, :2])
    )
    return both / (one + other - both)


def _ious(masks: Tensor, boxes: Tensor, place: Tensor, truth: Truth) -> Tensor:
    """(R,) IoU of masks, given at a grid of points of the boxes, with the true objects at these places."""
    side = masks.shape[-1]
    steps = (torch.arange(side, device=masks.device) + 0.5) / side
    height, width = truth.instance.shape[1:]
    x = boxes[:, :1] + steps * (boxes[:, 2:3] - boxes[:, :1])
    y = boxes[:, 1:2] + steps * (boxes[:, 3:] - boxes[:, 1:2])
    is_inside = ((x >= 0) & (x < width))[:, None] & ((y >= 0) & (y < height))[:, :, None]
    col, row = x.long().clamp(0, width - 1), y.long().clamp(0, height - 1)
    own = truth.instance[truth.item[place][:, None, None], row[:, :, None], col[:, None]]
    is_predicted = (masks > 0.5) & is_inside
    is_both = is_predicted & (own == place[:, None, None] + 1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    both, predicted = (area * x.float().mean(dim=(1, 2)) for x in (is_both, is_predicted))
    return (both / (predicted + truth.areas[place] - both).clamp(min=1)).clamp(max=1)


def _blocks(x: Tensor, side: int) -> Tensor:
    """(N, H, W) to (N, H / side, W / side, side * side): the pixels of each prototype pixel."""
    count, height, width = x.shape
    blocks = x.view(count, height // side, side, width // side, side).transpose(2, 3)
    return blocks.reshape(count, height // side, width // side, side * side)


def _logits(prototypes: Tensor, coefficients: Tensor, points: mask_points.Points, item: Tensor) -> Tensor:
    """(L,) logits of masks at points of the prototypes.

    Args:
        prototypes: (N, P, h, w).
        coefficients: (R, P).
        points: of R masks.
        item: (R,) image of each mask.
    """
    height, width = prototypes.shape[-2:]
    place = (item[points.index] * height + points.row) * width + points.col
    # embedding, because the gradient of plain indexing depends on the order of threads
    table = prototypes.permute(0, 2, 3, 1).reshape(-1, prototypes.shape[1])
    return (F.embedding(place, table) * F.embedding(points.index, coefficients)).sum(1)
