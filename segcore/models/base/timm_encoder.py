"""Convolutional encoders of timm (pytorch-image-models, Wightman 2019), named "timm:NAME"; the extra `timm`.

Any network of timm that gives feature maps of doubling strides up to 32 for images of any size. What timm calls by
NAME is looked up in its own list alone: names that refer to a hub or a folder are unknown.
"""

import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segcore.errors import ModelError, missing_package
from segcore.models.base.encoders import Encoder

PREFIX = "timm:"
_WORKING = "timm:resnet18, timm:tf_efficientnet_lite3, timm:regnety_008, timm:convnext_tiny"
_FILE = "model.safetensors"


class TimmEncoder(Encoder):
    """A feature network of timm; `stages` holds it alone."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) to the list of (N, channels[i], H / strides[i], W / strides[i])."""
        return list(self.stages[0](x))


class _SamePadded(nn.Conv2d):
    """timm's Conv2dSame (TensorFlow's padding) for sides that are multiples of the stride, as here.

    Its padding does not depend on the size: with timm's own, exporting a network for all sizes takes very long.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, K, H / stride, W / stride)."""
        pads: list[int] = []
        for kernel, stride, rate in zip(
            self.kernel_size[::-1], self.stride[::-1], self.dilation[::-1], strict=True
        ):
            total = max((kernel - 1) * rate + 1 - stride, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def build(name: str, in_channels: int, output_stride: int) -> TimmEncoder:
    """An encoder with new weights.

    Args:
        name: "timm:NAME".
        in_channels: bands.
        output_stride: 32, or 16 or 8 where timm's network can be dilated.

    Raises:
        ModelError: timm is not installed or has no such network, or the network is not convolutional or lacks the
            feature maps or the output stride.
    """
    timm, short = _timm(name)
    dilated = {} if output_stride == 32 else {"output_stride": output_stride}
    # networks of all kinds refuse options by exceptions of all kinds
    try:
        network = timm.create_model(
            short, pretrained=False, features_only=True, in_chans=in_channels, **dilated
        )
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        if dilated:
            raise ModelError(
                f"{name} has no output stride {output_stride} ({reason})",
                f"set another encoder, such as {_WORKING}, or an architecture that needs no output stride below 32",
            ) from error
        raise _unfit(name, reason) from error
    for module in network.modules():
        if type(module) is timm.layers.Conv2dSame:
            module.__class__ = _SamePadded
    encoder = TimmEncoder([network], network.feature_info.channels(), network.feature_info.reduction())
    _check(name, encoder, in_channels, output_stride)
    return encoder


def _check(name: str, encoder: TimmEncoder, in_channels: int, output_stride: int) -> None:
    """Check strides and shapes of the feature maps, with an image that is not a square."""
    nominal = [min(stride, output_stride) for stride in (1, 2, 4, 8, 16, 32)]
    if len(encoder.strides) < 4 or encoder.strides != nominal[-len(encoder.strides) :]:
        raise _unfit(name, f"its feature maps have strides {encoder.strides}")
    encoder.eval()
    try:
        with torch.no_grad():
            maps = encoder(torch.zeros(1, in_channels, 64, 96))
    except Exception as error:
        raise _unfit(name, f"{type(error).__name__}: {str(error)[:200]}") from error
    encoder.train()
    wanted = [(1, c, 64 // s, 96 // s) for c, s in zip(encoder.channels, encoder.strides, strict=True)]
    if (found := [tuple(x.shape) for x in maps]) != wanted:
        raise _unfit(name, f"its feature maps have shapes {found} for 64 x 96 pixels instead of {wanted}")


def with_own_keys(encoder: nn.Module, state: dict[str, Tensor], in_channels: int) -> dict[str, Tensor]:
    """Tensors of a whole network of timm under the keys of its feature network.

    Feature networks replace some dots by "_". Filters of red, green and blue become those of `in_channels` bands as in
    `segcore.models.base.encoders.build_encoder`.
    """
    stored, own = {key.replace(".", "_"): value for key, value in state.items()}, {}
    for key, wanted in encoder.state_dict().items():
        flat = re.sub(r"^stages_0_(model_)?", "", key.replace(".", "_"))
        if flat not in stored:
            continue
        value = stored[flat]
        if value.ndim == 4 and value.shape[1] == 3 and wanted.shape[1] == in_channels != 3:
            value = value.mean(1, keepdim=True).expand_as(wanted) * (3 / in_channels)
        own[key] = value
    return own


def pretrained_file(name: str) -> Path:
    """The safetensors file of timm's own pretrained weights, downloaded from its hub or cached there.

    Raises:
        ModelError: timm has no weights for this network, or the hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download

    hub = hub_of(name)
    try:
        return Path(hf_hub_download(hub, _FILE))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the weights of {name} could not be downloaded ({type(error).__name__})",
            f'download {_FILE} of {hub} on a machine with network and set weights to "file:PATH", or to "none"',
        ) from error


def hub_of(name: str) -> str:
    """Name of timm's own pretrained weights in its hub.

    Raises:
        ModelError: timm has no weights for this network.
    """
    hub = _configuration(name).hf_hub_id
    if not hub:
        raise ModelError(f"timm has no pretrained weights for {name}", 'set weights to "none" or "file:PATH"')
    return str(hub)


def normalization(name: str) -> tuple[list[float], list[float]]:
    """Mean and std of red, green and blue, 0 to 255, that timm's weights expect.

    Raises:
        ModelError: timm is not installed or has no such network.
    """
    configuration = _configuration(name)
    return [255 * m for m in configuration.mean], [255 * s for s in configuration.std]


def _configuration(name: str) -> Any:
    timm, short = _timm(name)
    return timm.models.get_pretrained_cfg(short) or timm.models.PretrainedCfg()


def _timm(name: str) -> tuple[Any, str]:
    """The package, and a name that it knows."""
    try:
        import timm
    except ImportError as error:
        missing = missing_package("timm", "timm")
        raise ModelError(f"encoder {name}: {missing.what}", missing.remedy) from error
    short = name.removeprefix(PREFIX)
    # "hf-hub:..." and "local-dir:..." would load what someone else has written
    if not re.fullmatch(r"[\w.\-]+", short) or not timm.is_model(short):
        raise ModelError(
            f"timm has no network {short!r}", f"take a name of timm.list_models(), such as {_WORKING}"
        )
    return timm, short


def _unfit(name: str, reason: str) -> ModelError:
    return ModelError(
        f"{name} cannot be an encoder ({reason})",
        f"set a convolutional network with feature maps at strides 4, 8, 16 and 32, such as {_WORKING}",
    )
