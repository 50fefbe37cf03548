"""Transfer learning: initial weights from a network trained on other data, and a frozen encoder in the first steps.

Yosinski et al. 2014, arXiv 1411.1792: layers of a related task are better initial weights than random ones, early
layers more so than late ones, and fine-tuning them is better than freezing them.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segcore.errors import ModelError
from segcore.models.base.model import SegmentationModel

# buffers of the normalisation, which is always that of the new data
_NORMALIZATION = ("mean", "std", "low", "high")


class Transferred(NamedTuple):
    """Names of tensors: copied, and skipped because they do not fit or belong to other classes."""

    copied: list[str]
    skipped: list[str]


def take_over(
    model: SegmentationModel, state: Mapping[str, Tensor], same_classes: bool, source: str
) -> Transferred:
    """Copy the tensors of another network that have the same name and shape into a new one.

    The normalisation is not copied, and with other classes neither are the layers with outputs per class.

    Args:
        model: the new network, changed in place.
        state: state_dict of the other network.
        same_classes: whether its classes are the same, in the same order.
        source: of the weights, for the error message.

    Raises:
        ModelError: less than half of the encoder fits.
    """
    target = model.state_dict()
    copied: list[str] = []
    skipped: list[str] = []
    for name, tensor in target.items():
        if name in _NORMALIZATION:
            continue
        fits = name in state and state[name].shape == tensor.shape
        (copied if fits and (same_classes or not name.startswith(model.class_layers)) else skipped).append(
            name
        )
    encoder = {name: tensor.numel() for name, tensor in target.items() if name.startswith("encoder.")}
    if 2 * sum(encoder.get(name, 0) for name in copied) < sum(encoder.values()):
        raise ModelError(
            f"{source}: less than half of its encoder fits this network",
            "use a model with the same encoder and number of bands, or remove it from start/",
        )
    with torch.no_grad():
        for name in copied:
            target[name].copy_(state[name])
    return Transferred(copied, skipped)


def freeze_encoder(model: nn.Module, frozen: bool) -> None:
    """Freeze or unfreeze the encoder: its weights and the running statistics of batch norm.

    To be called before every step, because after a validation the whole network is in training mode.
    """
    encoder = model.encoder
    assert isinstance(encoder, nn.Module)
    encoder.train(not frozen)
    for parameter in encoder.parameters():
        parameter.requires_grad_(not frozen)
