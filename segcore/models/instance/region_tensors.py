"""Mask R-CNN's choice of regions for a whole batch in fixed shapes, by operations that all export formats have.

What `proposals` and `regions` do image by image, with fewer regions and less memory.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from segcore.models.instance.boxes import iou
from segcore.models.instance.exportable import at, by_score, in_image, interpolation
from segcore.models.instance.regions import pyramid_level
from segcore.models.instance.roi_align import roi_align


def kept(boxes: Tensor, usable: Tensor, overlap: float) -> Tensor:
    """Whether non-maximum suppression keeps each box, (..., K) bool.

    Args:
        boxes: (..., K, 4), highest score first.
        usable: (..., K) bool; the others are dropped.
        overlap: largest IoU of two boxes that are kept.
    """
    # [i, j]: of a better i on j
    suppresses = (iou(boxes, boxes).triu(1) > overlap).float()

    def changes(now: Tensor, before: Tensor) -> Tensor:
        return (now != before).any()

    def step(now: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        # after n steps, no decision about the first n boxes changes any more
        return usable & ((now.float()[..., None, :] @ suppresses)[..., 0, :] == 0), now.clone()

    state = (usable.clone(), torch.zeros_like(usable))
    if torch.compiler.is_exporting():
        from torch._higher_order_ops import while_loop

        state = while_loop(changes, step, state)
    else:
        while changes(*state):
            state = step(*state)
    return state[0]


def distinct(scores: Tensor, boxes: Tensor, overlap: float, count: int) -> tuple[Tensor, Tensor]:
    """As `without_duplicates`; boxes (N, P, 4) and whether each is one (N, P), P at most `count`."""
    order = by_score(scores)
    boxes = at(boxes, order)
    has_area = ((boxes[..., 2:] - boxes[..., :2]) > 1e-2).all(dim=-1)
    real = kept(boxes, has_area, overlap)
    first = by_score(real.float(), count)
    return at(boxes, first), real.gather(1, first)


def best_regions(
    boxes: Tensor, probabilities: Tensor, lowest: float, overlap: float, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """As `best` of each image.

    Args:
        boxes: (N, P, K, 4) of each class.
        probabilities: (N, P, K), 0 for a proposal that is none.
        lowest: probability of a region.
        overlap: largest IoU of two regions of a class.
        count: regions of an image at most.

    Returns:
        Boxes (N, D, 4), classes (N, D) and scores (N, D), 0 for no region.
    """
    scores, boxes = probabilities.mT, boxes.transpose(1, 2)
    order = by_score(scores)
    scores, boxes = scores.gather(2, order), at(boxes, order)
    scores = (scores * kept(boxes, scores >= lowest, overlap)).flatten(1)
    classes = torch.arange(order.shape[1], device=order.device)[:, None].expand(order.shape[1:]).flatten()
    chosen = by_score(scores, count)
    return at(boxes.flatten(1, 2), chosen), classes[chosen], scores.gather(1, chosen)


def pool_of_all(
    maps: Sequence[Tensor], strides: Sequence[int], item: Tensor, boxes: Tensor, size: int
) -> Tensor:
    """As `pool`, by RoIAlign of every region on every map, of which the suitable one is taken."""
    level = pyramid_level(boxes, strides)
    regions = torch.cat([item[:, None].float(), boxes], dim=1)
    found = [
        roi_align(x.float(), regions, stride, size, points=2) for x, stride in zip(maps, strides, strict=True)
    ]
    pooled = found[0]
    for place, one in enumerate(found[1:], start=1):
        pooled = torch.where((level == place)[:, None, None, None], one, pooled)
    return pooled


def planes_of_regions(probabilities: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """The masks of `mask_in_image` as planes, (..., height, width) bool.

    Args:
        probabilities: (..., S, S) at the centres of the parts of boxes.
        boxes: (..., 4) left, top, right, bottom in pixels of the image.
        height: of the image.
        width: of the image.
    """
    weights, size = [], probabilities.shape[-1]
    for axis, side in enumerate((height, width)):
        # y is the second of each pair
        start, end = boxes[..., 1 - axis :: 2].double().unbind(-1)
        pixel = torch.arange(side, device=boxes.device).double() + 0.5
        position = (pixel - start[..., None]) / (end - start).clamp(min=1e-6)[..., None] * size - 0.5
        limits = (start - 0.5).ceil().long(), (end - 0.5).floor().long() + 1
        weights.append(interpolation(position.clamp(0, size - 1), size, *limits))
    return in_image(probabilities, *weights) > 0.5
