"""Start a training from the weights of a network trained on other data, and freeze the encoder at first.

Yosinski et al. 2014, arXiv 1411.1792: layers of a related task are a better start than random ones, the later ones the
less so, and tuning them further is better than leaving them as they are.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segcore.errors import ModelError

# Buffers of the normalisation, which stays that of the new data.
_NORMALIZATION = ("mean", "std", "low", "high")
# Modules whose name begins so have one output channel per class.
_HEAD = "score"


class Transferred(NamedTuple):
    """Names of tensors: taken over, and left out because they do not fit or belong to other classes."""

    taken: list[str]
    left: list[str]


def take_over(model: nn.Module, state: Mapping[str, Tensor], same_classes: bool, source: str) -> Transferred:
    """Copy what fits of another network's weights into a fresh one: tensors of the same name and shape.

    The normalisation stays that of the new data, and what scores classes is left out where these are others.

    Args:
        state: of the other network.
        same_classes: whether its classes are the same, in the same order.
        source: for the message.

    Raises:
        ModelError: less than half of the encoder fits.
    """
    own = model.state_dict()
    taken: list[str] = []
    left: list[str] = []
    for name, tensor in own.items():
        if name in _NORMALIZATION:
            continue
        fits = name in state and state[name].shape == tensor.shape
        (taken if fits and (same_classes or not name.startswith(_HEAD)) else left).append(name)
    encoder = {name: tensor.numel() for name, tensor in own.items() if name.startswith("encoder.")}
    if 2 * sum(encoder.get(name, 0) for name in taken) < sum(encoder.values()):
        raise ModelError(
            f"{source}: less than half of its encoder fits this network",
            "take a model of the same encoder and number of bands, or remove it from start/",
        )
    with torch.no_grad():
        for name in taken:
            own[name].copy_(state[name])
    return Transferred(taken, left)


def freeze_encoder(model: nn.Module, frozen: bool) -> None:
    """Freeze the encoder, weights and running statistics of batch norm, or train it again.

    To be called before every step, because a validation sets all of the network to training mode afterwards.
    """
    encoder = model.encoder
    assert isinstance(encoder, nn.Module)
    encoder.train(not frozen)
    for parameter in encoder.parameters():
        parameter.requires_grad_(not frozen)
