"""Weights averaged over the steps of a training.

An exponential moving average of the weights is validated and saved instead of them. It is closer to the centre of the
region in which the last steps move: Polyak and Juditsky 1992, doi 10.1137/0330046; for networks that segment or
classify, Tarvainen and Valpola 2017, arXiv 1703.01780.
"""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

# The time constant is a twentieth of the steps: long enough to smooth the noise of batches, short enough to forget the
# first steps. docs/notes/tuning.md has the measurement.
_TIME_CONSTANTS = 20
_MAX_DECAY = 0.9999

Network = TypeVar("Network", bound=nn.Module)


def decay_of(setting: float | str | None, steps: int) -> float:
    """Decay of the average per step, in 0..1; 0: no average.

    Args:
        setting: "auto" (a time constant of a twentieth of the steps), the decay itself, or None.
        steps: of the training.
    """
    if setting == "auto":
        return min(max(1 - _TIME_CONSTANTS / steps, 0.0), _MAX_DECAY)
    return float(setting or 0.0)


class WeightAverage(Generic[Network]):
    """A moving average of a network's parameters and batch norm's running statistics.

    Integer counters are copied. The first steps weigh more, so that the untrained weights are soon
    forgotten: the decay is at most `(1 + n) / (10 + n)` at the n-th step, as in TensorFlow's ExponentialMovingAverage.

    Args:
        model: the network in training, on its device.
        decay: from `decay_of`; with 0 the average is the network itself, and nothing is copied.
    """

    def __init__(self, model: Network, decay: float) -> None:
        self.decay = decay
        self.model: Network = copy.deepcopy(model) if decay > 0 else model
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Update the average after a step.

        Args:
            step: steps done, from 1.
        """
        if self.decay <= 0:
            return
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        means, values = ([pair[i] for pair in self._averaged] for i in (0, 1))
        torch._foreach_lerp_(means, values, weight)
        for mean, value in self._copied:
            mean.copy_(value)

    def state(self) -> dict[str, Tensor]:
        """Tensors for a checkpoint; empty if there is no average."""
        return dict(self.model.state_dict()) if self.decay > 0 else {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore the average from `state`.

        Raises:
            RuntimeError: `state` is of another network, or empty although there is an average.
        """
        if self.decay > 0:
            self.model.load_state_dict(state)
