"""What is predicted at each anchor: classes, box and coefficients of prototypes."""

import math

import torch
from torch import Tensor, nn


class AnchorHead(nn.Module):
    """Classes, box and coefficients at the anchors of one level of a feature pyramid.

    Args:
        width: channels of the level.
        anchors: their number at each place.
        classes: their number, background included.
        prototypes: their number.
    """

    def __init__(self, width: int, anchors: int, classes: int, prototypes: int) -> None:
        super().__init__()
        self.shared = nn.Sequential(*convolution(width))
        self.outputs = nn.ModuleList(
            nn.Conv2d(width, anchors * channels, 3, padding=1) for channels in (classes, 4, prototypes)
        )
        self.channels = (classes, 4, prototypes)
        self.apply(xavier)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Logits (N, A, classes), offsets (N, A, 4) and coefficients (N, A, prototypes) of (N, width, h, w)."""
        x = self.shared(x)
        logits, offsets, coefficients = (
            layer(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, channels)
            for layer, channels in zip(self.outputs, self.channels, strict=True)
        )
        return [logits, offsets, torch.tanh(coefficients)]


def convolution(width: int) -> list[nn.Module]:
    """A 3x3 convolution that keeps height, width and channels, group norm and ReLU."""
    norm = nn.GroupNorm(math.gcd(8, width), width)
    return [nn.Conv2d(width, width, 3, padding=1), norm, nn.ReLU(inplace=True)]


def xavier(module: nn.Module) -> None:
    """Initialise a convolution as the published code does; the default would shrink its output."""
    if isinstance(module, nn.Conv2d) and module.bias is not None:
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
