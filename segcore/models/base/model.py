"""Base class of all architectures: normalisation, enlargement and padding; and layers that they share."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segcore.errors import ModelError

NORMS = ("batch", "group", "instance")
# of group norm, fewer where the channels are no multiple
_GROUPS = 8


class SegmentationModel(nn.Module, ABC):
    """A network that takes raw pixels; subclasses are `SemanticModel` and `InstanceModel`.

    Normalisation and padding are the same for all, so that no architecture gains an advantage from them.

    Attributes:
        kind: "semantic" (a class for each pixel) or "instance" (objects, each with class, score and mask).
        class_layers: beginnings of the names of the layers that have outputs per class.
        score_name: of the validation score by which the best weights are chosen, higher is better.
        title: name in tables and figures, for example "U-Net".
        outputs: of a semantic network: logits per pixel, one per class and one more if `touching`; else the classes.
        touching: whether the last logit is that of pixels near two objects, which are no class of a result.
        output_stride: input pixels per pixel of the coarsest feature map; inputs are padded to multiples of it.
        least_multiple: of the output stride that inputs are padded to at least.
        channels_last: whether activations have that memory format.
        settings: keywords of `segcore.models.base.factory.build_model`, defaults included; JSON-able.
        magnify: factor by which the image is enlarged for the network: 2 for objects of few pixels, 0.5 for large
            ones (a wider field of view). Results have the size of the original image.
        mean, std: (C,) buffers in raw pixel units, part of the state_dict.
        low, high: (C,) buffers, the range that raw pixels are clipped to first; the limits of float32 if not set.
    """

    kind: ClassVar[Literal["semantic", "instance"]]
    score_name: ClassVar[str]
    class_layers: tuple[str, ...] = ("score",)

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, in_channels: int, num_classes: int, title: str, output_stride: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.outputs = num_classes
        self.touching = False
        self.title = title
        self.output_stride = output_stride
        self.least_multiple = 2
        self.channels_last = True
        self.settings: dict[str, Any] = {}
        self.magnify: float = 1
        self.register_buffer("mean", torch.zeros(in_channels))
        self.register_buffer("std", torch.ones(in_channels))
        self.register_buffer("low", torch.full((in_channels,), torch.finfo(torch.float32).min))
        self.register_buffer("high", torch.full((in_channels,), torch.finfo(torch.float32).max))

    @property
    def num_classes(self) -> int:
        """Number of classes of a result."""
        return self.outputs - self.touching

    def set_normalization(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        """Set the normalisation of raw pixels, (pixel - mean) / std, one value per channel.

        Raises:
            ModelError: not one value per channel, not finite, or a std that is not above 0.
        """
        for name, values in (("mean", mean), ("std", std)):
            new = torch.as_tensor(values, dtype=torch.float32)
            if new.shape != (self.in_channels,) or not new.isfinite().all():
                raise ModelError(
                    f"normalisation {name} {new.tolist()} is not {self.in_channels} finite values",
                    "give one value for each input channel",
                )
            if name == "std" and (new <= 0).any():
                raise ModelError(
                    f"normalisation std {new.tolist()} has a value that is not above 0",
                    "a constant band has no information: drop it, or set its std to 1",
                )
            getattr(self, name).copy_(new)

    def set_range(self, low: Sequence[float] | Tensor, high: Sequence[float] | Tensor) -> None:
        """Clip raw pixels to low..high, one value per channel, before they are normalised.

        Raises:
            ModelError: not one value per channel, or a low that is not below its high.
        """
        new = [torch.as_tensor(values, dtype=torch.float32) for values in (low, high)]
        if any(n.shape != (self.in_channels,) for n in new) or not (new[0] < new[1]).all():
            raise ModelError(
                f"range {new[0].tolist()} to {new[1].tolist()} is not {self.in_channels} lows below their highs",
                "give one low and one high value for each input channel",
            )
        self.low.copy_(new[0])
        self.high.copy_(new[1])

    def take_facts(self, other: "SegmentationModel") -> None:
        """Take settings, normalisation and range of another network, which this one computes in another way."""
        self.settings, self.touching, self.magnify = other.settings, other.touching, other.magnify
        self.set_normalization(other.mean, other.std)
        self.set_range(other.low, other.high)

    def normalize(self, images: Tensor, valid: Tensor | None = None) -> Tensor:
        """Clip raw pixels (N, C, H, W) and scale them to zero mean and unit std; invalid pixels become 0, the mean."""
        x = images.clamp(self.low[:, None, None], self.high[:, None, None])
        x = (x - self.mean[:, None, None]) / self.std[:, None, None]
        # masked_fill instead of a product: nodata may be NaN, and NaN * 0 is NaN
        return x if valid is None else x.masked_fill(~valid[:, None], 0.0)

    def prepared(self, images: Tensor, valid: Tensor | None) -> tuple[Tensor, tuple[int, int]]:
        """Pixels as the network takes them: normalised, enlarged by `magnify`, and padded.

        Args:
            images: (N, C, H, W) float32, raw pixel values.
            valid: (N, H, W) bool, False where nodata; None: all are valid.

        Returns:
            (N, C, h, w) with h and w multiples of `output_stride`, and height and width before padding.

        Raises:
            ModelError: the number of channels is not that of the model.
        """
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise ModelError(
                f"{self.title} takes (N, {self.in_channels}, H, W), got {tuple(images.shape)}",
                "select the bands that the model was trained with, or build it for this number of bands",
            )
        x = resized(self.normalize(images, valid), self.magnify)
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.output_stride, self.least_multiple)
        if self.channels_last:
            # convolutions are twice as fast on CPUs
            x = x.contiguous(memory_format=torch.channels_last)
        return x, (height, width)

    @abstractmethod
    def predict(self, images: Tensor, valid: Tensor | None = None) -> Any:
        """Probabilities (N, outputs, H, W) of a semantic network, list of N `Objects` of an instance network.

        Args:
            images: (N, C, H, W) float32, raw pixel values.
            valid: (N, H, W) bool, False where nodata; None: all are valid.
        """

    @abstractmethod
    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Loss of a training batch as scalars: "loss" is minimised, the others are its components.

        Args:
            batch: "image" (N, C, H, W) raw float32, "label" (N, H, W) int64 with IGNORE, optionally "valid" (N, H, W)
                bool, and for instance networks "instance" (N, H, W) int64, numbers of objects, 0 for none.
        """


