"""The number of items of a batch that fit into memory at once."""

import copy
import gc
import math

import psutil
import torch
from torch import Tensor

from segcore.inference.device import autocast
from segcore.models.base.instance import InstanceModel
from segcore.models.base.model import SegmentationModel
from segcore.models.base.semantic import SemanticModel
from segcore.params import TrainSettings

# Fraction of the free memory that may be used: other processes may need more later.
_MEMORY_FRACTION = 0.8
# activations and their gradients
_ACTIVATION_COPIES = 2


def largest(model: SegmentationModel, settings: TrainSettings, precision: str, objects: int = 0) -> int:
    """The largest micro-batch whose forward and backward pass fit: the batch, or a half, a quarter, ... of it.

    On CUDA each size is tried. On a CPU, where running out of memory ends the process, memory is estimated from what
    one item's forward pass keeps for the backward pass.

    Args:
        model: on its device; unchanged, because a copy is used.
        settings: batch and crop.
        precision: "fp32" or "bf16".
        objects: number of objects of each item, for an instance network, whose memory grows with it.
    """
    device, count = next(model.parameters()).device, settings.batch
    trial = copy.deepcopy(model).train()
    while count > 1 and not _fits(trial, settings, count, precision, objects):
        count = -(-count // 2)
    del trial
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return count


def _fits(
    model: SegmentationModel, settings: TrainSettings, count: int, precision: str, objects: int
) -> bool:
    if next(model.parameters()).device.type == "cuda":
        try:
            _loss(model, settings, count, precision, objects).backward()
        except torch.cuda.OutOfMemoryError:
            model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            return False
        return True
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    needed = _ACTIVATION_COPIES * count * kept_bytes(model, settings, precision, objects) + 4 * weights
    return needed <= _MEMORY_FRACTION * psutil.virtual_memory().available


def _loss(
    model: SegmentationModel, settings: TrainSettings, count: int, precision: str, objects: int
) -> Tensor:
    """The loss of `count` crops, of an instance network with this number of objects in each."""
    batch = _example(model, settings, count, objects)
    with autocast(batch["image"].device, precision):
        if isinstance(model, InstanceModel):
            return model.loss(batch)["loss"]
        assert isinstance(model, SemanticModel)
        return model.training_loss(model(batch["image"]), batch["label"])["loss"]


def _example(
    model: SegmentationModel, settings: TrainSettings, count: int, objects: int
) -> dict[str, Tensor]:
    """A batch of equal crops, for an instance network with squares on a grid, which are half of the crop."""
    side, device = settings.crop, next(model.parameters()).device
    image = torch.zeros(count, model.in_channels, side, side, device=device)
    label = torch.zeros(count, side, side, dtype=torch.int64, device=device)
    batch = {"image": image, "label": label}
    if isinstance(model, InstanceModel):
        grid = max(math.ceil(math.sqrt(objects)), 1)
        cell = torch.arange(side, device=device) * grid // side
        # a cell is at least one pixel, of which the first half is of the object
        within = (torch.arange(side, device=device) * grid % side) < max(side / 2, grid)
        numbers = cell[:, None] * grid + cell + 1
        inside = within[:, None] & within & (numbers <= objects)
        batch["instance"] = torch.where(inside, numbers, 0).expand(count, side, side)
        batch["label"] = torch.where(inside, model.foreground[0], model.background).expand(count, side, side)
    return batch


def kept_bytes(model: SegmentationModel, settings: TrainSettings, precision: str, objects: int = 0) -> int:
    """Bytes that one item's forward pass keeps for the backward pass; shared storages are counted once.

    Of an instance network, the loss is counted too. Arguments as of `largest`.
    """
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = _example(model, settings, 1, objects)
    device = batch["image"].device
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), autocast(device, precision):
        # not freed until all are counted: a freed address could be reused by another storage
        kept = model.loss(batch)["loss"] if isinstance(model, InstanceModel) else model(batch["image"])
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    del kept
    return sum(size for address, size in sizes.items() if address not in parameters)
