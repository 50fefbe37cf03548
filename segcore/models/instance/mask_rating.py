"""A network that predicts the IoU of masks with the truth.

Bolya et al. 2020, "YOLACT++: Better Real-time Instance Segmentation", arXiv 1912.06218.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segcore.models.base.instance import Truth
from segcore.models.instance.roi_align import roi_align

# points on each side of a mask
_SIDE = 16


class MaskRating(nn.Module):
    """IoU of masks for each class, from masks at a grid of points of their boxes.

    Args:
        classes: their number.
    """

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
        rated: Tensor = self.last(x.amax(dim=(2, 3))).float().sigmoid()
        return rated


def crops(prototypes: Tensor, coefficients: Tensor, boxes: Tensor, item: Tensor, stride: int) -> Tensor:
    """(R, side, side) probabilities of masks, each at a grid of points of its box.

    Args:
        prototypes: (N, P, h, w) float32.
        coefficients: (R, P) float32.
        boxes: (R, 4) float32 in pixels.
        item: (R,) int64 image of each mask.
        stride: pixels per prototype pixel.
    """
    regions = torch.cat([item[:, None].float(), boxes], dim=1)
    found = roi_align(prototypes, regions, stride, _SIDE, points=1)
    logits: Tensor = (found * coefficients[:, :, None, None]).sum(1)
    return logits.sigmoid()


def true_ious(masks: Tensor, boxes: Tensor, place: Tensor, truth: Truth) -> Tensor:
    """(R,) IoU of masks as of `crops` with the true objects at these places, from the same points."""
    steps = (torch.arange(_SIDE, device=masks.device) + 0.5) / _SIDE
    height, width = truth.instance.shape[1:]
    x = boxes[:, :1] + steps * (boxes[:, 2:3] - boxes[:, :1])
    y = boxes[:, 1:2] + steps * (boxes[:, 3:] - boxes[:, 1:2])
    is_inside = ((x >= 0) & (x < width))[:, None] & ((y >= 0) & (y < height))[:, :, None]
    col, row = x.long().clamp(0, width - 1), y.long().clamp(0, height - 1)
    item = truth.item[place][:, None, None]
    own = truth.instance[item, row[:, :, None], col[:, None]] == place[:, None, None] + 1
    is_ignored = truth.ignored[item, row[:, :, None], col[:, None]]
    is_predicted = (masks > 0.5) & is_inside & ~is_ignored
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    both, predicted = (area * x.float().mean(dim=(1, 2)) for x in (is_predicted & own, is_predicted))
    return (both / (predicted + truth.areas[place] - both).clamp(min=1)).clamp(max=1)


def rating_loss(rating: MaskRating, masks: Tensor, boxes: Tensor, place: Tensor, truth: Truth) -> Tensor:
    """Sum of the smooth L1 losses of the predicted IoU of masks as of `crops` with the true objects at these places."""
    rated = rating(masks).gather(1, truth.classes[place, None])[:, 0]
    return F.smooth_l1_loss(rated, true_ious(masks, boxes, place, truth), reduction="sum")
