"""Parameters, multiply-accumulates and receptive field of a network."""

import copy
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from segcore.models.base.ensemble import Ensemble
from segcore.models.base.instance import InstanceModel
from segcore.models.base.model import SegmentationModel

# pixels; a receptive field of this length or more counts as global
_LONGEST = 1 << 15


@dataclass(frozen=True)
class Complexity:
    """Size, cost and receptive field of a network.

    Attributes:
        parameters: number of trainable and frozen weights; buffers do not count.
        macs: multiply-accumulates of convolutions and matrix products for one image.
        receptive_field: side in pixels of the square of input that can change a pixel's logits, pooling and
            normalisation over the whole image excluded. Of an instance network, a pixel of the finest map of its
            pyramid, from which small objects are found: the few layers after it, and coarser maps, see more.
        global_context: whether the network pools or normalises over the whole image, or its receptive field exceeds all
            sizes tried.
        fixed: numbers that `macs` counts with, where the cost depends on what is found, such as that of "proposals".
    """

    parameters: int
    macs: int
    receptive_field: int
    global_context: bool
    fixed: dict[str, int] = field(default_factory=dict)


def complexity(model: SegmentationModel, size: int = 256) -> Complexity:
    """Measure a model without changing it.

    Args:
        model: any architecture of segcore.models.
        size: height and width in pixels of the image for `macs`.
    """
    # the mean of probabilities has no gradient where one is 0
    networks = list(model.members) if isinstance(model, Ensemble) else [model]
    fields = [_receptive_field(network) for network in networks]  # type: ignore[arg-type]
    side, reaches_everywhere = max(side for side, _ in fields), any(everywhere for _, everywhere in fields)
    is_global = any(_is_image_pooling(m) or isinstance(m, nn.GroupNorm) for m in model.modules())
    macs, fixed = _macs(model, size)
    return Complexity(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs=macs,
        receptive_field=side,
        global_context=is_global or reaches_everywhere,
        fixed=fixed,
    )


def _copy_sharing_weights(model: SegmentationModel) -> SegmentationModel:
    """A copy whose modules can be replaced; it shares the tensors of the original."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}).eval()


def _macs(model: SegmentationModel, size: int) -> tuple[int, dict[str, int]]:
    """Multiply-accumulates, counted on the meta device, which computes shapes only; and what is fixed for them."""
    network = _copy_sharing_weights(model).to("meta")
    image, fixed = torch.empty(1, model.in_channels, size, size, device="meta"), dict[str, int]()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        if isinstance(network, InstanceModel):
            fixed = network.costed(image)
        else:
            network(image)
    # a multiply-accumulate is two operations
    return int(counter.get_total_flops()) // 2, fixed


def _receptive_field(model: SegmentationModel) -> tuple[int, bool]:
    """Side of the local receptive field in pixels, and whether it exceeds every image that was tried.

    The gradient of the logits (of an instance network, the finest map) at one central pixel is non-zero on the
    receptive field, unless terms cancel. To rule that out, convolutions and max pooling are replaced by sums over their
    window and channels, and pointwise layers (ReLU, batch norm) are removed. One channel is enough, which keeps it
    cheap. As windows are rectangles, a wide and a tall strip together give the whole field.
    """
    network = _copy_sharing_weights(model)
    for name, module in list(network.named_modules()):
        replacement = _neutral(module)
        if replacement is not None:
            network.set_submodule(name, replacement)
    length = 1024
    while True:
        strip = 2 * model.output_stride
        extents = [_extent(network, strip, length, dim=-1), _extent(network, length, strip, dim=-2)]
        if max(extents) < length:
            return max(extents), False
        if length >= _LONGEST:
            return length, True
        length *= 2


def _extent(network: SegmentationModel, height: int, width: int, dim: int) -> int:
    """Pixels from the first to the last non-zero gradient along `dim`; the whole length if one is at an edge."""
    # the model's mean, because values that it clips have no gradient
    image = network.mean[None, :, None, None].expand(1, -1, height, width).clone().requires_grad_()
    with torch.enable_grad():
        outputs = _map(network, image)
        rows, cols = outputs.shape[-2:]
        (gradient,) = torch.autograd.grad(outputs[:, :, rows // 2, cols // 2].sum(), image)
    other = -1 if dim == -2 else -2
    touched = gradient.abs().sum(dim=(0, 1)).sum(dim=other).nonzero().flatten()
    first, last = int(touched[0]), int(touched[-1])
    length = image.shape[dim]
    return length if first == 0 or last == length - 1 else last - first + 1


def _map(network: SegmentationModel, image: Tensor) -> Tensor:
    """Logits of a semantic network; of an instance network the finest map of its pyramid."""
    if not isinstance(network, InstanceModel):
        logits: Tensor = network(image)
        return logits
    features = network.get_submodule("encoder")(network.prepared(image, None)[0])
    finest: Tensor = network.get_submodule("pyramid")(features)[0]
    return finest


def _is_image_pooling(module: nn.Module) -> bool:
    return isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d) and module.output_size in (
        1,
        (1, 1),
    )


def _neutral(module: nn.Module) -> nn.Module | None:
    """Replacement of a module for the measurement of the receptive field; None keeps the module."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.MaxPool2d):
        return _Window(module)
    if _is_image_pooling(module):
        return _Zero()
    pointwise = (
        nn.modules.batchnorm._BatchNorm,
        nn.LayerNorm,
        nn.GroupNorm,
        nn.ReLU,
        nn.ReLU6,
        nn.Hardswish,
        nn.SiLU,
        nn.GELU,
        nn.Sigmoid,
    )
    return nn.Identity() if isinstance(module, pointwise) else None


class _Zero(nn.Module):
    """Replaces pooling over the whole image by a 0 that depends on no pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], 1, 1, 1)


class _Binary(torch.autograd.Function):
    """Identity whose gradient is 1 where the incoming one is not 0, so that deep networks do not over- or underflow."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return (gradient != 0).to(gradient.dtype)


class _Window(nn.Module):
    """The window of a convolution or pooling as a sum: one channel, all weights 1."""

    def __init__(self, layer: nn.Conv2d | nn.ConvTranspose2d | nn.MaxPool2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        x = _Binary.apply(x.sum(dim=1, keepdim=True))  # (N, 1, H, W)
        layer = self.layer
        size = layer.kernel_size
        ones = x.new_ones(1, 1, *(size if isinstance(size, tuple) else (size, size)))
        if isinstance(layer, nn.ConvTranspose2d):
            return F.conv_transpose2d(
                x,
                ones,
                stride=layer.stride,
                padding=layer.padding,  # type: ignore[arg-type]
                output_padding=layer.output_padding,
                dilation=layer.dilation,
            )
        return F.conv2d(x, ones, stride=layer.stride, padding=layer.padding, dilation=layer.dilation)
