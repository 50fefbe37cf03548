"""How many items of a batch fit into memory at once."""

import copy
import gc

import psutil
import torch
from torch import Tensor

from segcore.inference.device import autocast
from segcore.models.base.model import SegmentationModel
from segcore.params import TrainSettings

# Fraction of the free memory that may be used; other processes may grow.
_MEMORY_FRACTION = 0.8
# Activations, and their gradients.
_TWICE = 2


def largest(model: SegmentationModel, settings: TrainSettings, precision: str) -> int:
    """The batch, or a half, a quarter, ... of it: the most items whose forward and backward pass fit.

    On CUDA each is tried. On a CPU, where running out of memory ends the process, it is estimated from what one item's
    forward pass keeps for the backward pass.

    Args:
        model: on its device; a copy of it is tried, so that it stays as it is.
    """
    device, count = next(model.parameters()).device, settings.batch
    trial = copy.deepcopy(model).train()
    while count > 1 and not _fits(trial, settings, count, precision, device):
        count = -(-count // 2)
    del trial
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return count


def _fits(
    model: SegmentationModel, settings: TrainSettings, count: int, precision: str, device: torch.device
) -> bool:
    if device.type == "cuda":
        try:
            _pass(model, settings, count, precision, device)
        except torch.cuda.OutOfMemoryError:
            model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            return False
        return True
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    needed = _TWICE * count * kept_bytes(model, settings, precision) + 4 * weights
    return needed <= _MEMORY_FRACTION * psutil.virtual_memory().available


def _pass(
    model: SegmentationModel, settings: TrainSettings, count: int, precision: str, device: torch.device
) -> None:
    image = torch.zeros(count, model.in_channels, settings.crop, settings.crop, device=device)
    label = torch.zeros(count, settings.crop, settings.crop, dtype=torch.int64, device=device)
    with autocast(device, precision):
        loss = model.criterion(model(image), label)["loss"]
    loss.backward()


def kept_bytes(model: SegmentationModel, settings: TrainSettings, precision: str) -> int:
    """Bytes that one item's forward pass keeps for the backward pass; storages that several share count once."""
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return tensor

    device = next(model.parameters()).device
    image = torch.zeros(1, model.in_channels, settings.crop, settings.crop, device=device)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), autocast(device, precision):
        # Kept until all are counted, because freed storages could be reused at the same address.
        kept = model(image)
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    del kept
    return sum(size for address, size in found.items() if address not in parameters)
