"""Batch norm fused into the preceding convolution, for prediction only.

A batch norm in evaluation mode is an affine map per channel and can be merged into the convolution (Jacob et al. 2018,
arXiv 1712.05877, section 3.2). This saves one pass over each feature map; results differ by rounding.
"""

import copy
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

M = TypeVar("M", bound=nn.Module)


def fused(model: M) -> M:
    """A copy in evaluation mode; batch norms that directly follow a convolution in a Sequential are merged into it."""
    copied = copy.deepcopy(model).eval()
    for part in copied.modules():
        if isinstance(part, nn.Sequential):
            _fuse(part)
    return copied


def _fuse(part: nn.Sequential) -> None:
    for index in range(1, len(part)):
        before, norm = part[index - 1], part[index]
        # timm's batch norms contain an activation, and some of its convolutions pad or change their weights
        if _is_of_timm(before) or _is_of_timm(norm):
            continue
        if isinstance(before, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            part[index - 1] = fuse_conv_bn_eval(before, norm)
            part[index] = nn.Identity()


def _is_of_timm(layer: nn.Module) -> bool:
    return type(layer).__module__.startswith("timm.")
