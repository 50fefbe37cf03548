"""Training on several processes, started by `torchrun`: each takes a part of every batch.

On each process the loss is computed over the logits of the whole batch and batch norm over the activations of all
processes; gradients are summed. Results therefore agree with those of a single process to float rounding, except that
dropout draws other masks. A single process skips all of this.
"""

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from segcore.errors import ModelError, ParamsError


def accelerator() -> Accelerator:
    """The device of this process, and under `torchrun` its rank: NCCL on GPUs, gloo on CPUs."""
    divided = "LOCAL_RANK" in os.environ
    # On CPUs accelerate joins the process group only with cpu=True.
    return Accelerator(cpu=divided and not torch.cuda.is_available())


@dataclass(frozen=True)
class Distributed:
    """The process group of a training: this process's part of every batch, and the communication with the others.

    Attributes:
        rank: number of this process, from 0.
        world: number of processes.
    """

    rank: int = 0
    world: int = 1

    @classmethod
    def of(cls, process: Accelerator) -> "Distributed":
        """The process group that `process` belongs to."""
        return cls(process.process_index, process.num_processes)

    @property
    def is_first(self) -> bool:
        """Whether this process writes checkpoints, runs and the bundle."""
        return self.rank == 0

    def of_batch(self, batch: int, rank: int | None = None) -> slice:
        """Slice of a batch for this process (or for `rank`); sizes differ by one at most.

        Raises:
            ParamsError: there are fewer items than processes.
        """
        if batch < self.world:
            raise ParamsError(
                f"a batch of {batch} cannot be divided among {self.world} processes",
                "raise train.batch, or start fewer processes",
            )
        rank = self.rank if rank is None else rank
        return slice(rank * batch // self.world, (rank + 1) * batch // self.world)

    def whole_batch(self, part: Tensor, batch: int) -> Tensor:
        """Concatenate the tensors (n, ...) of all processes to (batch, ...); gradients reach this process's part only.

        Summed over processes (`add_gradients`), these gradients are those of the whole batch.
        """
        if self.world == 1:
            return part
        counts = [(s := self.of_batch(batch, rank)).stop - s.start for rank in range(self.world)]
        # gloo does not support bfloat16
        part = _as_float32(part)
        padded = part.new_zeros(max(counts), *part.shape[1:])
        padded[: len(part)] = part.detach()
        received = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(received, padded)
        parts = [tensor[:count] for tensor, count in zip(received, counts, strict=True)]
        parts[self.rank] = part
        return torch.cat(parts)

    def add_gradients(self, model: nn.Module) -> None:
        """Replace every gradient by its sum over processes, in one message."""
        if self.world == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, summed in zip(
            gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True
        ):
            gradient.copy_(summed.view_as(gradient))

    def summed(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """The sum of each scalar over processes, in one message."""
        if self.world == 1:
            return values
        flat = torch.stack([value.float() for value in values.values()])
        dist.all_reduce(flat)
        return dict(zip(values, flat.unbind(), strict=True))

    def gathered(self, rows: list[Any]) -> list[Any]:
        """The rows of all processes, in the order of ranks."""
        return rows if self.world == 1 else list(gather_object(rows))

    def prepare(self, model: nn.Module) -> None:
        """Replace batch norm by one over the batches of all processes, and copy rank 0's weights to all."""
        if self.world == 1:
            return
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                # also DeepLab's subclass, which differs only for a batch of one item, and that cannot be divided
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, _SharedBatchNorm.like(child))
        with torch.no_grad():
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, 0)

    def require_same(self, step: int) -> None:
        """Check that all processes resume from the same step.

        Raises:
            ModelError: they have different checkpoints.
        """
        steps = self.gathered([step])
        if len(set(steps)) > 1:
            raise ModelError(
                f"the processes have checkpoints of different steps: {steps}",
                "give all of them access to the same folder work/checkpoints, or delete it everywhere",
            )


def _as_float32(x: Tensor) -> Tensor:
    """Half-precision values as float32; other dtypes unchanged."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class _Sum(torch.autograd.Function):
    """The sum over processes; the gradient of each term is the sum of the gradients of all processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        summed = x.detach().clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        summed = gradient.contiguous().clone()
        dist.all_reduce(summed)
        return summed


class _SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batches of all processes, which may differ in size.

    torch's SyncBatchNorm does the same (Zhang et al. 2018), but does not run on CPUs, where tests run.
    """

    @classmethod
    def like(cls, other: nn.BatchNorm2d) -> "_SharedBatchNorm":
        copy = cls(other.num_features, other.eps, other.momentum, other.affine, other.track_running_stats)
        # the same parameter objects, because an optimiser may refer to them
        copy.weight, copy.bias = other.weight, other.bias
        copy._buffers.update(other._buffers)
        return copy.train(other.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W); statistics are float32, as in torch."""
        if not self.training:
            return super().forward(x)
        pixels = _as_float32(x)
        count = pixels.new_tensor([pixels.numel() / pixels.shape[1]])
        sums = _Sum.apply(torch.cat([pixels.sum((0, 2, 3)), count]))
        total, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        centred = pixels - mean[:, None, None]
        # from centred values, because differences of large squares lose digits
        variance = _Sum.apply(centred.square().sum((0, 2, 3))) / total
        if self.running_mean is not None and self.running_var is not None:
            self._update_running_statistics(
                mean.detach(), variance.detach() * total / (total - 1).clamp_min(1)
            )
        scale = self.weight * torch.rsqrt(variance + self.eps)
        normalized: Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return normalized.to(x.dtype)

    def _update_running_statistics(self, mean: Tensor, variance: Tensor) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        keep = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, keep)
        self.running_var.lerp_(variance, keep)
