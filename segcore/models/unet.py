"""U-Net.

Ronneberger, Fischer and Brox 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
arXiv 1505.04597.

A contracting path, and an expanding path that upsamples by two, concatenates the feature map of the same size
and applies two 3x3 convolutions. The encoder "plain" is the paper's; other encoders replace it as in TernausNet
(Iglovikov and Shvets 2018, arXiv 1801.05746).
Differences from the paper: convolutions are padded, so that the output is as large as the input, and batch norm
follows each of them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segcore.errors import ModelError
from segcore.models.base.encoders import Encoder, build_encoder, require_encoder
from segcore.models.base.model import choose, conv_bn_relu, upsample
from segcore.models.base.semantic import SemanticModel


def build(
    in_channels: int,
    num_classes: int,
    *,
    encoder: str = "mobilenet_v2",
    weights: str = "none",
    width: int = 64,
    decoder_channels: Sequence[int] | None = None,
    upsampling: str = "transposed",
    full_resolution: bool = False,
) -> SemanticModel:
    """A U-Net.

    Args:
        in_channels: bands of the image.
        num_classes: classes, background included.
        encoder: "plain", one of `ENCODERS` or "timm:NAME".
        weights: of the encoder, see `load_encoder_weights`; "plain" has none.
        width: channels of the first stage of "plain"; each of the four further stages doubles them.
        decoder_channels: channels of each decoder stage, coarsest first; None: as the encoder's map of the same
            size, as in the paper, but at least 32.
        upsampling: "transposed" (2x2 transposed convolution, as in the paper) or "bilinear".
        full_resolution: the finest map of all `ENCODERS` except VGG has stride 2, of some of timm 4. True adds decoder
            stages down to stride 1 without skips; False upsamples the logits, which takes half the time.

    Raises:
        ModelError: an unknown value, or weights that do not fit.
    """
    require_encoder(encoder, others=("plain",))
    choose("upsampling", upsampling, ("transposed", "bilinear"))
    if encoder == "plain" and weights != "none":
        raise ModelError(f'no weights {weights!r} for U-Net\'s encoder "plain"', 'set weights to "none"')
    contracting = (
        plain_encoder(in_channels, width)
        if encoder == "plain"
        else build_encoder(encoder, in_channels, weights)
    )
    if decoder_channels is None:
        decoder_channels = [max(32, channels) for channels in contracting.channels[-2::-1]]
    if len(decoder_channels) != len(contracting.channels) - 1:
        raise ModelError(
            f"decoder_channels {list(decoder_channels)} does not fit encoder {encoder}",
            f"give {len(contracting.channels) - 1} values, coarsest first",
        )
    return UNet(in_channels, num_classes, contracting, decoder_channels, upsampling, full_resolution)


def double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3x3 convolutions, each with batch norm and ReLU."""
    return nn.Sequential(conv_bn_relu(in_channels, out_channels), conv_bn_relu(out_channels, out_channels))


def plain_encoder(in_channels: int, width: int) -> Encoder:
    """The paper's contracting path: feature maps at strides 1, 2, 4, 8, 16."""
    channels = [width * factor for factor in (1, 2, 4, 8, 16)]
    stages: list[nn.Module] = [double_conv(in_channels, width)]
    for coarse, fine in zip(channels[1:], channels, strict=False):
        stages.append(nn.Sequential(nn.MaxPool2d(2), double_conv(fine, coarse)))
    return Encoder(stages, channels, [1, 2, 4, 8, 16])


class Up(nn.Module):
    """Upsample by two, concatenate the skip, convolve twice."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, upsampling: str) -> None:
        super().__init__()
        self.up = (
            nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
            if upsampling == "transposed"
            else nn.Sequential(
                nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(in_channels, out_channels, 1)
            )
        )
        self.convolve = double_conv(out_channels + skip_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """Merge x (N, C, h, w) and skip (N, S, 2h, 2w) into (N, out_channels, 2h, 2w)."""
        x = self.up(x)
        merged: Tensor = self.convolve(x if skip is None else torch.cat([skip, x], dim=1))
        return merged


class UNet(SemanticModel):
    """U-Net on the feature maps of an encoder; arguments as those of `build`."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        encoder: Encoder,
        decoder_channels: Sequence[int],
        upsampling: str,
        full_resolution: bool,
    ) -> None:
        super().__init__(in_channels, num_classes, "U-Net", encoder.strides[-1])
        self.encoder = encoder
        self.ups = nn.ModuleList()
        below = encoder.channels[-1]
        for skip, channels in zip(encoder.channels[-2::-1], decoder_channels, strict=True):
            self.ups.append(Up(below, skip, channels, upsampling))
            below = channels
        if full_resolution:
            self.ups.extend(
                Up(below, 0, below, upsampling) for _ in range(encoder.strides[0].bit_length() - 1)
            )
        self.score = nn.Conv2d(below, num_classes, 1)

    def segment(self, x: Tensor) -> Tensor:
        """Logits (N, K, H, W) of normalised pixels (N, C, H, W)."""
        *skips, below = self.encoder(x)
        for up in self.ups:
            below = up(below, skips.pop() if skips else None)
        return upsample(self.score(below), x.shape[-2:])
