"""Mask R-CNN.

He et al. 2017, "Mask R-CNN", arXiv 1703.06870, on the region proposal network of Ren et al. 2015, "Faster R-CNN",
arXiv 1506.01497, and the pyramid of Lin et al. 2017, arXiv 1612.03144.

A network proposes boxes; of each, features are pooled to 7 x 7, from which its class and a better box follow, and to
14 x 14 for its mask. At width 256 with resnet50 it is the network that torchvision publishes weights for.
Differences from the paper: images are not resized; pooling is not shifted by half a pixel; instead of a random sample
of anchors the expected loss of one is minimised; the regions to train on are chosen in a fixed order; the mask's
loss is the mean over objects, of many in an image over a part that differs between crops; that of boxes has less
weight; the numbers of proposals and objects follow from those of the training data.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segcore.models.base.encoders import Encoder, build_encoder
from segcore.models.base.instance import InstanceModel, Outputs, Truth
from segcore.models.base.keywords import HIGHEST_RATIO, require_list, require_whole
from segcore.models.base.model import choose
from segcore.models.base.object_sizes import ObjectSizes, anchor_sides, distinct_ratios
from segcore.models.base.pretrained import load_detector_weights
from segcore.models.instance.anchor_targets import AnchorLevels
from segcore.models.instance.boxes import clip, decode, encode
from segcore.models.instance.exportable import ceil_div
from segcore.models.instance.proposals import (
    BETA,
    SAMPLE,
    ProposalHead,
    TrueBoxes,
    anchor_terms,
    highest,
    is_ignored,
    true_boxes,
    without_duplicates,
)
from segcore.models.instance.pyramid import Pyramid
from segcore.models.instance.region_heads import BoxHead, MaskHead, initialise
from segcore.models.instance.region_tensors import best_regions, distinct, planes_of_regions, pool_of_all
from segcore.models.instance.regions import Regions, best, mask_term, objects_in_image, pool, sample
from segcore.models.instance.torchvision_detector import load_torchvision
from segcore.objects.found import Objects

KIND = "instance"

# image by image, or in fixed shapes
Suppression = Callable[[Tensor, Tensor, float, int], tuple[Tensor, Tensor]]
Pooling = Callable[[Sequence[Tensor], Sequence[int], Tensor, Tensor, int], Tensor]

# pixels that `proposals` and `detections` are numbers per
_AREA = 256 * 256
# strides of the pyramid; regions are pooled up to the last but one
_STRIDES = (4, 8, 16, 32, 64)
# median side of objects in pixels below which the finest map has stride 4
_SMALL = 24
_BOX_WEIGHTS = (10, 10, 5, 5)
_PROPOSAL_OVERLAP = 0.7
_OVERLAP = 0.5
_LOWEST_SCORE = 0.05


def build(
    in_channels: int,
    num_classes: int,
    foreground: Sequence[int],
    *,
    encoder: str = "mobilenet_v2",
    weights: str = "none",
    width: int = 64,
    finest: int | str = "auto",
    anchors: Sequence[float] | str = "auto",
    ratios: Sequence[float] | str = "auto",
    proposals: int | str = "auto",
    detections: int | str = "auto",
    regions: int | str = "auto",
) -> InstanceModel:
    """A Mask R-CNN.

    Args:
        in_channels: bands of the image.
        num_classes: classes, background included.
        foreground: indices of the classes that have objects.
        encoder: one of `ENCODERS` or "timm:NAME".
        weights: of the encoder, see `load_encoder_weights`; those of torchvision's Mask R-CNN are loaded as far as they
            fit, which is at width 256 with resnet50, and the log names the rest.
        width: channels of the pyramid and of the mask's layers; the box's layers have four times as many. The paper's
            network has 256. Masks have one 3x3 convolution per 64 channels, two at least and four at most.
        finest: stride of the finest map, 4 or 8; "auto": 4 if half of the objects are smaller than 24 pixels.
        anchors: side in pixels of the anchors of each map, finest first; "auto": by the sizes of the objects.
        ratios: height / width of anchors; "auto": those of the objects.
        proposals: per 256 x 256 pixels of the image, at least this number; "auto": four per object where they are
            densest.
        detections: objects per 256 x 256 pixels at most; "auto": twice their number where they are densest.
        regions: of an image in training, at least 4; a quarter of them have a mask, so that of more objects not all
            are trained; "auto": four per object where they are densest, 512 at most.

    Raises:
        ModelError: an impossible value, or weights that do not fit.
    """
    assert not isinstance(anchors, str) and not isinstance(ratios, str)
    assert not isinstance(finest, str)
    backbone = build_encoder(encoder, in_channels, weights)
    counts = {"proposals": proposals, "detections": detections, "regions": regions}
    levels = AnchorLevels(finest, anchors, ratios)
    model = MaskRCNN(in_channels, num_classes, foreground, backbone, width, levels, counts)
    detector = load_detector_weights(weights)
    if detector is not None:
        load_torchvision(model, detector, weights)
    return model


def fit(keywords: Mapping[str, Any], sizes: ObjectSizes) -> dict[str, Any]:
    """Keywords of `build`, each "auto" replaced by the value that fits the objects.

    Raises:
        ModelError: an impossible value.
    """
    found = dict(keywords)
    require_whole(found, "width")
    require_whole(found, "proposals", "detections", auto=True)
    require_whole(found, "regions", least=4, auto=True)
    if found["finest"] == "auto":
        found["finest"] = 4 if sizes.sides[2] < _SMALL else 8
    choose("finest", found["finest"], (4, 8, "auto"))
    levels = sum(stride >= found["finest"] for stride in _STRIDES)
    require_list(found, "anchors", most=levels, ascending=True)
    require_list(found, "ratios", 1 / HIGHEST_RATIO, HIGHEST_RATIO)
    if found["anchors"] == "auto":
        found["anchors"] = anchor_sides(sizes, found["finest"], levels)
    if found["ratios"] == "auto":
        found["ratios"] = distinct_ratios(sizes)
    density = sizes.most * _AREA / sizes.crop**2
    automatic = {
        "proposals": min(max(round(4 * density), 64), 2000),
        "detections": min(max(round(2 * density), 50), 2000),
        "regions": min(max(4 * sizes.most, 64), 512),
    }
    found.update({name: value for name, value in automatic.items() if found[name] == "auto"})
    return found


class MaskRCNN(InstanceModel):
    """Mask R-CNN; arguments as those of `build`, with the side of the anchors of each stride."""

    # up to half of the regions are positive, not a quarter; a box term of full weight slows the learning of classes
    coefficients = MappingProxyType({"objectness": 1, "anchor_box": 1, "class": 1, "box": 0.25, "mask": 1})
    is_position_dependent = False
    why_unplaced = (
        "are trained without their mask: a crop trains at most model.regions / 4 masks, and other ones each time. Some "
        "are usual, because few crops are as dense as the densest; a larger model.regions trains more"
    )
    class_layers = ("box_head.score", "box_head.offsets", "mask_head.score")

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        foreground: Sequence[int],
        encoder: Encoder,
        width: int,
        levels: AnchorLevels,
        counts: Mapping[str, Any],
    ) -> None:
        super().__init__(in_channels, num_classes, "Mask R-CNN", encoder.strides[-1], foreground)
        self.encoder = encoder
        self.levels, self.counts = levels, dict(counts)
        self.pyramid = Pyramid(encoder, width, levels.strides)
        self.least_multiple = self.pyramid.least_multiple
        self.proposal_head = ProposalHead(width, len(levels.ratios))
        self.box_head = BoxHead(width, len(foreground))
        self.mask_head = MaskHead(width, len(foreground))
        for head in (self.proposal_head, self.box_head, self.mask_head):
            initialise(head)

    def heads(self, x: Tensor) -> Outputs:
        """The maps of the pyramid, finest first, then logits (N, A) and offsets (N, A, 4) of all anchors."""
        maps = self.pyramid(self.encoder(x))
        scores, offsets = zip(*(self.proposal_head(m) for m in maps), strict=True)
        return (*maps, torch.cat(scores, dim=1), torch.cat(offsets, dim=1))

    def weights(self, truth: Truth) -> dict[str, Tensor]:
        """Anchors of a sample and regions of all images that are not ignored, and objects with a mask."""
        images = (~truth.ignored).flatten(1).any(1).sum().float()
        anchors, regions = images * SAMPLE, images * self.counts["regions"]
        return {
            "objectness": anchors,
            "anchor_box": anchors,
            "class": regions,
            "box": regions,
            "mask": (len(truth) - self.unplaced(truth)).float(),
        }

    def unplaced(self, truth: Truth) -> Tensor:
        """Number of objects beyond as many of their image as have a mask."""
        counts = torch.bincount(truth.item, minlength=len(truth.instance))
        return (counts - self._masks).clamp(min=0).sum()

    @property
    def _masks(self) -> int:
        """Regions of an image that have a mask."""
        return int(self.counts["regions"]) // 4

    def terms(self, outputs: Outputs, truth: Truth) -> dict[str, Tensor]:
        """Losses of the anchors, and of the regions that are proposals or true boxes."""
        *maps, scores, offsets = outputs
        true = true_boxes(truth)
        reference = self._anchors(maps)
        found = anchor_terms(scores.float(), offsets.float(), torch.cat(reference), truth, true)
        with torch.no_grad():
            boxes, real = self._proposals(reference, maps, scores, offsets)
        return {**found, **self._region_terms(maps, boxes, real, truth, true)}

    def _anchors(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """(A, 4) of each map."""
        return self.levels.of_levels(self._size(maps), maps[0].device)

    def _size(self, maps: Sequence[Tensor]) -> tuple[int, int]:
        """Height and width of the network's input in pixels."""
        height, width = maps[0].shape[-2:]
        return height * self.levels.finest, width * self.levels.finest

    def _count(self, name: str, height: int, width: int, magnify: float = 1) -> int:
        """Proposals or detections of an image that is enlarged by `magnify` for the network."""
        # in whole numbers, which every export format has
        area, unit = height * width * max(round(magnify), 1) ** 2, _AREA * max(round(1 / magnify), 1) ** 2
        return ceil_div(int(self.counts[name]) * torch.sym_max(area, unit), unit)

    def _proposals(
        self,
        reference: list[Tensor],
        maps: Sequence[Tensor],
        scores: Tensor,
        offsets: Tensor,
        suppress: Suppression = without_duplicates,
    ) -> tuple[Tensor, Tensor]:
        """Boxes (N, P, 4) from anchors of each map, and whether each is one (N, P)."""
        height, width = self._size(maps)
        count = self._count("proposals", height, width)
        boxes = clip(decode(offsets, torch.cat(reference)), height, width)
        scores, boxes = highest(scores.float(), boxes, [part.shape[0] for part in reference], 2 * count)
        return suppress(scores, boxes, _PROPOSAL_OVERLAP, count)

    def _pool(
        self, maps: Sequence[Tensor], item: Tensor, boxes: Tensor, size: int, by: Pooling = pool
    ) -> Tensor:
        strides = [stride for stride in self.levels.strides if stride < _STRIDES[-1]]
        return by(maps[: len(strides)], strides, item, boxes, size)

    def _region_terms(
        self, maps: Sequence[Tensor], boxes: Tensor, real: Tensor, truth: Truth, true: TrueBoxes
    ) -> dict[str, Tensor]:
        """Losses of a fixed number of regions per image, from proposals (N, P, 4) and true boxes."""
        first, count = boxes.shape[1], self.counts["regions"]
        boxes, real = torch.cat([boxes, true.boxes], dim=1), torch.cat([real, true.real], dim=1)
        matched = true.matched(boxes, 0.5, 0.5, keep_best=False)
        # a true box is of its own object, if several have the same box
        own = torch.arange(true.boxes.shape[1], device=boxes.device)
        matched[:, first:] = own.expand_as(matched[:, first:])
        positive, negative = real & (matched >= 0), real & (matched == -1) & ~is_ignored(truth, boxes)
        chosen, group = sample(positive, negative, count, boxes, first)
        boxes = boxes.gather(1, chosen[..., None].expand(-1, -1, 4))
        images = torch.arange(len(boxes), device=boxes.device)[:, None].expand_as(chosen)
        logits, offsets = self.box_head(self._pool(maps, images.flatten(), boxes.flatten(0, 1), 7))
        item, place = (group == 0).nonzero().unbind(1)
        at = matched.gather(1, chosen)[item, place]
        found = Regions(item, boxes[item, place], true.classes[item, at], true.numbers[item, at])
        target = torch.zeros_like(chosen)
        target[item, place] = found.classes + 1
        entropy = F.cross_entropy(logits, target.flatten(), reduction="none")
        goal = encode(true.boxes[item, at], found.boxes, _BOX_WEIGHTS)
        offsets = offsets.unflatten(0, chosen.shape)[item, place, found.classes]
        # true boxes come first, each once
        masked = found.select(place < self._masks)
        mask_logits = self.mask_head(self._pool(maps, masked.item, masked.boxes, 14), masked.classes)
        return {
            "class": (entropy * (group < 2).flatten()).sum(),
            "box": F.smooth_l1_loss(offsets, goal, beta=BETA, reduction="sum"),
            "mask": mask_term(mask_logits, masked, truth),
        }

    def detect(self, outputs: Outputs, height: int, width: int) -> list[Objects]:
        """Objects with a score from 0.05, which is the probability of their class."""
        *maps, scores, offsets = outputs
        proposed = zip(*self._proposals(self._anchors(maps), maps, scores, offsets), strict=True)
        # image by image, which limits the memory for regions
        return [
            self._objects([x[i : i + 1] for x in maps], boxes[real], height, width)
            for i, (boxes, real) in enumerate(proposed)
        ]

    def _objects(self, maps: Sequence[Tensor], boxes: Tensor, height: int, width: int) -> Objects:
        """Objects of an image from its proposals (P, 4)."""
        sides = height * self.magnify, width * self.magnify
        pooled = self._pool(maps, boxes.new_zeros(len(boxes)).long(), boxes, 7)
        probabilities, boxes = self._classified(pooled, boxes, sides)
        place, classes = best(
            boxes,
            probabilities,
            _LOWEST_SCORE,
            _OVERLAP,
            self._count("detections", height, width, self.magnify),
        )
        if not len(place):
            return Objects(height, width)
        regions = boxes[place, classes]
        logits = self.mask_head(self._pool(maps, torch.zeros_like(place), regions, 14), classes)
        edges, masks, scores, of_class = (
            x.cpu().numpy()
            for x in (regions / self.magnify, torch.sigmoid(logits), probabilities[place, classes], classes)
        )
        foreground = np.array(self.foreground, np.uint8)[of_class]
        return objects_in_image(masks, edges, foreground, scores, height, width)

    def detect_tensors(self, outputs: Outputs, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """As of `InstanceModel`; D is `detections` for an image of 256 x 256 pixels of the network."""
        *maps, logits, offsets = outputs
        sides = height * self.magnify, width * self.magnify
        proposed, real = self._proposals(self._anchors(maps), maps, logits, offsets, distinct)
        item = torch.arange(real.shape[0], device=real.device)[:, None].expand_as(real).flatten()
        regions = proposed.flatten(0, 1)
        pooled = self._pool(maps, item, regions, 7, pool_of_all)
        probabilities, boxes = (x.unflatten(0, real.shape) for x in self._classified(pooled, regions, sides))
        count = self._count("detections", height, width, self.magnify)
        boxes, classes, scores = best_regions(
            boxes, probabilities * real[..., None], _LOWEST_SCORE, _OVERLAP, count
        )
        item = torch.arange(scores.shape[0], device=real.device)[:, None].expand_as(scores).flatten()
        pooled = self._pool(maps, item, boxes.flatten(0, 1), 14, pool_of_all)
        masks = self.mask_head(pooled, classes.flatten()).sigmoid().unflatten(0, scores.shape)
        return scores, classes, planes_of_regions(masks, boxes / self.magnify, height, width)

    def _classified(self, pooled: Tensor, boxes: Tensor, sides: tuple[float, float]) -> tuple[Tensor, Tensor]:
        """Probability (R, K) and box (R, K, 4) of each class, of regions (R, 4) in an image of these sides."""
        logits, offsets = self.box_head(pooled)
        return logits.softmax(dim=1)[:, 1:], clip(decode(offsets, boxes[:, None], _BOX_WEIGHTS), *sides)

    def costed(self, images: Tensor) -> dict[str, int]:
        """As of `InstanceModel`, with all proposals and half of the detections that the settings allow."""
        maps = self(images)[:-2]
        height, width = images.shape[-2:]
        proposals, detections = (
            self._count(name, height, width, self.magnify) for name in ("proposals", "detections")
        )
        features = maps[0].new_zeros(1, maps[0].shape[1], 1, 1)
        self.box_head(features.expand(len(images) * proposals, -1, 7, 7))
        masks = max(detections // 2, 1)
        count = len(images) * masks
        self.mask_head(
            features.expand(count, -1, 14, 14), torch.zeros(count, dtype=torch.int64, device=features.device)
        )
        return {"proposals": proposals, "masks": masks}
