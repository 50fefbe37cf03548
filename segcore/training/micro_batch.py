"""The number of items of a batch that fit into memory at once."""

import copy
import gc

import psutil
import torch
from torch import Tensor

from segcore.inference.device import autocast
from segcore.models.base.model import SegmentationModel
from segcore.models.base.semantic import SemanticModel
from segcore.params import TrainSettings

# Fraction of the free memory that may be used: other processes may need more later.
_MEMORY_FRACTION = 0.8
# activations and their gradients
_ACTIVATION_COPIES = 2


def largest(model: SegmentationModel, settings: TrainSettings, precision: str) -> int:
    """The largest micro-batch whose forward and backward pass fit: the batch, or a half, a quarter, ... of it.

    On CUDA each size is tried. On a CPU, where running out of memory ends the process, memory is estimated from what
    one item's forward pass keeps for the backward pass.

    Args:
        model: on its device; unchanged, because a copy is used.
        settings: batch and crop.
        precision: "fp32" or "bf16".
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
    needed = _ACTIVATION_COPIES * count * kept_bytes(model, settings, precision) + 4 * weights
    return needed <= _MEMORY_FRACTION * psutil.virtual_memory().available


def _pass(
    model: SegmentationModel, settings: TrainSettings, count: int, precision: str, device: torch.device
) -> None:
    assert isinstance(model, SemanticModel)
    image = torch.zeros(count, model.in_channels, settings.crop, settings.crop, device=device)
    label = torch.zeros(count, settings.crop, settings.crop, dtype=torch.int64, device=device)
    with autocast(device, precision):
        loss = model.criterion(model(image), label)["loss"]
    loss.backward()


def kept_bytes(model: SegmentationModel, settings: TrainSettings, precision: str) -> int:
    """Bytes that one item's forward pass keeps for the backward pass; shared storages are counted once."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    device = next(model.parameters()).device
    image = torch.zeros(1, model.in_channels, settings.crop, settings.crop, device=device)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), autocast(device, precision):
        # not freed until all are counted: a freed address could be reused by another storage
        kept = model(image)
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    del kept
    return sum(size for address, size in sizes.items() if address not in parameters)
