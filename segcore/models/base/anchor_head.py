"""What is predicted at each anchor: classes, box and coefficients of prototypes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# probability of an object at each anchor before training
_PRIOR = 0.01


class AnchorHead(nn.Module):
    """Classes, box and coefficients at the anchors of one level of a feature pyramid.

    Args:
        width: channels of the level.
        anchors: their number at each place.
        classes: their number, without background.
        prototypes: their number.
    """

    def __init__(self, width: int, anchors: int, classes: int, prototypes: int) -> None:
        super().__init__()
        self.shared = nn.Conv2d(width, width, 3, padding=1)
        self.outputs = nn.ModuleList(
            nn.Conv2d(width, anchors * channels, 3, padding=1) for channels in (classes, 4, prototypes)
        )
        self.channels = (classes, 4, prototypes)
        with torch.no_grad():
            self.outputs[0].bias.fill_(-math.log((1 - _PRIOR) / _PRIOR))  # type: ignore[operator]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Logits (N, A, classes), offsets (N, A, 4) and coefficients (N, A, prototypes) of (N, width, h, w)."""
        x = F.relu(self.shared(x))
        logits, offsets, coefficients = (
            layer(x).permute(0, 2, 3, 1).reshape(len(x), -1, channels)
            for layer, channels in zip(self.outputs, self.channels, strict=True)
        )
        return [logits, offsets, torch.tanh(coefficients)]
