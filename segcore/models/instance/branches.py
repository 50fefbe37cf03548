"""Layers of SOLO's heads: convolutions with group norm, coordinates, and the step from a map to the cells of a grid."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segcore.models.base.model import padding


def conv_gn_relu(in_channels: int, out_channels: int, kernel: int = 3) -> nn.Sequential:
    """A convolution that keeps height and width, group norm with 8 channels per group as in the papers, and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
        nn.GroupNorm(math.gcd(out_channels, max(out_channels // 8, 1)), out_channels),
        nn.ReLU(inplace=True),
    )


def branch(in_channels: int, width: int, convs: int, out_channels: int) -> nn.Sequential:
    """`convs` convolutions with group norm and ReLU, and one to the result."""
    layers = [conv_gn_relu(in_channels if place == 0 else width, width) for place in range(convs)]
    return nn.Sequential(*layers, nn.Conv2d(width, out_channels, 3, padding=1))


class MaskFeatures(nn.Module):
    """Features (N, width, h / 4, w / 4) of v2's masks: the sum of the pyramid's maps, enlarged step by step.

    Args:
        in_channels: of the pyramid's maps of strides 4, 8, 16 and 32; the last one with two coordinates more.
        width: of the result; the layers before have half of it.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for place in range(4):
            layers: list[nn.Module] = [conv_gn_relu(in_channels + 2 * (place == 3), width // 2)]
            for step in range(place):
                layers.append(nn.Upsample(scale_factor=2, mode="bilinear"))
                if step:
                    layers.insert(-1, conv_gn_relu(width // 2, width // 2))
            self.levels.append(nn.Sequential(*layers))
        self.merge = conv_gn_relu(width // 2, width, kernel=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps, finest first, to mask features."""
        total = torch.stack([level(x) for level, x in zip(self.levels, maps, strict=True)]).sum(0)
        merged: Tensor = self.merge(total)
        return merged


def with_coordinates(x: Tensor, stride: int, window: int) -> Tensor:
    """A map with x and y as two more channels, from -1 to 1 over a window (CoordConv).

    Liu et al. 2018, "An Intriguing Failing of Convolutional Neural Networks and the CoordConv Solution",
    arXiv 1807.03247.

    Args:
        x: (N, C, h, w).
        stride: of the map in pixels.
        window: side in pixels.
    """
    across, down = (
        ((torch.arange(side, device=x.device) + 0.5) * (2 * stride / window) - 1).to(x.dtype)
        for side in (x.shape[3], x.shape[2])
    )
    shape = (x.shape[0], 1, *x.shape[-2:])
    return torch.cat([x, across.expand(shape), down[:, None].expand(shape)], dim=1)


def on_grid(x: Tensor, stride: int, cell: int) -> Tensor:
    """A map of a stride averaged over cells; the last ones over what they have of the image."""
    if cell == stride:
        return x
    side = cell // stride
    if not torch.compiler.is_exporting():
        return F.avg_pool2d(x, side, ceil_mode=True)
    # torch cannot prove for images of any size that the last cells are not empty
    right, below = (padding(length, side, 1) for length in (x.shape[-1], x.shape[-2]))
    total, share = (
        F.avg_pool2d(F.pad(y, (0, right, 0, below)), side) for y in (x, torch.ones_like(x[:1, :1]))
    )
    return total / share


def listed(levels: Sequence[Tensor]) -> Tensor:
    """(N, K, rows, columns) of each level as (N, cells, K)."""
    return torch.cat([level.flatten(2) for level in levels], dim=2).transpose(1, 2)
