"""YOLACT.

Bolya, Zhou, Xiao and Lee 2019, "YOLACT: Real-time Instance Segmentation", arXiv 1904.02689.

One head, shared by the levels of a feature pyramid, predicts for each anchor a class, a box and coefficients; a small
network on the finest level predicts prototypes, of which a mask is the sum weighted by the coefficients, cropped by the
box. With `mask_iou`, another network rates the masks, as in YOLACT++ (Bolya et al. 2020, arXiv 1912.06218).
Differences from the paper: images without objects count, as the hardest negatives of an image are at least a fixed
number; each anchor has the shape of its ratio, and its best class only, so that no object has two classes; masks are
enlarged after they are cropped; the target of a prototype pixel is the share of its pixels that are of the object;
group norm follows the convolutions of the head and of the prototypes; and anchors match from a lower IoU.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segcore.models.base.encoders import Encoder, build_encoder
from segcore.models.base.instance import InstanceModel, Outputs, Truth
from segcore.models.base.keywords import HIGHEST_RATIO, require_list, require_switch, require_whole
from segcore.models.base.model import choose
from segcore.models.base.object_sizes import ObjectSizes, usable_ratio
from segcore.models.instance.anchor_head import AnchorHead
from segcore.models.instance.anchor_targets import AnchorLevels, Positives, class_loss, positives
from segcore.models.instance.boxes import decode, encode, fast_nms
from segcore.models.instance.exportable import at, by_score
from segcore.models.instance.mask_rating import MaskRating, crops, rating_loss
from segcore.models.instance.prototypes import (
    Protonet,
    detected_masks,
    detected_planes,
    mask_loss,
    pooled,
    semantic_loss,
    trained_masks,
)
from segcore.models.instance.pyramid import Pyramid
from segcore.objects.found import Objects

KIND = "instance"

# IoU of an anchor with a true box from which it is positive, and below which it is negative; .5 and .4 in the paper,
# which leave small objects few positive anchors: PQ of discs and squares after 150 steps was .51 instead of .60
_HIGH, _LOW = 0.4, 0.3
# the paper's variances .1 and .2
_OFFSETS = (10.0, 10.0, 5.0, 5.0)
# objects of a lower score are not detected
_LOWEST_SCORE = 0.05
# IoU of boxes above which the one of lower score is suppressed
_SUPPRESSED = 0.5


def build(
    in_channels: int,
    num_classes: int,
    foreground: Sequence[int],
    *,
    encoder: str = "mobilenet_v2",
    weights: str = "none",
    width: int = 64,
    finest: Any = "auto",
    anchors: Any = "auto",
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
        encoder: one of `ENCODERS` or "timm:NAME".
        weights: of the encoder, see `load_encoder_weights`.
        width: channels of pyramid, head and the network of the prototypes; 256 as published.
        finest: stride of the finest level, 4 or 8; prototypes have half of it. As published: 8.
        anchors: side in pixels of the anchors of each level, finest first.
        ratios: height / width of the anchors.
        prototypes: their number.
        candidates: anchors of an image that are compared for duplicates: those of highest score, whatever their class.
        mask_iou: whether scores are multiplied by a prediction of the mask's IoU.

    Raises:
        ModelError: an unknown value, or weights that do not fit.
    """
    levels = AnchorLevels(finest, anchors, ratios)
    trunk = build_encoder(encoder, in_channels, weights)
    network = RatedYolact if mask_iou else Yolact
    return network(in_channels, num_classes, foreground, trunk, levels, width, prototypes, candidates)


def fit(keywords: Mapping[str, Any], sizes: ObjectSizes) -> dict[str, Any]:
    """Keywords in which each "auto" is replaced by the value that fits objects of these sizes.

    The anchors of the finest level have a side between those of small objects; each further level doubles it, up to
    those of large objects.

    Raises:
        ModelError: a value is impossible.
    """
    fitted = dict(keywords)
    require_whole(fitted, "width", "prototypes")
    require_whole(fitted, "candidates", auto=True)
    require_list(fitted, "anchors", most=5, ascending=True)
    require_list(fitted, "ratios", 1 / HIGHEST_RATIO, HIGHEST_RATIO)
    require_switch(fitted, "mask_iou")
    # between the smallest and the lower quartile
    small, large = (sizes.sides[0] * sizes.sides[1]) ** 0.5, sizes.sides[-1]
    if fitted["finest"] == "auto":
        fitted["finest"] = 8 if (small if fitted["anchors"] == "auto" else fitted["anchors"][0]) >= 16 else 4
    finest = choose("finest", fitted["finest"], (4, 8, "auto"))
    if fitted["anchors"] == "auto":
        # smaller or larger ones would not fit the spacing and the receptive field of the finest level
        sides = [min(max(small, 2 * finest), 4 * finest)]
        while sides[-1] * 2**0.5 < large and len(sides) < 5:
            sides.append(2 * sides[-1])
        fitted["anchors"] = [round(side, 1) for side in sides]
    if fitted["ratios"] == "auto":
        low, middle, high = sizes.ratios
        three = (middle, min(low, middle / 1.5), max(high, middle * 1.5))
        fitted["ratios"] = [round(usable_ratio(ratio), 2) for ratio in three]
    if fitted["candidates"] == "auto":
        # about ten anchors are positive for each object
        fitted["candidates"] = min(max(200, 10 * sizes.most), 4096)
    return fitted


