"""RoIAlign by torchvision's operator, with PyTorch's warning where it is not deterministic."""

import warnings

import torch
import torchvision  # noqa: F401 (registers the operator)
from torch import Tensor


def roi_align(x: Tensor, regions: Tensor, stride: int, size: int, points: int) -> Tensor:
    """Features of regions, (R, C, size, size); pixel centres are at half a pixel (`aligned=True`).

    On accelerators the backward pass sums by atomic additions in any order, without a warning of its own.
    `torchvision.ops.roi_align` would then compile a form in Python, which needs far more time and memory; here training
    stays fast, and its grade names the operator.

    Args:
        x: (N, C, h, w).
        regions: (R, 5) place of the image, left, top, right, bottom in input pixels.
        stride: input pixels per pixel of x.
        size: height and width of the result.
        points: of each of its pixels, along each side.
    """
    if x.device.type != "cpu" and x.requires_grad and torch.are_deterministic_algorithms_enabled():
        warnings.warn("roi_align_backward does not have a deterministic implementation", stacklevel=2)
    found: Tensor = torch.ops.torchvision.roi_align(x, regions, 1 / stride, size, size, points, True)
    return found
