"""Fully connected conditional random field (Kraehenbuehl and Koltun 2011), as DeepLab v1 and v2 sharpen edges with.

Pixels of like colour that are near each other pull each other towards the same class. Mean-field iterations take, for
each pixel, the mean of its neighbours' probabilities, weighted by two Gaussian kernels: of distance and colour, and of
distance alone. Neighbours are those on a square grid that reaches twice the first kernel's deviation, whose distance
grows with it, so that a step costs the same for any deviation. With a grid of distance 1 that reaches over the whole
image, it is the method of the paper with kernels that are divided by their sum over a pixel's neighbours.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from segcore.errors import ModelError

# neighbours of the grid on each side of a pixel
_REACH = 4
_ITERATIONS = 5
# standard deviation, in pixels, and weight of the kernel of distance alone
_NEAR, _SMOOTHNESS = 1.0, 1.0
_TINY = 1e-6
# row and column of a neighbour, relative to a pixel, and the kernel (N, 1, H, W) between the two, 0 outside the image
Pair = tuple[int, int, Tensor]


@dataclass(frozen=True)
class Crf:
    """Kernel of distance and colour.

    Attributes:
        distance: standard deviation in pixels, above 0.
        color: standard deviation in standard deviations of the training split's bands, above 0.
        weight: of the mean of the neighbours' probabilities, in logits, above 0.
    """

    distance: float
    color: float
    weight: float

    @classmethod
    def of(cls, entry: Any) -> Self | None:
        """That of a bundle's settings; None without one.

        Raises:
            ModelError: a number is missing, or not above 0.
        """
        if entry is None:
            return None
        names = set(cls.__dataclass_fields__)
        if not isinstance(entry, dict) or set(entry) != names or not all(map(_is_positive, entry.values())):
            raise ModelError(
                f"crf is {str(entry)[:80]}", "give distance, color and weight, each above 0 and at most 1000"
            )
        return cls(**entry)

    def entry(self) -> dict[str, float]:
        """As in a bundle's settings."""
        return asdict(self)

    def text(self) -> str:
        """As words."""
        return (
            f"CRF of {self.distance:g} pixels and {self.color:g} deviations of colour, weight {self.weight:g}"
        )

    def __call__(self, logits: Tensor, image: Tensor, valid: Tensor | None = None) -> Tensor:
        """Logits after the mean-field iterations.

        Args:
            logits: (N, K, H, W).
            image: (N, C, H, W) normalised pixels.
            valid: (N, H, W) bool, False where nodata: such pixels are no neighbours; None: all are valid.

        Returns:
            (N, K, H, W) float32, whose softmax are the probabilities.
        """
        unary = logits.float()
        there = torch.ones_like(unary[:, :1]) if valid is None else valid[:, None].float()
        step = max(1, round(2 * self.distance / _REACH))
        kernels = (
            (self.weight, list(_pairs(image.float(), there, step, _REACH, self.distance, self.color))),
            (_SMOOTHNESS, list(_pairs(image.float(), there, 1, 2, _NEAR, None))),
        )
        found = unary
        for _ in range(_ITERATIONS):
            probabilities = found.softmax(dim=1)
            found = unary
            for weight, pairs in kernels:
                found = found + weight * _means(probabilities, pairs)
        return found


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value <= 1000


def _pairs(
    image: Tensor, there: Tensor, step: int, reach: int, distance: float, color: float | None
) -> Iterator[Pair]:
    """Half of the neighbours of each pixel; those in the other half have the same kernels."""
    height, width = image.shape[-2:]
    for down in range(reach + 1):
        for right in range(-reach if down else 1, reach + 1):
            row, col = down * step, right * step
            if row >= height or abs(col) >= width:
                continue
            exponent = (row**2 + col**2) / (2 * distance**2)
            kernel = there * _shifted(there, row, col) * math.exp(-exponent)
            if color is not None:
                apart = (image - _shifted(image, row, col)).square().mean(dim=1, keepdim=True)
                kernel = kernel * torch.exp(-apart / (2 * color**2))
            yield row, col, kernel


def _shifted(x: Tensor, row: int, col: int) -> Tensor:
    """For each pixel of (N, C, H, W) the value `row` rows below and `col` columns to the right, 0 beyond the image."""
    height, width = x.shape[-2:]
    part = x[..., max(row, 0) : height + min(row, 0), max(col, 0) : width + min(col, 0)]
    return F.pad(part, (max(-col, 0), max(col, 0), max(-row, 0), max(row, 0)))


def _means(probabilities: Tensor, pairs: list[Pair]) -> Tensor:
    """Means of the neighbours' probabilities by their kernels; 0 for a pixel without neighbours."""
    total, weights = torch.zeros_like(probabilities), torch.full_like(probabilities[:, :1], _TINY)
    for row, col, kernel in pairs:
        back = _shifted(kernel, -row, -col)
        total += kernel * _shifted(probabilities, row, col) + back * _shifted(probabilities, -row, -col)
        weights += kernel + back
    return total / weights