class _Candidates(NamedTuple):
    """Anchors of an image (R,) or of each image of a batch (N, R): place, class, score and box."""

    anchor: Tensor
    classes: Tensor
    scores: Tensor
    boxes: Tensor


class Yolact(InstanceModel):
    """YOLACT; arguments as those of `build`."""

    coefficients: ClassVar[Mapping[str, float]] = {"class": 1.0, "box": 1.5, "mask": 6.125, "semantic": 1.0}
    is_position_dependent = True
    class_layers = ("head.outputs.0", "semantic", "rating")

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        foreground: Sequence[int],
        encoder: Encoder,
        levels: AnchorLevels,
        width: int,
        prototypes: int,
        candidates: int,
    ) -> None:
        super().__init__(in_channels, num_classes, "YOLACT", encoder.strides[-1], foreground)
        classes = len(self.foreground)
        self.levels, self.candidates, self.stride = levels, candidates, levels.strides[0] // 2
        self.encoder = encoder
        self.pyramid = Pyramid(encoder, width, levels.strides, extra="conv")
        self.least_multiple = self.pyramid.least_multiple
        self.head = AnchorHead(width, len(levels.ratios), classes + 1, prototypes)
        self.protonet = Protonet(width, prototypes)
        self.semantic = nn.Conv2d(width, classes, 1)

    def heads(self, x: Tensor) -> Outputs:
        """Logits, offsets and coefficients of all anchors, prototypes, and logits of classes at the finest level."""
        levels = self.pyramid(self.encoder(x))
        predicted = zip(*(self.head(level) for level in levels), strict=True)
        return (
            *(torch.cat(parts, dim=1) for parts in predicted),
            self.protonet(levels[0]),
            self.semantic(levels[0]),
        )

    def positives(self, truth: Truth) -> Positives:
        """Anchors that match true objects."""
        anchors = self.levels.anchors(truth.instance.shape[1:], truth.boxes.device)
        return positives(anchors, truth, _HIGH, _LOW)

    def weights(self, truth: Truth) -> dict[str, Tensor]:
        """Classes: matched anchors and images; boxes: matched anchors; masks: their number; semantic: pixels."""
        found = self.positives(truth)
        images = (~truth.ignored).flatten(1).any(1).sum()
        weights = {
            "class": len(found) + images,
            "box": len(found),
            "mask": len(trained_masks(found, truth, self.stride)[0]),
            "semantic": pooled(~truth.ignored, self.levels.strides[0]).sum(),
        }
        return {
            name: torch.as_tensor(weight, dtype=torch.float32, device=images.device)
            for name, weight in weights.items()
        }

    def terms(self, outputs: Outputs, truth: Truth) -> dict[str, Tensor]:
        """Sums of the terms of the loss."""
        logits, offsets, coefficients, prototypes, semantic = (x.float() for x in outputs)
        found = self.positives(truth)
        anchors = self.levels.anchors(truth.instance.shape[1:], logits.device)[found.anchor]
        offsets, coefficients = (x[found.item, found.anchor] for x in (offsets, coefficients))
        target = encode(truth.boxes[found.place], anchors, _OFFSETS)
        return {
            "class": class_loss(logits, found.matched, truth),
            "box": F.smooth_l1_loss(offsets, target, reduction="sum"),
            "mask": mask_loss(prototypes, coefficients, found, truth, self.stride),
            "semantic": semantic_loss(semantic, truth),
        }

    def detect(self, outputs: Outputs, height: int, width: int) -> list[Objects]:
        """Objects of each image."""
        scores, classes, offsets, coefficients, prototypes, anchors = self._predicted(outputs)
        found = []
        for index, count in enumerate((scores > _LOWEST_SCORE).sum(1).tolist()):
            candidates, kept = self._candidates(
                scores[index], classes[index], offsets[index], anchors, min(count, self.candidates)
            )
            candidates = _Candidates(*(x[kept] for x in candidates))
            masks = (prototypes[index : index + 1], coefficients[index, candidates.anchor])
            found.append(self._objects(candidates, *masks, height, width))
        return found

    def detect_tensors(self, outputs: Outputs, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """As of `InstanceModel`; D is `candidates`, or the number of anchors if that is less."""
        scores, classes, offsets, coefficients, prototypes, anchors = self._predicted(outputs)
        found, kept = self._candidates(scores, classes, offsets, anchors, self.candidates)
        kept = kept & (found.scores > _LOWEST_SCORE)
        coefficients = at(coefficients, found.anchor)
        masks = detected_planes(
            prototypes, coefficients, found.boxes, self.stride, self.magnify, (height, width)
        )
        flat = _Candidates(*(x.flatten(0, 1) for x in found))
        item = torch.arange(scores.shape[0], device=scores.device)[:, None].expand_as(found.anchor).flatten()
        rated = self.scores(flat, prototypes, coefficients.flatten(0, 1), item).view_as(kept)
        return rated * kept, found.classes, masks

    def _predicted(self, outputs: Outputs) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Score and place of the best class of each anchor (N, A), offsets, coefficients, prototypes, and anchors."""
        logits, offsets, coefficients, prototypes = (x.float() for x in outputs[:4])
        scores, classes = logits.softmax(dim=-1)[..., :-1].max(dim=-1)
        anchors = self.levels.anchors([side * self.stride for side in prototypes.shape[-2:]], scores.device)
        return scores, classes, offsets, coefficients, prototypes, anchors

    def _candidates(
        self, scores: Tensor, classes: Tensor, offsets: Tensor, anchors: Tensor, count: int
    ) -> tuple[_Candidates, Tensor]:
        """The `count` anchors of the highest score, in its order, and whether fast NMS keeps each.

        Args:
            scores: (..., A).
            classes: (..., A).
            offsets: (..., A, 4).
            anchors: (A, 4).
            count: anchors of an image.
        """
        anchor = by_score(scores, count)
        boxes = decode(at(offsets, anchor), anchors[anchor], _OFFSETS)
        best, of_best = (x.gather(-1, anchor) for x in (scores, classes))
        return _Candidates(anchor, of_best, best, boxes), fast_nms(boxes, _SUPPRESSED)

    def _objects(
        self, found: _Candidates, prototypes: Tensor, coefficients: Tensor, height: int, width: int
    ) -> Objects:
        """Objects of one image of height x width pixels: the candidates whose masks have a pixel.

        Args:
            found: R candidates.
            prototypes: (1, P, h, w).
            coefficients: (R, P).
            height: of the image.
            width: of the image.
        """
        item = torch.zeros_like(found.anchor)
        scores = self.scores(found, prototypes, coefficients, item).cpu().numpy()
        boxes, masks = detected_masks(
            prototypes, coefficients, found.boxes, self.stride, self.magnify, (height, width)
        )
        classes = np.array(self.foreground, np.uint8)[found.classes.cpu().numpy()]
        objects = Objects(height, width, classes, scores, boxes, masks)
        return objects.select(objects.areas > 0)

    def scores(self, found: _Candidates, prototypes: Tensor, coefficients: Tensor, item: Tensor) -> Tensor:
        """(R,) scores of candidates.

        Args:
            found: R candidates.
            prototypes: (N, P, h, w).
            coefficients: (R, P).
            item: (R,) int64 image of each candidate.
        """
        return found.scores


class RatedYolact(Yolact):
    """YOLACT with scores times a prediction of the mask's IoU; arguments as those of `build`."""

    coefficients: ClassVar[Mapping[str, float]] = {**Yolact.coefficients, "mask_iou": 25.0}

    def __init__(self, in_channels: int, num_classes: int, foreground: Sequence[int], *others: Any) -> None:
        super().__init__(in_channels, num_classes, foreground, *others)
        self.rating = MaskRating(len(self.foreground))

    def weights(self, truth: Truth) -> dict[str, Tensor]:
        """As of `Yolact`; IoU: objects that an anchor matches."""
        return {**super().weights(truth), "mask_iou": (self.positives(truth).rank == 0).sum().float()}

    def terms(self, outputs: Outputs, truth: Truth) -> dict[str, Tensor]:
        """As of `Yolact`; IoU: of the mask of the best anchor of each object."""
        _, offsets, coefficients, prototypes, _ = (x.detach().float() for x in outputs)
        found = self.positives(truth)
        is_best = found.rank == 0
        item, anchor, place = found.item[is_best], found.anchor[is_best], found.place[is_best]
        anchors = self.levels.anchors(truth.instance.shape[1:], offsets.device)[anchor]
        boxes = decode(offsets[item, anchor], anchors, _OFFSETS)
        masks = crops(prototypes, coefficients[item, anchor], boxes, item, self.stride)
        rated = rating_loss(self.rating, masks, boxes, place, truth)
        return {**super().terms(outputs, truth), "mask_iou": rated}

    def scores(self, found: _Candidates, prototypes: Tensor, coefficients: Tensor, item: Tensor) -> Tensor:
        """As of `Yolact`, times the predicted IoU."""
        rated = self.rating(crops(prototypes, coefficients, found.boxes, item, self.stride))
        scores: Tensor = found.scores * rated.gather(1, found.classes[:, None])[:, 0]
        return scores
