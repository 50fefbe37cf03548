"""The modified aligned Xception of DeepLabV3+.

Chollet 2017, arXiv 1610.02357; Chen, Zhu, Papandreou, Schroff and Adam 2018, arXiv 1802.02611, figure 4: strided
separable convolutions in place of pooling, batch norm after every depthwise convolution, 16 blocks in the middle.
Layers have the names of timm's xception65, so that its weights fit.
"""

from itertools import pairwise

from torch import Tensor, nn

from segcore.models.base.encoders import Encoder

# pixels of 0 to 255 that weights of ImageNet expect: (pixel - MEAN) / STD in every band
MEAN, STD = 127.5, 127.5
_EPS = 1e-3
_MIDDLE = 16


class Xception(nn.Module):
    """The layers up to the last feature map; only a container, `stages` cuts it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_convolution(3, 32, 3, stride=2), _convolution(32, 64, 3))
        for part in self.stem:
            part.add_module("act", nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(
            Block(64, (128, 128, 128), stride=2),
            Block(128, (256, 256, 256), stride=2),
            Block(256, (728, 728, 728), stride=2),
            *(Block(728, (728, 728, 728)) for _ in range(_MIDDLE)),
            Block(728, (728, 1024, 1024), stride=2),
            Block(1024, (1536, 1536, 2048), is_last=True),
        )

    def stages(self) -> list[nn.Module]:
        """Stages that end at strides 2, 4, 8, 16 and 32."""
        return [self.stem, self.blocks[:1], self.blocks[1:2], self.blocks[2:-2], self.blocks[-2:]]


class XceptionEncoder(Encoder):
    """Feature maps of Xception: the inputs of the strided convolutions, as DeepLabV3+ has them, and the last map."""

    def __init__(self, stages: list[nn.Module], strides: list[int]) -> None:
        super().__init__(stages, [128, 256, 728, 1024, 2048], strides)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) to the list of (N, channels[i], H / strides[i], W / strides[i])."""
        features = []
        stem, *stages = self.stages
        x = stem(x)
        for stage in stages:
            assert isinstance(stage, nn.Sequential)
            strided, *others = stage
            assert isinstance(strided, Block)
            features.append(strided.before_stride(x))
            x = strided.joined(x, features[-1])
            for block in others:
                x = block(x)
        return [*features, x]


class Block(nn.Module):
    """Three separable convolutions, added to the input; the last block of the network is not.

    Activations precede the convolutions; in the last block they follow each depthwise and each 1x1 convolution.
    """

    def __init__(
        self, in_channels: int, widths: tuple[int, int, int], stride: int = 1, is_last: bool = False
    ) -> None:
        super().__init__()
        self.is_last = is_last
        self.shortcut: nn.Module = nn.Identity()
        if not is_last and (stride > 1 or in_channels != widths[-1]):
            self.shortcut = _convolution(in_channels, widths[-1], 1, stride)
        self.stack = nn.Sequential()
        for number, (before, after) in enumerate(pairwise((in_channels, *widths)), 1):
            if not is_last:
                # the input of the first is also that of the shortcut
                self.stack.add_module(f"act{number}", nn.ReLU(inplace=number > 1))
            layer = _separable(before, after, stride if number == len(widths) else 1, is_last)
            self.stack.add_module(f"conv{number}", layer)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, widths[-1], H / stride, W / stride)."""
        return self.joined(x, self.before_stride(x))

    def before_stride(self, x: Tensor) -> Tensor:
        """The input of the last separable convolution, (N, widths[1], H, W)."""
        for layer in list(self.stack)[:-1]:
            x = layer(x)
        return x

    def joined(self, x: Tensor, inner: Tensor) -> Tensor:
        """The last separable convolution of `inner`, added to the block's input `x`."""
        out: Tensor = list(self.stack)[-1](inner)
        return out if self.is_last else out + self.shortcut(x)


def _convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    layers = nn.Sequential()
    layers.add_module(
        "conv", nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    )
    layers.add_module("bn", nn.BatchNorm2d(out_channels, eps=_EPS))
    return layers


def _separable(in_channels: int, out_channels: int, stride: int, is_activated: bool) -> nn.Sequential:
    """Depthwise 3x3 and 1x1 convolution, each with batch norm and optionally a ReLU."""
    layers = nn.Sequential()
    depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False)
    pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    for name, layer in (("dw", depthwise), ("pw", pointwise)):
        layers.add_module(f"conv_{name}", layer)
        layers.add_module(f"bn_{name}", nn.BatchNorm2d(layer.out_channels, eps=_EPS))
        if is_activated:
            layers.add_module(f"act_{name}", nn.ReLU(inplace=True))
    return layers
