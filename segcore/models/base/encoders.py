"""Encoders that all architectures share: networks without their classifiers, most of them torchvision's.

VGG: Simonyan and Zisserman 2015, arXiv 1409.1556.  ResNet: He et al. 2016, arXiv 1512.03385.
MobileNetV2: Sandler et al. 2018, arXiv 1801.04381.  EfficientNet-Lite, Xception and timm: see their modules.
Smaller output strides by dilation: Chen et al. 2015, arXiv 1412.7062 (the "hole algorithm").
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from segcore.errors import ModelError
from segcore.models.base import efficientnet_lite
from segcore.models.base.keywords import of_keyword
from segcore.models.base.model import choose
from segcore.models.base.pretrained import apply_encoder_weights, load_encoder_weights

ENCODERS = (
    "mobilenet_v2",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "vgg16",
    "vgg16_bn",
    *efficientnet_lite.NAMES,
    "xception",
)
# of encoders of timm, "timm:NAME"
TIMM = "timm:"


class Encoder(nn.Module):
    """A network cut into stages, each of which gives one feature map.

    Attributes:
        channels: number of channels of each feature map, finest first.
        strides: input pixels per pixel of each feature map, finest first.
    """

    def __init__(self, stages: list[nn.Module], channels: list[int], strides: list[int]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.channels = channels
        self.strides = strides

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) to the list of (N, channels[i], H / strides[i], W / strides[i])."""
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


def require_encoder(name: Any, others: tuple[str, ...] = ()) -> None:
    """Check that an encoder is one of ENCODERS or "timm:NAME", or one of `others`.

    Raises:
        ModelError: it is not; of "plain", the message says that only U-Net has it.
    """
    if name == "plain" and not others:
        raise ModelError(
            "encoder 'plain' is for U-Net alone",
            f"set train.common.encoder, or encoder in the section of this network, to one of {', '.join(ENCODERS)}; "
            "U-Net keeps its own by train.unet.encoder",
            "encoder",
        )
    if not (isinstance(name, str) and name.startswith(TIMM)):
        choose("encoder", name, (*others, *ENCODERS, f"{TIMM}NAME"))


def build_encoder(name: str, in_channels: int, weights: str = "none", output_stride: int = 32) -> Encoder:
    """An encoder with feature maps at strides 2, 4, 8, 16, 32, and for VGG at stride 1 before them.

    Some of timm begin at stride 4. Sides of images are multiples of the largest stride.

    VGG's maps are those after each pooling (pool1 ... pool5), preceded by the last one before pool1.

    Args:
        name: one of ENCODERS, or "timm:NAME".
        in_channels: bands. Pretrained weights expect 3; for another number C the first convolution gets the
            mean of its RGB filters for every band, times 3 / C, so that activations keep their scale.
        weights: specification, see `segcore.models.base.pretrained.load_encoder_weights`.
        output_stride: 32, 16 or 8; larger strides are replaced by dilation, which changes neither
            the shape of a weight nor the values on the coarser grid.

    Raises:
        ModelError: an unknown encoder or output stride, or weights that do not fit.
    """
    require_encoder(name)
    choose("output_stride", output_stride, (32, 16, 8))
    if name.startswith(TIMM):
        return _of_timm(name, in_channels, weights, output_stride)
    trunk = _trunk(name)
    with of_keyword("weights"):
        state = load_encoder_weights(name, weights)
        if state is not None:
            apply_encoder_weights(trunk, state, weights)
    if in_channels != 3:
        _adapt_first_convolution(trunk, in_channels, pretrained=state is not None)
    return _cut(name, trunk, output_stride)


def _of_timm(name: str, in_channels: int, weights: str, output_stride: int) -> Encoder:
    # imported here: an optional package
    from segcore.models.base import timm_encoder

    with of_keyword("encoder"):
        encoder = timm_encoder.build(name, in_channels, output_stride)
    with of_keyword("weights"):
        state = load_encoder_weights(name, weights)
        if state is not None:
            apply_encoder_weights(encoder, timm_encoder.with_own_keys(encoder, state, in_channels), weights)
    return encoder


