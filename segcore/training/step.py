"""One optimiser step, and losses, which are read from the device several at a time."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from segcore.errors import ModelError
from segcore.inference.device import autocast
from segcore.models.base.instance import InstanceModel
from segcore.models.base.model import SegmentationModel
from segcore.models.base.semantic import SemanticModel
from segcore.params import TrainSettings
from segcore.training.distributed import Distributed
from segcore.training.runtime import Runtime

# Steps between two reads of the losses, each of which waits for the device.
_READ_EVERY = 16
_MAX_GRADIENT_NORM = 5.0


class StepContext(NamedTuple):
    """Arguments that are the same for all steps of a training."""

    settings: TrainSettings
    device: torch.device
    processes: Distributed
    runtime: Runtime


class TrainStep:
    """Optimiser steps of a network; they do not wait for the device.

    With a micro-batch smaller than the batch (`Runtime.micro_batch`), gradients are accumulated, of a semantic network
    weighted by the number of items. Batch norm then uses the statistics of a micro-batch, and Dice is the mean over
    micro-batches, which differs slightly from that of the whole batch. Of an instance network, the weights of the loss
    terms are summed over micro-batches and processes before sums are divided by them.

    Args:
        model: the network in training.
        optimizer: its groups have a `factor` of the learning rate.
        context: settings, device, processes and runtime.
    """

    def __init__(
        self, model: SegmentationModel, optimizer: torch.optim.Optimizer, context: StepContext
    ) -> None:
        self.model, self.optimizer, self.context = model, optimizer, context
        self.forward: nn.Module = torch.compile(model) if context.runtime.compile else model  # type: ignore[assignment]
        self.parameters = list(model.parameters())

    def step(self, batch: dict[str, Tensor], rate: float) -> Tensor:
        """Train on a batch.

        Args:
            batch: this process's items as of `Sampler.batch`, on the device.
            rate: learning rate.

        Returns:
            The loss of the whole batch, a scalar on the device, without gradient.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimizer.zero_grad(set_to_none=True)
        parts = self._parts(batch)
        if isinstance(self.model, InstanceModel):
            losses = self._object_losses(self.model, parts)
        else:
            assert isinstance(self.model, SemanticModel)
            losses = self._pixel_losses(self.model, parts)
        total = None
        for loss in losses:
            loss.backward()
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        if isinstance(self.model, InstanceModel):
            # the loss of a semantic network is computed over the whole batch on each process
            total = self.context.processes.summed({"loss": total})["loss"]
        self.context.processes.add_gradients(self.model)
        nn.utils.clip_grad_norm_(self.parameters, _MAX_GRADIENT_NORM)
        self.optimizer.step()
        return total

    def _parts(self, batch: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """The micro-batches of a batch."""
        context = self.context
        count = -(-len(batch["label"]) // context.runtime.micro_batch) if context.processes.world == 1 else 1
        split = {name: tensor.tensor_split(count) for name, tensor in batch.items()}
        return [{name: tensors[index] for name, tensors in split.items()} for index in range(count)]

    def _pixel_losses(self, model: SemanticModel, parts: list[dict[str, Tensor]]) -> Iterator[Tensor]:
        settings, device, processes, runtime = self.context
        items = sum(len(part["label"]) for part in parts)
        for part in parts:
            with autocast(device, runtime.precision):
                logits = processes.whole_batch(self.forward(part["image"], part["valid"]), settings.batch)
                loss = model.training_loss(logits, processes.whole_batch(part["label"], settings.batch))[
                    "loss"
                ]
            yield loss * (len(part["label"]) / items) if len(parts) > 1 else loss

    def _object_losses(self, model: InstanceModel, parts: list[dict[str, Tensor]]) -> Iterator[Tensor]:
        """Losses whose sum over micro-batches and processes is that of the whole batch."""
        truths = [model.truth(part) for part in parts]
        totals = self.context.processes.summed(_added(model.weights(truth) for truth in truths))
        for part, truth in zip(parts, truths, strict=True):
            with autocast(self.context.device, self.context.runtime.precision):
                terms = model.terms(self.forward(part["image"], part["valid"]), truth)
            yield model.combined(terms, totals)["loss"]


def _added(weights: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The sum of each weight."""
    total: dict[str, Tensor] = {}
    for one in weights:
        total = {name: value + total[name] if total else value for name, value in one.items()}
    return total


def read_every(device: torch.device) -> int:
    """Number of steps between two reads of the losses; 1 on a CPU, where reading does not wait."""
    return 1 if device.type == "cpu" else _READ_EVERY


class Losses:
    """Losses that remain on the device until several are read at once.

    Args:
        title: of the network, for the error message.
        on_step: called with the number of steps done and the loss, in order.
        every: number of losses per read.
    """

    def __init__(self, title: str, on_step: Callable[[int, float], None], every: int) -> None:
        self.title, self.on_step, self.every = title, on_step, every
        self.unread: list[tuple[int, Tensor]] = []
        self.values: list[float] = []

    def add(self, step: int, loss: Tensor) -> None:
        """Add the loss of a step, counted from 1.

        Raises:
            ModelError: this or an earlier unread loss is not finite.
        """
        self.unread.append((step, loss))
        if len(self.unread) >= self.every:
            self.read()

    def read(self) -> None:
        """Read all losses on the device; to be called before weights are validated or saved.

        Raises:
            ModelError: one is not finite.
        """
        if not self.unread:
            return
        unread, self.unread = self.unread, []
        for (step, _), value in zip(unread, torch.stack([loss for _, loss in unread]).tolist(), strict=True):
            if not math.isfinite(value):
                raise ModelError(
                    f"{self.title}: the loss is {value}", "lower train.learning_rate, or check the images"
                )
            self.values.append(value)
            self.on_step(step, value)

    def mean(self) -> float:
        """Mean of all losses since the last call.

        Raises:
            ModelError: one is not finite.
        """
        self.read()
        values, self.values = self.values, []
        return float(np.mean(values))
