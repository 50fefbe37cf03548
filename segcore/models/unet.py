"""U-Net.

Ronneberger, Fischer and Brox 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
arXiv 1505.04597.

A contracting path, and an expanding path that upsamples by two, concatenates the feature map of the same size
and applies two 3x3 convolutions. The encoder "plain" is the paper's; other encoders replace it as in TernausNet
(Iglovikov and Shvets 2018, arXiv 1801.05746).
Differences from the paper: convolutions are padded, so that the output is as large as the input, and batch norm
follows each of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segcore.errors import ModelError
from segcore.models.base.encoders import Encoder, build_encoder, require_encoder
from segcore.models.base.keywords import require_list, require_number, require_switch, require_whole
from segcore.models.base.model import NORMS, choose, conv_bn_relu, upsample
from segcore.models.base.semantic import SemanticModel

# later keywords, and their defaults
_ADDED: dict[str, Any] = {"norm": "batch", "score_gain": 1, "deep_supervision": False}
_LARGEST_GAIN = 100


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
    norm: str = "batch",
    score_gain: float = 1,
    deep_supervision: bool = False,
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
        upsampling: "transposed" (2x2 transposed convolution, as in the paper), "bilinear" (and a 1x1 convolution) or
            "nearest" (without a convolution).
        full_resolution: the finest map of all `ENCODERS` except VGG has stride 2, of some of timm 4. True adds decoder
            stages down to stride 1 without skips; False upsamples the logits, which takes half the time.
        norm: "batch", "group" or "instance", of the decoder and of "plain"; the others have their own.
        score_gain: factor of the logits; 10 lets changes of a narrow last map count for more, so that few steps
            suffice (docs/notes/tuning.md).
        deep_supervision: all stages of the decoder but the last have a score in training, whose loss is added.

    Raises:
        ModelError: an unknown value, or weights that do not fit.
    """
    require_encoder(encoder, others=("plain",))
    choose("upsampling", upsampling, ("transposed", "bilinear", "nearest"))
    choose("norm", norm, NORMS)
    given = {
        "width": width,
        "decoder_channels": decoder_channels,
        "full_resolution": full_resolution,
        "score_gain": score_gain,
        "deep_supervision": deep_supervision,
    }
    require_whole(given, "width")
    require_switch(given, "full_resolution", "deep_supervision")
    require_number(given, "score_gain", above=0, largest=_LARGEST_GAIN)
    if decoder_channels is not None:
        require_list(given, "decoder_channels", whole=True, auto=False)
    if encoder == "plain" and weights != "none":
        raise ModelError(
            f'no weights {weights!r} for U-Net\'s encoder "plain"', 'set weights to "none"', "weights"
        )
    contracting = (
        plain_encoder(in_channels, width, norm)
        if encoder == "plain"
        else build_encoder(encoder, in_channels, weights)
    )
    if decoder_channels is None:
        decoder_channels = [max(32, channels) for channels in contracting.channels[-2::-1]]
    if len(decoder_channels) != len(contracting.channels) - 1:
        raise ModelError(
            f"decoder_channels {list(decoder_channels)} does not fit encoder {encoder}",
            f"give {len(contracting.channels) - 1} values, coarsest first",
            "decoder_channels",
        )
    model = UNet(in_channels, num_classes, contracting, decoder_channels, upsampling, full_resolution, norm)
    model.score_gain = score_gain
    if deep_supervision:
        model.supervise_all_stages()
    return model


