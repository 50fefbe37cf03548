"""The smallest instance network: a logit per pixel, whose components are the objects."""

from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segcore.models.base.instance import InstanceModel, Outputs, Truth
from segcore.objects.components import components
from segcore.objects.found import Objects, from_numbers


class Toy(InstanceModel):
    """Objects are the components of pixels of positive logit, of the first foreground class."""

    coefficients = MappingProxyType({"pixels": 1.0})
    is_position_dependent = False

    def __init__(
        self, in_channels: int = 3, num_classes: int = 2, foreground: tuple[int, ...] = (1,)
    ) -> None:
        super().__init__(in_channels, num_classes, "Toy", 1, foreground)
        self.encoder = nn.Conv2d(in_channels, 1, 1)

    def heads(self, x: Tensor) -> Outputs:
        return (self.encoder(x)[:, 0],)

    def weights(self, truth: Truth) -> dict[str, Tensor]:
        return {"pixels": (~truth.ignored).sum().float()}

    def terms(self, outputs: Outputs, truth: Truth) -> dict[str, Tensor]:
        target = (truth.instance > 0).float()
        loss = F.binary_cross_entropy_with_logits(outputs[0].float(), target, reduction="none")
        return {"pixels": loss.masked_fill(truth.ignored, 0).sum()}

    def detect(self, outputs: Outputs, height: int, width: int) -> list[Objects]:
        found = []
        for logits in outputs[0].float().cpu()[:, :height, :width]:
            probability = torch.sigmoid(logits).numpy()
            numbers = components((probability > 0.5).astype(np.uint8), [1])
            count = int(numbers.max())
            sums = np.bincount(numbers.ravel(), probability.ravel(), count + 1)[1:]
            areas = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
            classes = np.full(count, self.foreground[0], np.uint8)
            found.append(from_numbers(numbers, classes, sums / np.maximum(areas, 1)))
        return found
