"""DeepLabV3 and DeepLabV3+.

V3: Chen, Papandreou, Schroff and Adam 2017, "Rethinking Atrous Convolution for Semantic Image Segmentation",
arXiv 1706.05587. V3+: Chen, Zhu, Papandreou, Schroff and Adam 2018, "Encoder-Decoder with Atrous Separable
Convolution for Semantic Image Segmentation", arXiv 1802.02611.

The encoder has output stride 16 or 8 by dilation. Atrous spatial pyramid pooling (ASPP) applies to its last map
a 1x1 convolution, three 3x3 ones of growing dilation, and image pooling (the mean of the whole map). V3 scores the
result; V3+ first upsamples it to stride 4, concatenates low-level features reduced to 48 channels and applies two
3x3 convolutions. Convolutions can be separable, as in V3+.
Differences from the papers: 128 channels by default instead of 256, and no multi-grid.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segcore.models.base.encoders import Encoder, build_encoder
from segcore.models.base.model import choose, conv_bn_relu, upsample
from segcore.models.base.semantic import SemanticModel

# the best in table 1 of V3+
_LOW_LEVEL_CHANNELS = 48


def build(
    in_channels: int,
    num_classes: int,
    *,
    encoder: str = "mobilenet_v2",
    weights: str = "none",
    output_stride: int = 16,
    version: str = "v3+",
    aspp_channels: int = 128,
    atrous_rates: Sequence[int] | None = None,
    separable: bool = True,
    dropout: float = 0.1,
) -> SemanticModel:
    """A DeepLab.

    Args:
        in_channels: bands of the image.
        num_classes: classes, background included.
        encoder: one of `ENCODERS`.
        weights: of the encoder, see `load_encoder_weights`.
        output_stride: of the encoder, 16 or 8.
        version: "v3" or "v3+".
        aspp_channels: width of each ASPP branch and of the decoder; 256 in the papers.
        atrous_rates: dilations of ASPP; None: 6, 12, 18 at output stride 16 and twice these at 8, as in V3.
        separable: depthwise separable 3x3 convolutions in ASPP and decoder.
        dropout: probability, after ASPP.

    Raises:
        ModelError: an unknown value, or weights that do not fit.
    """
    choose("version", version, ("v3", "v3+"))
    choose("output_stride", output_stride, (16, 8))
    if atrous_rates is None:
        atrous_rates = [rate * 16 // output_stride for rate in (6, 12, 18)]
    return DeepLab(
        in_channels,
        num_classes,
        build_encoder(encoder, in_channels, weights, output_stride),
        version,
        aspp_channels,
        atrous_rates,
        separable,
        dropout,
    )


class GlobalBatchNorm(nn.BatchNorm2d):
    """Batch norm of the (N, C, 1, 1) image mean.

    A batch of one has no variance: it is normalised by the running statistics.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, 1, 1)."""
        if self.training and x.shape[0] == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling with image pooling, (N, C, h, w) -> (N, channels, h, w)."""

    def __init__(
        self, in_channels: int, channels: int, rates: Sequence[int], separable: bool, dropout: float
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv_bn_relu(in_channels, channels, kernel=1)])
        for rate in rates:
            self.branches.append(conv_bn_relu(in_channels, channels, dilation=rate, separable=separable))
        self.image_pooling = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(in_channels, channels, 1, bias=False),
            GlobalBatchNorm(channels),
            nn.ReLU(inplace=True),
        )
        self.project = nn.Sequential(
            conv_bn_relu(channels * (len(rates) + 2), channels, kernel=1), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply all branches to (N, C, h, w), concatenate and project to (N, channels, h, w)."""
        local = [branch(x) for branch in self.branches]
        pooled = self.image_pooling(x).expand_as(local[0])
        # an expanded map has no memory format; without one, cat would make all later layers slow
        pooled = pooled.contiguous(memory_format=torch.channels_last)
        projected: Tensor = self.project(torch.cat([*local, pooled], dim=1))
        return projected


class DeepLab(SemanticModel):
    """DeepLabV3 or DeepLabV3+; arguments as those of `build`."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        encoder: Encoder,
        version: str,
        channels: int,
        rates: Sequence[int],
        separable: bool,
        dropout: float,
    ) -> None:
        super().__init__(in_channels, num_classes, "DeepLab" + version.upper(), encoder.strides[-1])
        self.encoder = encoder
        self.has_decoder = version == "v3+"
        self.aspp = ASPP(encoder.channels[-1], channels, rates, separable, dropout)
        if self.has_decoder:
            self.reduce = conv_bn_relu(encoder.channels[-4], _LOW_LEVEL_CHANNELS, kernel=1)
            self.decode = nn.Sequential(
                conv_bn_relu(channels + _LOW_LEVEL_CHANNELS, channels, separable=separable),
                conv_bn_relu(channels, channels, separable=separable),
            )
        self.score = nn.Conv2d(channels, num_classes, 1)

    def segment(self, x: Tensor) -> Tensor:
        """Logits (N, K, H, W) of normalised pixels (N, C, H, W)."""
        features = self.encoder(x)
        deep = self.aspp(features[-1])
        if self.has_decoder:
            # stride 4
            low = self.reduce(features[-4])
            deep = self.decode(torch.cat([upsample(deep, low.shape[-2:]), low], dim=1))
        return upsample(self.score(deep), x.shape[-2:])