def resolved(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of `build` without those that older versions lack, at their defaults.

    A training compares them with those of the champion that it starts from.
    """

    def is_default(key: str, value: Any) -> bool:
        # true is no number
        default = _ADDED.get(key)
        return key in _ADDED and value == default and isinstance(value, bool) == isinstance(default, bool)

    return {key: value for key, value in keywords.items() if not is_default(key, value)}


def double_conv(in_channels: int, out_channels: int, norm: str = "batch") -> nn.Sequential:
    """Two 3x3 convolutions, each with a norm of NORMS and ReLU."""
    return nn.Sequential(
        conv_bn_relu(in_channels, out_channels, norm=norm),
        conv_bn_relu(out_channels, out_channels, norm=norm),
    )


def plain_encoder(in_channels: int, width: int, norm: str = "batch") -> Encoder:
    """The paper's contracting path: feature maps at strides 1, 2, 4, 8, 16."""
    channels = [width * factor for factor in (1, 2, 4, 8, 16)]
    stages: list[nn.Module] = [double_conv(in_channels, width, norm)]
    for coarse, fine in zip(channels[1:], channels, strict=False):
        stages.append(nn.Sequential(nn.MaxPool2d(2), double_conv(fine, coarse, norm)))
    return Encoder(stages, channels, [1, 2, 4, 8, 16])


class Up(nn.Module):
    """Upsample by two, concatenate the skip, convolve twice."""

    def __init__(
        self, in_channels: int, skip_channels: int, out_channels: int, upsampling: str, norm: str
    ) -> None:
        super().__init__()
        upsampled = out_channels
        if upsampling == "transposed":
            self.up: nn.Module = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        elif upsampling == "nearest":
            self.up, upsampled = nn.Upsample(scale_factor=2, mode="nearest"), in_channels
        else:
            self.up = nn.Sequential(
                nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(in_channels, out_channels, 1)
            )
        self.convolve = double_conv(upsampled + skip_channels, out_channels, norm)
        for module in self.convolve.modules():
            if isinstance(module, nn.Conv2d):
                # as in the paper: a standard deviation of sqrt(2 / inputs)
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

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
        norm: str,
    ) -> None:
        super().__init__(in_channels, num_classes, "U-Net", encoder.strides[-1])
        self.encoder = encoder
        self.score_gain: float = 1
        self.ups = nn.ModuleList()
        below = encoder.channels[-1]
        for skip, channels in zip(encoder.channels[-2::-1], decoder_channels, strict=True):
            self.ups.append(Up(below, skip, channels, upsampling, norm))
            below = channels
        if full_resolution:
            self.ups.extend(
                Up(below, 0, below, upsampling, norm) for _ in range(encoder.strides[0].bit_length() - 1)
            )
        self.score = nn.Conv2d(below, num_classes, 1)
        self.widths = [*decoder_channels, *[below] * (len(self.ups) - len(decoder_channels))]
        # of all stages but the last, coarsest first
        self.score_stages = nn.ModuleList()

    def supervise_all_stages(self) -> None:
        """Add scores of the stages before the last, which are used in training only."""
        for channels in self.widths[:-1]:
            self.score_stages.append(nn.Conv2d(channels, self.outputs, 1))

    def segment(self, x: Tensor) -> Tensor:
        """Logits (N, K, H, W) of normalised pixels (N, C, H, W).

        With deep supervision, in training: those of the last stage and of the others, coarsest first, (N, S * K, H, W).
        """
        *skips, below = self.encoder(x)
        maps = []
        for up in self.ups:
            below = up(below, skips.pop() if skips else None)
            maps.append(below)
        logits = upsample(self.score(below) * self.score_gain, x.shape[-2:])
        if not (self.training and self.score_stages):
            return logits
        others = [
            upsample(score(stage), x.shape[-2:])
            for score, stage in zip(self.score_stages, maps[:-1], strict=True)
        ]
        return torch.cat([logits, *others], dim=1)

    def training_loss(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """As `criterion`; with deep supervision the weighted mean over stages.

        As in nnU-Net (Isensee et al. 2021), each coarser stage has half of the weight. Its loss is that of the pixels
        in the middle of its cells, which costs little.
        """
        last, *others = logits.split(self.outputs, dim=1)
        losses = self.criterion(last, labels)
        total, weight, weights = losses["loss"], 1.0, 1.0
        for index, stage in enumerate(reversed(others), start=1):
            rows, columns = (_middle(side, self._cell(index)) for side in labels.shape[-2:])
            weight /= 2
            loss = self.criterion(stage[..., rows, columns], labels[..., rows, columns])["loss"]
            total = total + weight * loss
            weights += weight
        return {**losses, "loss": total / weights}

    def _cell(self, index: int) -> int:
        """Side in pixels of the image of a cell of the map that is `index` stages before the last."""
        stride = self.output_stride / 2 ** (len(self.ups) - index)
        cell: int = max(1, round(stride / self.magnify))
        return cell


def _middle(side: int, cell: int) -> slice:
    """Pixels in the middle of cells along a side; of a side that is shorter than a cell its own middle."""
    return slice(min(cell, side) // 2, None, cell)
