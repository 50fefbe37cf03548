"""FCN: fully convolutional networks.

Long, Shelhamer and Darrell 2015, "Fully Convolutional Networks for Semantic Segmentation", arXiv 1411.4038.

The coarsest map is scored by a 1x1 convolution; the scores are upsampled by two and added to the 1x1 scores
of the next finer map, down to stride 32, 16 or 8 (FCN-32s, -16s, -8s). As in the paper, the upsampling
between skips is learnt, initialised as bilinear, and the final upsampling is bilinear. With VGG the fully
connected layers fc6 and fc7 become convolutions; other encoders are scored directly, as the paper does with
GoogLeNet.
Differences from the paper: all skips are trained from the start instead of one after another, and borders are
padded by half the kernel instead of 100 pixels.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from segcore.models.base.encoders import build_encoder, require_encoder
from segcore.models.base.keywords import require_share, require_whole
from segcore.models.base.model import choose, upsample
from segcore.models.base.pretrained import load_encoder_weights
from segcore.models.base.semantic import SemanticModel

# number of feature maps that are scored
_SCORED_MAPS = {"32s": 1, "16s": 2, "8s": 3}


def build(
    in_channels: int,
    num_classes: int,
    *,
    encoder: str = "mobilenet_v2",
    weights: str = "none",
    output_stride: int = 32,
    variant: str = "8s",
    fc_channels: int | None = None,
    dropout: float = 0.5,
) -> SemanticModel:
    """An FCN.

    Args:
        in_channels: bands of the image.
        num_classes: classes, background included.
        encoder: one of `ENCODERS` or "timm:NAME".
        weights: of the encoder, see `load_encoder_weights`.
        variant: "32s", "16s" or "8s", the stride of the finest map that is scored.
        output_stride: of the encoder: 32 as in the paper; 16 or 8 by dilation.
        fc_channels: width of fc6 and fc7; 0: without them; None: 4096 for VGG as in the paper, else 0.
        dropout: probability, after fc6 and fc7.

    Raises:
        ModelError: an unknown value, or weights that do not fit.
    """
    choose("variant", variant, list(_SCORED_MAPS))
    require_encoder(encoder)
    if fc_channels is None:
        fc_channels = 4096 if encoder.startswith("vgg") else 0
    require_whole({"fc_channels": fc_channels}, "fc_channels", least=0)
    require_share({"dropout": dropout}, "dropout")
    model = FCN(in_channels, num_classes, encoder, weights, output_stride, variant, fc_channels, dropout)
    if encoder.startswith("vgg") and fc_channels == 4096:
        model.load_fully_connected(load_encoder_weights(encoder, weights))
    return model


class FCN(SemanticModel):
    """FCN-32s, -16s or -8s; arguments as those of `build`."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        encoder: str,
        weights: str,
        output_stride: int,
        variant: str,
        fc_channels: int,
        dropout: float,
    ) -> None:
        super().__init__(in_channels, num_classes, f"FCN-{variant}", output_stride)
        self.encoder = build_encoder(encoder, in_channels, weights, output_stride)
        scored = _SCORED_MAPS[variant]
        # coarsest first
        channels = self.encoder.channels[-scored:][::-1]
        strides = self.encoder.strides[-scored:][::-1]
        self.fully_connected = nn.Sequential()
        if fc_channels:
            rate = 32 // output_stride
            self.fully_connected = nn.Sequential(
                nn.Conv2d(channels[0], fc_channels, 7, padding=3 * rate, dilation=rate),
                nn.ReLU(inplace=True),
                nn.Dropout2d(dropout),
                nn.Conv2d(fc_channels, fc_channels, 1),
                nn.ReLU(inplace=True),
                nn.Dropout2d(dropout),
            )
            channels[0] = fc_channels
        self.scores = nn.ModuleList(nn.Conv2d(width, num_classes, 1) for width in channels)
        self.ups = nn.ModuleList(
            bilinear_transposed(num_classes, coarse // fine) for coarse, fine in pairwise(strides)
        )

    def segment(self, x: Tensor) -> Tensor:
        """Logits (N, K, H, W) of normalised pixels (N, C, H, W)."""
        # coarsest first
        features = self.encoder(x)[::-1]
        features[0] = self.fully_connected(features[0])
        total = self.scores[0](features[0])
        for score, up, feature in zip(self.scores[1:], self.ups, features[1:], strict=False):
            total = up(total) + score(feature)
        return upsample(total, x.shape[-2:])

    def load_fully_connected(self, state: dict[str, Tensor] | None) -> None:
        """Copy fc6 and fc7 from the classifier of torchvision's VGG, if `state` contains it."""
        if state is None or "classifier.0.weight" not in state:
            return
        for layer, key in (
            (self.fully_connected[0], "classifier.0"),
            (self.fully_connected[3], "classifier.3"),
        ):
            assert isinstance(layer, nn.Conv2d) and layer.bias is not None
            with torch.no_grad():
                layer.weight.copy_(state[f"{key}.weight"].view_as(layer.weight))
                layer.bias.copy_(state[f"{key}.bias"])


def bilinear_transposed(channels: int, factor: int) -> nn.Module:
    """A learnable transposed convolution, initialised as bilinear upsampling by an even factor, or by 1.

    At first channels are not mixed. The kernel is 2 * factor wide, as in the paper's released code.
    """
    if factor == 1:
        return nn.Identity()
    layer = nn.ConvTranspose2d(channels, channels, 2 * factor, stride=factor, padding=factor // 2, bias=False)
    distance = (torch.arange(2 * factor) - (factor - 0.5)).abs() / factor
    tent = 1 - distance
    with torch.no_grad():
        layer.weight.zero_()
        for channel in range(channels):
            layer.weight[channel, channel] = tent[:, None] * tent[None, :]
    return layer
