"""Learning-rate range test: the range of useful learning rates, found in one short training.

Smith 2017, arXiv 1506.01186: the learning rate grows from step to step. Where the loss falls fastest, the network
learns most per step; where it rises again, the rate is too high.
"""

import math
from dataclasses import dataclass

import numpy as np

from segcore.data.prepared import PreparedData
from segcore.models.base.model import SegmentationModel
from segcore.params import TrainSettings
from segcore.training import distributed
from segcore.training.build import object_sizes
from segcore.training.distributed import Distributed
from segcore.training.loader import Loader
from segcore.training.optimizer import make_optimizer
from segcore.training.runtime import choose_runtime, fit_micro_batch
from segcore.training.sampler import Sampler
from segcore.training.step import StepContext, TrainStep

# decay of the running mean of losses
_SMOOTH = 0.9
# The test ends when the smoothed loss exceeds its minimum by this factor.
_WORSE = 4.0


@dataclass(frozen=True)
class RangeTest:
    """Result of a learning-rate range test.

    Attributes:
        rates: learning rate of each step, increasing.
        losses: loss of each step.
        smooth: bias-corrected running mean of the losses.
        steepest: rate at which the smoothed loss falls fastest per unit of log(rate): a good learning rate.
        lowest: rate at which the smoothed loss is lowest; training becomes unstable beyond it.
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
    """Train a new model on the training split while the learning rate grows from `low` to `high`.

    The encoder's rate is `encoder_learning_rate` times as high. The test ends early if the loss explodes. The model is
    not usable afterwards.

    Args:
        model: from `training.build.new_model`.
        data: prepared data.
        settings: of the training; its number of steps and its schedule are not used.
        window: side of the training windows in pixels.
        seed: of crops and augmentation.
        steps: number of steps, each with a full batch.
        low: first learning rate.
        high: last learning rate.
    """
    device, processes = distributed.accelerator().device, Distributed()
    instances = model.kind == "instance"
    runtime = choose_runtime(settings, data, device, instances=instances)
    runtime.place(model, device)
    most = object_sizes(data, settings).most if instances else 0
    runtime = fit_micro_batch(runtime, settings, model, processes, most)
    runtime.apply()
    optimizer = make_optimizer(model.train(), settings, runtime.fused)
    stepper = TrainStep(model, optimizer, StepContext(settings, device, processes, runtime))
    rates: list[float] = []
    losses: list[float] = []
    smooth: list[float] = []
    mean = 0.0
    sampler = Sampler(data, settings, window, seed, instances=instances)
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
    """The rates at which a smoothed loss falls fastest and is lowest; slopes are averaged over five steps."""
    values = np.asarray(smooth)
    minimum = int(values.argmin())
    if minimum < 2:
        return rates[minimum], rates[minimum]
    slopes = np.gradient(np.convolve(np.pad(values, 2, mode="edge"), np.full(5, 0.2), "valid"))
    return rates[int(slopes[: minimum + 1].argmin())], rates[minimum]