def pad_to_multiple(x: Tensor, stride: int, least: int = 2) -> Tensor:
    """Pad (N, C, H, W) at the right and bottom with 0 (the mean) to a multiple of `stride`, at least to least * stride.

    The coarsest map of a single image then has at least four pixels, so that batch norm has a variance.
    """
    right, below = padding(x.shape[-1], stride, least), padding(x.shape[-2], stride, least)
    # an exported graph pads sides of any size, also by 0
    return F.pad(x, (0, right, 0, below)) if torch.compiler.is_exporting() or right or below else x


def padding(size: int, stride: int, least: int = 2) -> int:
    """Pixels that `pad_to_multiple` adds to a side of `size` pixels."""
    # an exported graph has to know that the padded side is a multiple of `stride`, for any size
    multiples: Any = torch.sym_max((size + stride - 1) // stride, least)
    added: int = multiples * stride - size
    return added


def cropped(x: Tensor, height: int, width: int) -> Tensor:
    """The first rows and columns of (N, C, H, W)."""
    if torch.compiler.is_exporting():
        # a view would restrict the exported graph to sizes for which it has the memory layout of the example's
        rows, columns = (torch.arange(side, device=x.device) for side in (height, width))
        return x.index_select(-2, rows).index_select(-1, columns)
    return x[..., :height, :width]


def resized(x: Tensor, factor: float) -> Tensor:
    """(N, C, H, W) enlarged bilinearly by `factor`, or reduced by averaging if 1 / factor is a whole number.

    Sides that are not a multiple of 1 / factor are padded by repeating their last pixels, so that no pixel is lost.
    """
    if factor >= 1:
        # a whole number: torch.export has no form of round() that can be stored
        size = [side * round(factor) for side in x.shape[-2:]]
        return x if factor == 1 else upsample(x, size)
    step = round(1 / factor)
    right, below = ((side + step - 1) // step * step - side for side in (x.shape[-1], x.shape[-2]))
    if torch.compiler.is_exporting() or right or below:
        x = F.pad(x, (0, right, 0, below), mode="replicate")
    return F.avg_pool2d(x, step)


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (N, C, h, w) to (N, C, *size), bilinear with align_corners=False."""
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=False)


def conv_bn_relu(
    in_channels: int,
    out_channels: int,
    kernel: int = 3,
    dilation: int = 1,
    separable: bool = False,
    norm: str = "batch",
) -> nn.Sequential:
    """A convolution that keeps height and width, batch norm (or another one of NORMS) and ReLU.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: side of the kernel in pixels, odd.
        dilation: of the kernel.
        separable: depthwise convolution followed by a 1x1 one, as in Chen et al. 2018.
        norm: one of NORMS.
    """
    padding = dilation * (kernel // 2)
    layers: list[nn.Module]
    if separable and kernel > 1:
        layers = [
            nn.Conv2d(
                in_channels,
                in_channels,
                kernel,
                padding=padding,
                dilation=dilation,
                groups=in_channels,
                bias=False,
            ),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
        ]
    else:
        layers = [
            nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False)
        ]
    return nn.Sequential(*layers, normalized(norm, out_channels), nn.ReLU(inplace=True))


def normalized(norm: str, channels: int) -> nn.Module:
    """A layer that normalises (N, channels, H, W), of a kind in NORMS.

    Group norm (Wu and He 2018, arXiv 1803.08494) and instance norm (a group per channel) use the statistics of one
    image, in training and in prediction, so that they do not depend on the size of a batch.
    """
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(channels if norm == "instance" else math.gcd(channels, _GROUPS), channels)


def choose(setting: str, value: Any, allowed: Sequence[Any]) -> Any:
    """Return `value` if it is one of the allowed ones, of the same type: 8.0 is not 8, and 1 is not True.

    Raises:
        ModelError: it is not; the message lists them.
    """
    if not any(type(value) is type(one) and value == one for one in allowed):
        raise ModelError(
            f"{setting} {value!r} is unknown", f"choose one of {', '.join(map(str, allowed))}", setting
        )
    return value
