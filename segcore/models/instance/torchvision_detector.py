"""Weights of torchvision's Mask R-CNN with ResNet-50 and pyramid, in the layers of segflow's Mask R-CNN."""

import logging
import math
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

_PREDICTOR = "roi_heads.box_predictor."


def load_torchvision(model: nn.Module, state: Mapping[str, Tensor], source: str) -> list[str]:
    """Copy what fits of a detector's weights, and log what does not; the encoder's are loaded before.

    torchvision's background class is the first one; its masks and boxes have no counterpart.

    Args:
        model: a `segcore.models.mask_rcnn.MaskRCNN`.
        state: with torchvision's key names, of today or of the published files.
        source: of the weights, for the message.

    Returns:
        Names of the tensors of `state` that are not in the model, with the reason.
    """
    own, used, left = model.state_dict(), set[str](), list[str]()
    # the second version has batch norm after the convolutions of pyramid and heads
    is_first = not any(key.startswith("backbone.fpn.") and key.endswith("running_mean") for key in state)
    for target, names, skipped in _layers(model) if is_first else ():
        name = next((name for name in names if f"{name}.weight" in state), None)
        for kind in ("weight", "bias") if name else ():
            key = f"{name}.{kind}"
            value, place = state[key][skipped:], own.get(f"{target}.{kind}")
            if place is None:
                continue
            used.add(key)
            if value.shape == place.shape:
                place.copy_(value)
            else:
                left.append(f"{key} {tuple(value.shape)}, here {tuple(place.shape)}")
    others = (key for key in state if not key.startswith("backbone.body.") and key not in used)
    left += [f"{key}, no such layer" for key in others if not key.endswith("num_batches_tracked")]
    if left:
        logging.getLogger(__name__).warning(
            "%s: %d tensors of torchvision's Mask R-CNN were not placed: %s",
            source,
            len(left),
            "; ".join(left),
        )
    return left


def _layers(model: nn.Module) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """Each layer with torchvision's names for it, of today and of the published files, and rows to leave out."""
    pyramid = model.get_submodule("pyramid")
    lateral, smooth = (len(list(pyramid.get_submodule(name).children())) for name in ("lateral", "smooth"))
    # torchvision's finest map has stride 4
    first = round(math.log2(pyramid.strides[0] / 4))  # type: ignore[index]
    for ours, theirs, count in (("lateral", "inner_blocks", lateral), ("smooth", "layer_blocks", smooth)):
        for place in range(count):
            name = f"backbone.fpn.{theirs}.{first + place}"
            yield f"pyramid.{ours}.{place}", (f"{name}.0", name), 0
    yield "proposal_head.convolve", ("rpn.head.conv.0.0", "rpn.head.conv"), 0
    yield "proposal_head.score", ("rpn.head.cls_logits",), 0
    yield "proposal_head.offsets", ("rpn.head.bbox_pred",), 0
    yield "box_head.layers.1", ("roi_heads.box_head.fc6",), 0
    yield "box_head.layers.3", ("roi_heads.box_head.fc7",), 0
    yield "box_head.score", (f"{_PREDICTOR}cls_score",), 0
    yield "box_head.offsets", (f"{_PREDICTOR}bbox_pred",), 4
    for place in range(4):
        names = (f"roi_heads.mask_head.{place}.0", f"roi_heads.mask_head.mask_fcn{place + 1}")
        yield f"mask_head.layers.{2 * place}", names, 0
    yield "mask_head.enlarge", ("roi_heads.mask_predictor.conv5_mask",), 0
    yield "mask_head.score", ("roi_heads.mask_predictor.mask_fcn_logits",), 1
