"""One optimiser step, and losses, which are read from the device several at a time."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from segcore.errors import ModelError
from segcore.inference.device import autocast
from segcore.models.base.model import SegmentationModel
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

    With a micro-batch smaller than the batch (`Runtime.micro_batch`), gradients are accumulated, weighted by the number
    of items. Batch norm then uses the statistics of a micro-batch, and Dice is the mean over micro-batches, which
    differs slightly from that of the whole batch.

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
            batch: this process's items: image (N, C, H, W), label and valid (N, H, W), on the device.
            rate: learning rate.

        Returns:
            The loss, a scalar on the device, without gradient.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimizer.zero_grad(set_to_none=True)
        items = len(batch["label"])
        context = self.context
        parts = -(-items // context.runtime.micro_batch) if context.processes.world == 1 else 1
        total = None
        for part in zip(
            *(batch[name].tensor_split(parts) for name in ("image", "valid", "label")), strict=True
        ):
            loss = self._loss(*part)
            if parts > 1:
                loss = loss * (len(part[0]) / items)
            loss.backward()
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        context.processes.add_gradients(self.model)
        nn.utils.clip_grad_norm_(self.parameters, _MAX_GRADIENT_NORM)
        self.optimizer.step()
        return total

    def _loss(self, image: Tensor, valid: Tensor, label: Tensor) -> Tensor:
        settings, device, processes, runtime = self.context
        with autocast(device, runtime.precision):
            logits = processes.whole_batch(self.forward(image, valid), settings.batch)
            return self.model.criterion(logits, processes.whole_batch(label, settings.batch))["loss"]


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
