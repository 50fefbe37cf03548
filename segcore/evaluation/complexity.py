"""What a network costs and how far it sees."""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from segcore.models.base.model import SegmentationModel

_LONGEST = 1 << 15  # pixels; a field that reaches further counts as global


@dataclass(frozen=True)
class Complexity:
    """Attributes:
    parameters: number of trainable and frozen weights; buffers do not count.
    macs: multiply-accumulates of convolutions and matrix products for one image of the size asked for.
    receptive_field: side, in pixels, of the square around a pixel that can change its logits, without
        what reaches it through pooling over the whole image.
    global_context: whether there is such a pooling.
    """

    parameters: int
    macs: int
    receptive_field: int
    global_context: bool


def complexity(model: SegmentationModel, size: int = 256) -> Complexity:
    """Measure a model; it is left as it was.

    Args:
        size: height and width in pixels of the image that `macs` is for.
    """
    field, reaches_everywhere = _receptive_field(model)
    pooled = any(_is_image_pooling(module) for module in model.modules())
    return Complexity(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs=_macs(model, size),
        receptive_field=field,
        global_context=pooled or reaches_everywhere,
    )


def _copy_sharing_weights(model: SegmentationModel) -> SegmentationModel:
    """A copy whose modules can be exchanged; the tensors stay those of the original."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}).eval()


def _macs(model: SegmentationModel, size: int) -> int:
    """Counted on the meta device, where shapes are computed and pixels are not."""
    network = _copy_sharing_weights(model)
    state = {key: torch.empty_like(value, device="meta") for key, value in network.state_dict().items()}
    image = torch.empty(1, model.in_channels, size, size, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        functional_call(network, state, (image,))
    return counter.get_total_flops() // 2  # a multiply-accumulate is two operations


def _receptive_field(model: SegmentationModel) -> tuple[int, bool]:
    """The side of the local field, and whether it outgrows every image that was tried.

    The gradient of the logits of one central pixel is non-zero on the field, if nothing cancels. So every
    convolution is replaced by a sum over its window and channels, maxima by such sums too, and what acts on a
    pixel alone (ReLU, batch norm) is left out. One channel suffices, which makes it cheap; and as windows
    are rectangles, a wide strip and a tall one show the whole field.
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
    """Pixels from the first to the last non-zero gradient along `dim`; all of them if it touches an end."""
    # the mean, because what is clipped to the model's range has no gradient
    image = network.mean[None, :, None, None].expand(1, -1, height, width).clone().requires_grad_()
    with torch.enable_grad():
        logits = network(image)
        (gradient,) = torch.autograd.grad(logits[:, :, height // 2, width // 2].sum(), image)
    other = -1 if dim == -2 else -2
    touched = gradient.abs().sum(dim=(0, 1)).sum(dim=other).nonzero().flatten()
    first, last = int(touched[0]), int(touched[-1])
    length = image.shape[dim]
    return length if first == 0 or last == length - 1 else last - first + 1


def _is_image_pooling(module: nn.Module) -> bool:
    return isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d) and module.output_size in (
        1,
        (1, 1),
    )


def _neutral(module: nn.Module) -> nn.Module | None:
    """What stands for a module when the receptive field is measured; None: the module itself."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.MaxPool2d):
        return _Window(module)
    if _is_image_pooling(module):
        return _Nothing()
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


class _Nothing(nn.Module):
    """In place of the mean of the image: a 0 that depends on no pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], 1, 1, 1)


class _Binary(torch.autograd.Function):
    """Identity; its gradient is 1 where one arrives and 0 elsewhere, so that no depth over- or underflows."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return (gradient != 0).to(gradient.dtype)


class _Window(nn.Module):
    """The geometry of a convolution or pooling, on one channel, with all weights 1."""

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
