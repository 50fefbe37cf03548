"""The heads of Mask R-CNN: class, box and mask of pooled regions.

He et al. 2017, "Mask R-CNN", arXiv 1703.06870.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def initialise(module: nn.Module) -> None:
    """Weights that keep the scale of activations; layers that end in logits or offsets begin near 0."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
            if name in ("score", "offsets"):
                nn.init.normal_(layer.weight, std=0.01)
            else:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


class BoxHead(nn.Module):
    """Class and box of each region; of the classes the first is "no object"."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(49 * width, 4 * width),
            nn.ReLU(),
            nn.Linear(4 * width, 4 * width),
            nn.ReLU(),
        )
        self.score = nn.Linear(4 * width, classes + 1)
        self.offsets = nn.Linear(4 * width, 4 * classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C, 7, 7) to logits (R, K + 1) and offsets (R, K, 4), float32."""
        x = self.layers(x)
        return self.score(x).float(), self.offsets(x).float().unflatten(1, (-1, 4))


class MaskHead(nn.Module):
    """Mask of each region for each class."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(min(max(width // 64, 2), 4)):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.enlarge = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.score = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor, classes: Tensor) -> Tensor:
        """(R, C, 14, 14) and the class of each region (R,) to logits (R, 28, 28), float32."""
        x = self.score(F.relu(self.enlarge(self.layers(x))))
        return x[torch.arange(x.shape[0], device=x.device), classes].float()
