"""Region proposals: the head that scores anchors, its loss, and the boxes that it proposes.

Ren et al. 2015, "Faster R-CNN", arXiv 1506.01497.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms

from segcore.models.base.instance import Truth
from segcore.models.instance.boxes import encode, match
from segcore.models.instance.exportable import by_score

# elements of an array of overlaps, which limits its memory to some 100 MB
_OVERLAPS = 1 << 24
# anchors of an image in the loss, of which at most half are positive
SAMPLE = 256
# from which difference the loss of a box is linear
BETA = 1 / 9


class ProposalHead(nn.Module):
    """Score and box of each anchor of a map."""

    def __init__(self, width: int, ratios: int) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(width, width, 3, padding=1)
        self.score = nn.Conv2d(width, ratios, 1)
        self.offsets = nn.Conv2d(width, 4 * ratios, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, h, w) to logits (N, A) and offsets (N, A, 4), in the order of `anchors`."""
        x = F.relu(self.convolve(x))
        offsets = self.offsets(x).unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2)
        return self.score(x).permute(0, 2, 3, 1).flatten(1), offsets.flatten(1, 3)


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


def anchor_terms(
    scores: Tensor, offsets: Tensor, anchors: Tensor, truth: Truth, true: TrueBoxes
) -> dict[str, Tensor]:
    """The expected loss of a random sample of anchors, half of them positive if there are as many.

    Args:
        scores: (N, A) logits.
        offsets: (N, A, 4) from anchors.
        anchors: (A, 4).
        truth: of the batch.
        true: the same per image.

    Returns:
        Sums "objectness" and "anchor_box".
    """
    matched = true.matched(anchors, 0.7, 0.3, keep_best=True)
    positive = matched >= 0
    negative = (matched == -1) & ~is_ignored(truth, anchors.expand(len(scores), -1, -1))
    positives, negatives = (chosen.sum(1, keepdim=True) for chosen in (positive, negative))
    sampled = positives.clamp(max=SAMPLE // 2)
    # probability of being in the sample
    share = positive * (sampled / positives.clamp(min=1))
    share = share + negative * (torch.minimum(negatives, SAMPLE - sampled) / negatives.clamp(min=1))
    entropy = F.binary_cross_entropy_with_logits(scores, positive.float(), reduction="none")
    item, place = positive.nonzero().unbind(1)
    goal = encode(true.boxes[item, matched[item, place]], anchors[place])
    distance = F.smooth_l1_loss(offsets[item, place], goal, beta=BETA, reduction="none")
    return {"objectness": (entropy * share).sum(), "anchor_box": (distance * share[item, place, None]).sum()}


def is_ignored(truth: Truth, boxes: Tensor) -> Tensor:
    """Whether more than half of a box's pixels are ignored, (N, A) of boxes (N, A, 4)."""
    images = torch.arange(len(boxes), device=boxes.device).repeat_interleave(boxes.shape[1])
    return (truth.ignored_shares(images, boxes.flatten(0, 1)) > 0.5).view(boxes.shape[:2])


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
        order = by_score(scores[:, first : first + length], count)
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
