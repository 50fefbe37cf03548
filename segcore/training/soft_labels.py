"""Soft labels: of each pixel, the share of several annotators that chose each class."""

import torch
from torch import Tensor

from segcore.data.annotators import FIRST


def decoded(numbers: Tensor, annotators: int, classes: int) -> Tensor:
    """(N, K, H, W) float32: share of the annotators that chose each class, of those that labelled the pixel.

    All 0 where none did, and where a number is IGNORE.

    Args:
        numbers: (N, H, W) int64 of segcore.data.annotators.encoded, or IGNORE.
        annotators: number of annotators.
        classes: number of classes, K.
    """
    rest, inside = numbers - FIRST, numbers >= FIRST
    shares = torch.zeros(len(numbers), classes, *numbers.shape[1:], device=numbers.device)
    for _ in range(annotators):
        label = rest % (classes + 1)
        for index in range(classes):
            shares[:, index] += (label == index) & inside
        rest = rest // (classes + 1)
    return shares / shares.sum(dim=1, keepdim=True).clamp_min(1)
