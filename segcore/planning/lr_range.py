"""Learning-rate range test: which rates teach a network something, found in one short training.

Smith 2017, arXiv 1506.01186: the rate grows from step to step; where the loss falls fastest the network learns most a
step, and where it rises again the rate is too high.
"""

import math
from dataclasses import dataclass

import numpy as np

from segcore.data.prepared import PreparedData
from segcore.models.base.model import SegmentationModel
from segcore.params import TrainSettings
from segcore.training import distributed
from segcore.training.distributed import Distributed
from segcore.training.loader import Loader
from segcore.training.optimizer import make_optimizer
from segcore.training.runtime import choose_runtime, fit_micro_batch
from segcore.training.sampler import Sampler
from segcore.training.step import StepContext, TrainStep

_SMOOTH = 0.9  # of the running mean of losses
_WORSE = 4.0  # times the lowest loss: nothing more is to be learnt of higher rates


@dataclass(frozen=True)
class RangeTest:
    """
    Attributes:
        rates: of each step, growing.
        losses: of each step, as they were; `smooth` their bias-corrected running mean.
        steepest: the rate at which the smoothed loss falls fastest, a step up in the rate's logarithm: a good
            one to train with.
        lowest: the rate at which the smoothed loss is least, beyond which training becomes unstable.
    """

    rates: list[float]
    losses: list[float]
    smooth: list[float]
    steepest: float
    lowest: float


def range_test(
    model: SegmentationModel,
    data: PreparedData,
    settings: TrainSettings,
    window: int,
    seed: int = 0,
    steps: int = 60,
    low: float = 1e-5,
    high: float = 0.1,
) -> RangeTest:
    """Train a fresh model on the training split while the rate grows from `low` to `high`; it is of no use afterwards.

    The encoder's rate grows along, `encoder_learning_rate` times as high. The test ends early where the loss explodes.

    Args:
        model: of `training.new_model`.
        steps: each with the batch of a training.
        low, high: learning rates.
    """
    device, processes = distributed.accelerator().device, Distributed()
    runtime = choose_runtime(settings, data, device)
    runtime.place(model, device)
    runtime = fit_micro_batch(runtime, settings, model)
    runtime.apply()
    optimizer = make_optimizer(model.train(), settings, runtime.fused)
    stepper = TrainStep(model, optimizer, StepContext(settings, device, processes, runtime))
    rates: list[float] = []
    losses: list[float] = []
    smooth: list[float] = []
    mean = 0.0
    sampler = Sampler(data, settings, window, seed)
    with Loader(sampler, processes.of_batch(settings.batch), runtime, device) as loader:
        for step in range(steps):
            rate = low * (high / low) ** (step / max(steps - 1, 1))
            value = float(stepper.step(loader.batch(step), rate))
            if not math.isfinite(value):
                break
            mean = _SMOOTH * mean + (1 - _SMOOTH) * value
            rates.append(rate)
            losses.append(value)
            smooth.append(mean / (1 - _SMOOTH ** (step + 1)))
            if smooth[-1] > _WORSE * min(smooth):
                break
    return RangeTest(rates, losses, smooth, *suggestions(rates, smooth))


def suggestions(rates: list[float], smooth: list[float]) -> tuple[float, float]:
    """The rates at which a smoothed loss falls fastest and at which it is least; slopes over five steps."""
    values = np.asarray(smooth)
    least = int(values.argmin())
    if least < 2:
        return rates[least], rates[least]
    slopes = np.gradient(np.convolve(np.pad(values, 2, mode="edge"), np.full(5, 0.2), "valid"))
    return rates[int(slopes[: least + 1].argmin())], rates[least]