def _cut(name: str, trunk: nn.Module, output_stride: int) -> Encoder:
    """The stages of a network, those beyond the output stride dilated."""
    stages = _stages(trunk)
    nominal = [1, 2, 4, 8, 16, 32][-len(stages) :]
    for stage, stride in zip(stages, nominal, strict=True):
        if stride > output_stride:
            _dilate(stage, stride // output_stride)
    strides = [min(stride, output_stride) for stride in nominal]
    if name == "xception":
        from segcore.models.base.xception import XceptionEncoder

        return XceptionEncoder(stages, strides)
    return Encoder(stages, _channels(stages), strides)


def _trunk(name: str) -> nn.Module:
    """The network with torchvision's or timm's key names, without the layers after the last feature map."""
    if name in efficientnet_lite.NAMES:
        return efficientnet_lite.EfficientNetLite(name)
    if name == "xception":
        from segcore.models.base.xception import Xception

        return Xception()
    # imported here: slower to import than torch itself, and not needed for U-Net's plain encoder
    from torchvision import models
    from torchvision.models import vgg

    if name.startswith("vgg"):
        # not torchvision.models.vgg16(), which initialises 120 million classifier weights that are not used
        trunk = nn.Module()
        trunk.features = vgg.make_layers(vgg.cfgs["D"], batch_norm=name.endswith("_bn"))
        for module in trunk.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)
        return trunk
    network: nn.Module = models.get_model(name, weights=None)
    if name.startswith("resnet"):
        network.fc = nn.Identity()
    else:
        assert isinstance(network.features, nn.Sequential)
        # without the 320 -> 1280 convolution of the classifier
        network.features = network.features[:-1]
        network.classifier = nn.Identity()
    return network


def _stages(trunk: nn.Module) -> list[nn.Module]:
    from torchvision import models

    if callable(cut := getattr(trunk, "stages", None)):
        stages: list[nn.Module] = cut()
        return stages
    if isinstance(trunk, models.ResNet):
        stem = nn.Sequential(trunk.conv1, trunk.bn1, trunk.relu)
        return [stem, nn.Sequential(trunk.maxpool, trunk.layer1), trunk.layer2, trunk.layer3, trunk.layer4]
    layers = trunk.features
    assert isinstance(layers, nn.Sequential)
    if isinstance(trunk, models.MobileNetV2):
        cuts = [0, 2, 4, 7, 14, len(layers)]
    else:
        pools = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
        cuts = [0, pools[0], *(pool + 1 for pool in pools)]
    return [layers[start:stop] for start, stop in pairwise(cuts)]


def _channels(stages: list[nn.Module]) -> list[int]:
    channels: list[int] = []
    for stage in stages:
        widths = [module.out_channels for module in stage.modules() if isinstance(module, nn.Conv2d)]
        # VGG's second stage is only a pooling
        channels.append(widths[-1] if widths else channels[-1])
    return channels


def _adapt_first_convolution(trunk: nn.Module, in_channels: int, pretrained: bool) -> None:
    name, old = next((n, m) for n, m in trunk.named_modules() if isinstance(m, nn.Conv2d))
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    with torch.no_grad():
        if pretrained:
            # (out, 1, k, k)
            mean = old.weight.mean(dim=1, keepdim=True)
            new.weight.copy_(mean.expand_as(new.weight) * (3 / in_channels))
        else:
            nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
        if new.bias is not None and old.bias is not None:
            new.bias.copy_(old.bias)
    trunk.set_submodule(name, new)


def _dilate(stage: nn.Module, rate: int) -> None:
    """Remove a stage's stride of 2 and dilate the layers after it by `rate`.

    The layers before the stride, and the strided layer itself, are dilated by `rate` / 2, the factor by which
    the grid of the earlier stages is already finer. torchvision's replace_stride_with_dilation does the same, but
    supports neither ResNet-18 and -34 nor MobileNet.
    """
    before = rate // 2
    current = before
    for name, module in list(stage.named_modules()):
        if isinstance(module, nn.MaxPool2d):
            # repeated pixels never change a maximum
            pad = nn.ReplicationPad2d((0, before, 0, before))
            pool = nn.MaxPool2d(kernel_size=2, stride=1, dilation=before)
            stage.set_submodule(name, nn.Sequential(pad, pool))
            current = rate
        elif isinstance(module, nn.ZeroPad2d):
            # of the strided convolution that follows, whose first pixel stays where it is
            left, right = module.padding[:2]
            start, stop = left * before, (left + right + 1) * before - left * before
            module.padding = (start, stop, start, stop)
        elif isinstance(module, nn.Conv2d):
            kernel = module.kernel_size[0]
            strided = module.stride != (1, 1)
            module.stride = (1, 1)
            module.dilation = (current, current)
            if module.padding != (0, 0):
                module.padding = (current * (kernel // 2), current * (kernel // 2))
            # a shortcut's 1x1 convolution is parallel to the strided 3x3 one: later layers are not dilated by it
            if strided and kernel > 1:
                current = rate
