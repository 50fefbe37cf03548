"""Feature pyramid of an encoder: maps of equal width at several strides.

Lin et al. 2017, "Feature Pyramid Networks for Object Detection", arXiv 1612.03144.
"""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from segcore.errors import ModelError
from segcore.models.base.encoders import Encoder


class Pyramid(nn.Module):
    """Maps of `width` channels at `strides`, finest first, on the feature maps of an encoder.

    Each map of the encoder passes a 1x1 convolution, the coarser map is added, enlarged by repetition, and a 3x3
    convolution follows. Strides beyond the encoder's are made from the coarsest map.

    Args:
        encoder: whose maps are used; only those of `strides` and coarser.
        width: channels of each map.
        strides: ascending, each twice the one before.
        extra: how maps beyond the encoder's strides are made: "pool" (each second pixel, Lin et al.) or "conv" (3x3
            convolutions of stride 2, as in RetinaNet, Lin et al. 2017, arXiv 1708.02002).

    Raises:
        ModelError: a stride is finer than all maps of the encoder.
    """

    def __init__(
        self,
        encoder: Encoder,
        width: int,
        strides: Sequence[int],
        extra: Literal["pool", "conv"] = "pool",
    ) -> None:
        super().__init__()
        self.strides = list(strides)
        # of maps of the same stride, the last one
        places = {stride: place for place, stride in enumerate(encoder.strides)}
        coarsest = max(places)
        self.places = [places[s] for s in sorted(places) if s >= strides[0]]
        if strides[0] not in places or len(self.places) < 1:
            raise ModelError(
                f"the encoder has no feature map of stride {strides[0]}",
                f"choose one of {', '.join(map(str, sorted(places)))}",
            )
        self.lateral = nn.ModuleList(nn.Conv2d(encoder.channels[p], width, 1) for p in self.places)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for s in strides if s <= coarsest)
        beyond = [s for s in strides if s > coarsest]
        # an exported graph takes no map of one pixel where it takes larger ones
        self.least_multiple = 1 + max(strides[-1], coarsest) // coarsest
        self.extra = nn.ModuleList(
            nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in beyond if extra == "conv"
        )
        self.pooled = len(beyond) if extra == "pool" else 0
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                # keeps the scale, as no ReLU follows
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The encoder's maps to those of the pyramid, (N, width, h / stride, w / stride) each."""
        maps: list[Tensor] = []
        for layer, place in zip(list(self.lateral)[::-1], self.places[::-1], strict=True):
            x = layer(features[place])
            maps.insert(0, x + F.interpolate(maps[0], size=x.shape[-2:], mode="nearest") if maps else x)
        maps = [layer(x) for layer, x in zip(self.smooth, maps, strict=False)]
        for layer in self.extra:
            maps.append(layer(F.relu(maps[-1])))
        for _ in range(self.pooled):
            maps.append(F.max_pool2d(maps[-1], 1, stride=2))
        return maps
