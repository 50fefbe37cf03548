"""DeepLab in its four versions.

V1: Chen, Papandreou, Kokkinos, Murphy and Yuille 2015, "Semantic Image Segmentation with Deep Convolutional Nets and
Fully Connected CRFs", arXiv 1412.7062. V2: the same authors 2017, "DeepLab: Semantic Image Segmentation with Deep
Convolutional Nets, Atrous Convolution, and Fully Connected CRFs", arXiv 1606.00915. V3: Chen, Papandreou, Schroff and
Adam 2017, "Rethinking Atrous Convolution for Semantic Image Segmentation", arXiv 1706.05587. V3+: Chen, Zhu,
Papandreou, Schroff and Adam 2018, "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation",
arXiv 1802.02611.

The encoder has output stride 16 or 8 by dilation. V1 (LargeFOV) scores its last map by VGG's fully connected layers as
convolutions: fc6 (3x3, dilation 12), fc7 (1x1) and the scores (1x1). V2 (ASPP-L) sums the scores of four such branches
of dilations 6, 12, 18 and 24. With VGG, both are as published; with other encoders each branch is one dilated 3x3
convolution to the scores, as in the authors' ResNet-101.
Differences from the papers of V1 and V2: pooling is 2x2 as in VGG, where the authors' code has 3x3; the loss is that of
the upsampled scores, not of labels reduced by 8; one image scale; the fully connected CRF is no part of the network.

V3 and V3+ apply atrous spatial pyramid pooling (ASPP) to the last map: a 1x1 convolution, three 3x3 ones of growing
dilation, and image pooling (the mean of the whole map). V3 scores the result; V3+ first upsamples it to stride 4,
concatenates low-level features reduced to 48 channels and applies two 3x3 convolutions. Convolutions can be separable,
as in V3+.
Differences from their papers: 128 channels by default instead of 256, and no multi-grid.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segcore.errors import ModelError
from segcore.models.base.encoders import Encoder, build_encoder
from segcore.models.base.keywords import require_list, require_share, require_switch, require_whole
from segcore.models.base.model import choose, conv_bn_relu, upsample
from segcore.models.base.pretrained import load_encoder_weights
from segcore.models.base.semantic import SemanticModel

# the best in table 1 of V3+
_LOW_LEVEL_CHANNELS = 48
_VERSIONS = ("v1", "v2", "v3", "v3+")
# dilations of the branches of the versions that sum their scores, at output stride 8
_SUMMED = {"v1": (12,), "v2": (6, 12, 18, 24)}


def build(
    in_channels: int,
    num_classes: int,
    *,
    encoder: str = "mobilenet_v2",
    weights: str = "none",
    output_stride: int | None = None,
    version: str = "v3+",
    aspp_channels: int | None = None,
    atrous_rates: Sequence[int] | None = None,
    separable: bool | None = None,
    dropout: float | None = None,
) -> SemanticModel:
    """A DeepLab.

    Keywords that are None follow from the version and the encoder, see `resolved`.

    Args:
        in_channels: bands of the image.
        num_classes: classes, background included.
        encoder: one of `ENCODERS` or "timm:NAME".
        weights: of the encoder, see `load_encoder_weights`; those of VGG's classifier start fc6 and fc7 of v1 and v2.
        output_stride: of the encoder, 16 or 8.
        version: "v1", "v2", "v3" or "v3+".
        aspp_channels: width of each ASPP branch and of the decoder, 256 in the papers of v3 and v3+; of v1 and v2 that
            of fc6 and fc7, 0: without them.
        atrous_rates: dilations of ASPP; None: 6, 12, 18 at output stride 16 and twice these at 8, as in V3; of v1 and
            v2 12, and 6, 12, 18, 24 at output stride 8, and half of these at 16.
        separable: depthwise separable 3x3 convolutions in ASPP and decoder, of v3 and v3+ alone.
        dropout: probability, after ASPP, or after fc6 and fc7.

    Raises:
        ModelError: an unknown value, or weights that do not fit.
    """
    choose("version", version, _VERSIONS)
    choose("output_stride", output_stride, (16, 8))
    assert output_stride and aspp_channels is not None and separable is not None and dropout is not None
    given = {
        "aspp_channels": aspp_channels,
        "atrous_rates": atrous_rates,
        "separable": separable,
        "dropout": dropout,
    }
    require_whole(given, "aspp_channels", least=0 if version in _SUMMED else 1)
    require_switch(given, "separable")
    require_share(given, "dropout")
    if atrous_rates is None:
        at_8 = _SUMMED.get(version, (12, 24, 36))
        atrous_rates = [rate * 8 // output_stride for rate in at_8]
    else:
        require_list(given, "atrous_rates", whole=True, auto=False)
    if version in _SUMMED and separable:
        raise ModelError(
            f"separable is true, and DeepLab {version} has no separable convolutions",
            "set separable to null, or version to v3 or v3+",
            "separable",
        )
    trunk = build_encoder(encoder, in_channels, weights, output_stride)
    if version not in _SUMMED:
        return DeepLab(
            in_channels, num_classes, trunk, version, aspp_channels, atrous_rates, separable, dropout
        )
    model = SummedDeepLab(in_channels, num_classes, trunk, version, aspp_channels, atrous_rates, dropout)
    if encoder.startswith("vgg") and aspp_channels:
        model.load_fully_connected(load_encoder_weights(encoder, weights))
    return model


def resolved(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of `build` with the values of their version in place of None.

    V1 and v2 have output stride 8, dropout 0.5, and with VGG 1024 channels in fc6 and fc7, as published; v3 and v3+
    output stride 16, dropout 0.1 and 128 channels, separable.

    Raises:
        ModelError: an unknown version.
    """
    choose("version", keywords["version"], _VERSIONS)
    is_summed, is_vgg = keywords["version"] in _SUMMED, str(keywords["encoder"]).startswith("vgg")
    of_version = {
        "output_stride": 8 if is_summed else 16,
        "aspp_channels": (1024 if is_vgg else 0) if is_summed else 128,
        "separable": not is_summed,
        "dropout": 0.5 if is_summed else 0.1,
    }
    given = {key: value for key, value in keywords.items() if value is not None}
    return {**keywords, **of_version, **given}


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


