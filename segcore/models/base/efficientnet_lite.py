"""EfficientNet-Lite, an EfficientNet without squeeze-and-excitation and with ReLU6, for devices without fast sigmoids.

Tan and Le 2019, arXiv 1905.11946; Lite: the TensorFlow TPU repository, models/official/efficientnet/lite. Scaling
leaves the first convolution and the number of the first and last blocks as they are. Layers have
the names of timm's tf_efficientnet_lite, so that its weights fit, and TensorFlow's padding ("same"). Not used: drop
connect.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

# pixels of 0 to 255 that the ImageNet weights expect: (pixel - MEAN) / STD in every band
MEAN, STD = 127.0, 128.0
_EPS = 1e-3
_STEM = 32
# factors of width and depth
_SCALES = {"efficientnet_lite0": (1.0, 1.0), "efficientnet_lite2": (1.1, 1.2)}
NAMES = tuple(_SCALES)


class _Stage(NamedTuple):
    kernel: int
    stride: int
    expansion: int
    channels: int
    blocks: int


_LITE0 = (
    _Stage(3, 1, 1, 16, 1),
    _Stage(3, 2, 6, 24, 2),
    _Stage(5, 2, 6, 40, 2),
    _Stage(3, 2, 6, 80, 3),
    _Stage(5, 1, 6, 112, 3),
    _Stage(5, 2, 6, 192, 4),
    _Stage(3, 1, 6, 320, 1),
)


class EfficientNetLite(nn.Module):
    """The layers up to the last feature map; only a container, `stages` cuts it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.pad, self.conv_stem = _padded(3, _STEM, kernel=3, stride=2)
        self.bn1 = nn.BatchNorm2d(_STEM, eps=_EPS)
        groups, channels = [], _STEM
        for stage in _scaled(name):
            blocks = []
            for number in range(stage.blocks):
                blocks.append(Block(channels, stage, stage.stride if number == 0 else 1))
                channels = stage.channels
            groups.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*groups)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # He et al. 2015, arXiv 1502.01852, by the outputs that an input of a depthwise convolution has
                fan_out = module.kernel_size[0] ** 2 * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))

    def stages(self) -> list[nn.Module]:
        """Stages that end at strides 2, 4, 8, 16 and 32."""
        stem = nn.Sequential(self.pad, self.conv_stem, self.bn1, nn.ReLU6(inplace=True), *self.blocks[:1])
        return [stem, self.blocks[1], self.blocks[2], self.blocks[3:5], self.blocks[5:]]


class Block(nn.Sequential):
    """1x1 expansion (unless it is 1), depthwise convolution, 1x1 projection; added to the input where shapes agree."""

    def __init__(self, in_channels: int, stage: _Stage, stride: int) -> None:
        super().__init__()
        width = in_channels * stage.expansion
        names = iter(("conv_pw", "conv_dw", "conv_pwl") if stage.expansion > 1 else ("conv_dw", "conv_pw"))
        if stage.expansion > 1:
            self._append(next(names), nn.Conv2d(in_channels, width, 1, bias=False))
        pad, depthwise = _padded(width, width, stage.kernel, stride, groups=width)
        self.add_module("pad", pad)
        self._append(next(names), depthwise)
        self._append(next(names), nn.Conv2d(width, stage.channels, 1, bias=False), is_last=True)
        self.is_residual = stride == 1 and in_channels == stage.channels

    def _append(self, name: str, convolution: nn.Conv2d, is_last: bool = False) -> None:
        number = 1 + sum(isinstance(layer, nn.BatchNorm2d) for layer in self)
        self.add_module(name, convolution)
        self.add_module(f"bn{number}", nn.BatchNorm2d(convolution.out_channels, eps=_EPS))
        if not is_last:
            self.add_module(f"act{number}", nn.ReLU6(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, K, H / stride, W / stride)."""
        out = x
        for layer in self:
            out = layer(out)
        return x + out if self.is_residual else out


def _padded(
    in_channels: int, out_channels: int, kernel: int, stride: int, groups: int = 1
) -> tuple[nn.Module, nn.Conv2d]:
    """A convolution with TensorFlow's "same" padding, of sides that are multiples of the stride, as inputs here are.

    At stride 2 the odd pixel is at the right and bottom: PyTorch's symmetric padding would shift the image by one.
    """
    if stride == 1:
        padding = kernel // 2
        return nn.Identity(), nn.Conv2d(
            in_channels, out_channels, kernel, padding=padding, groups=groups, bias=False
        )
    before, after = (kernel - stride) // 2, (kernel - stride + 1) // 2
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, groups=groups, bias=False)
    return nn.ZeroPad2d((before, after, before, after)), convolution


def _scaled(name: str) -> list[_Stage]:
    """The stages of a network, each with its channels and number of blocks."""
    width, depth = _SCALES[name]
    stages = []
    for place, stage in enumerate(_LITE0):
        wanted = stage.channels * width
        channels = max(8, int(wanted + 4) // 8 * 8)
        # at most a tenth narrower than wanted
        channels += 8 * (channels < 0.9 * wanted)
        is_fixed = place in (0, len(_LITE0) - 1)
        blocks = stage.blocks if is_fixed else math.ceil(stage.blocks * depth)
        stages.append(stage._replace(channels=channels, blocks=blocks))
    return stages


def with_timm_keys(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state_dict with the keys of the package efficientnet-lite-pytorch, renamed to timm's; another as it is."""
    if "_conv_stem.weight" not in state:
        return dict(state)
    top = {
        "_conv_stem": "conv_stem",
        "_bn0": "bn1",
        "_conv_head": "conv_head",
        "_bn1": "bn2",
        "_fc": "classifier",
    }
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    other = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    # of the blocks, which the package numbers throughout
    places = [f"{i}.{j}" for i, stage in enumerate(_scaled(name)) for j in range(stage.blocks)]

    def renamed(key: str) -> str:
        if not key.startswith("_blocks."):
            layer, _, rest = key.partition(".")
            return f"{top[layer]}.{rest}"
        _, number, layer, rest = key.split(".", 3)
        names = first if number == "0" else other
        return f"blocks.{places[int(number)]}.{names[layer]}.{rest}"

    return {renamed(key): value for key, value in state.items()}