class SummedDeepLab(SemanticModel):
    """DeepLabV1 or DeepLabV2: the sum of the scores of dilated branches; arguments as those of `build`."""

    class_layers = ("scores",)

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        encoder: Encoder,
        version: str,
        channels: int,
        rates: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__(in_channels, num_classes, "DeepLab" + version.upper(), encoder.strides[-1])
        self.encoder = encoder
        self.branches, self.scores = nn.ModuleList(), nn.ModuleList()
        width = encoder.channels[-1]
        for rate in rates:
            if channels:
                branch = nn.Sequential(
                    nn.Conv2d(width, channels, 3, padding=rate, dilation=rate),
                    nn.ReLU(inplace=True),
                    nn.Dropout(dropout),
                    nn.Conv2d(channels, channels, 1),
                    nn.ReLU(inplace=True),
                    nn.Dropout(dropout),
                )
                score = nn.Conv2d(channels, num_classes, 1)
            else:
                branch = nn.Sequential()
                score = nn.Conv2d(width, num_classes, 3, padding=rate, dilation=rate)
            self.branches.append(branch)
            self.scores.append(score)

    def segment(self, x: Tensor) -> Tensor:
        """Logits (N, K, H, W) of normalised pixels (N, C, H, W)."""
        deep = self.encoder(x)[-1]
        total = self.scores[0](self.branches[0](deep))
        for branch, score in zip(self.branches[1:], self.scores[1:], strict=True):
            total = total + score(branch(deep))
        return upsample(total, x.shape[-2:])

    def load_fully_connected(self, state: dict[str, Tensor] | None) -> None:
        """Start fc6 and fc7 of every branch from the classifier of torchvision's VGG, if `state` contains it.

        As in the paper, they are thinned out: evenly spaced channels of the 4096, and of the 7x7 weights of fc6 every
        third row and column.
        """
        if state is None or "classifier.0.weight" not in state:
            return
        fc6, fc7 = state["classifier.0.weight"].unflatten(1, (-1, 7, 7)), state["classifier.3.weight"]
        for branch in self.branches:
            assert isinstance(branch, nn.Sequential)
            first, second = branch[0], branch[3]
            assert isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)
            assert first.bias is not None and second.bias is not None
            kept = torch.linspace(0, len(fc6) - 1, first.out_channels).long()
            with torch.no_grad():
                first.weight.copy_(fc6[kept][:, :, ::3, ::3])
                first.bias.copy_(state["classifier.0.bias"][kept])
                second.weight.copy_(fc7[kept][:, kept, None, None])
                second.bias.copy_(state["classifier.3.bias"][kept])
