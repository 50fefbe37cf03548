"""The training loop of all architectures."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segcore.data.prepared import PreparedData
from segcore.models.base.model import SegmentationModel
from segcore.params import TrainSettings
from segcore.training import checkpoint, distributed
from segcore.training.build import object_sizes
from segcore.training.checkpoint import TrainingState
from segcore.training.determinism import Determinism, grade
from segcore.training.distributed import Distributed
from segcore.training.ema import WeightAverage, decay_of
from segcore.training.loader import Loader
from segcore.training.optimizer import learning_rate, make_optimizer
from segcore.training.runtime import Runtime, choose_runtime, fit_micro_batch, resume_runtime
from segcore.training.sampler import Sampler
from segcore.training.step import Losses, StepContext, TrainStep, read_every
from segcore.training.transfer import freeze_encoder
from segcore.training.validate import validate


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    Attributes:
        model: with the weights of the best validation.
        history: one row per validation: step, train_loss, learning_rate, val_loss, val_iou (val_pq of an instance
            network), best.
        facts: best_step, steps, precision, nondeterministic (operators without a deterministic form),
            determinism (see `determinism.grade`), choices (`Runtime` as a dict).
        seconds: wall time of the training steps, over all resumed parts.
        images: number of training crops, over all resumed parts.
    """

    model: SegmentationModel
    history: list[dict[str, Any]]
    facts: dict[str, Any]
    seconds: float
    images: int


def train(
    model: SegmentationModel,
    data: PreparedData,
    settings: TrainSettings,
    window: int,
    seed: int,
    folder: Path,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    on_validation: Callable[[dict[str, Any]], None] = lambda row: None,
    on_start: Callable[[Runtime], None] = lambda runtime: None,
    on_restart: Callable[[str], None] = lambda line: None,
) -> Trained:
    """Train, from the checkpoint in `folder` if there is one.

    A training that is killed at any step and resumed gives the result of an uninterrupted one: crops, augmentation and
    dropout depend on seed and step alone. Under `torchrun` each process trains on its part of every batch
    (segcore/training/distributed.py) and returns the same model; the first writes the checkpoints, which all must be
    able to read.

    Args:
        model: from `new_model`; moved to the device.
        data: prepared data.
        settings: of the training.
        window: side of the training windows in pixels.
        seed: of crops, augmentation and dropout.
        folder: for the checkpoint, which is replaced after each validation.
        on_step: called with the number of steps done and the loss; on a GPU for several steps at once.
        on_validation: called with the new row of the history.
        on_start: called with the runtime before the first step.
        on_restart: called with one line if the checkpoint is of another version of segflow and therefore not resumed.

    Raises:
        ModelError: the loss is not finite, or the checkpoint is damaged.
    """
    training = _begin(model, data, settings, folder, on_restart)
    context, state = training.context, training.state
    on_start(context.runtime)
    part = context.processes.of_batch(settings.batch)
    sampler = Sampler(data, settings, window, seed, instances=model.kind == "instance")
    loader = Loader(sampler, part, context.runtime, context.device)
    losses = Losses(model.title, on_step, read_every(context.device))
    with Determinism(settings.deterministic) as nondeterministic, loader:
        for row in training.rows(model, loader, losses, seed):
            training.validate(data, row)
            if context.processes.is_first:
                training.save(folder, model)
            on_validation(state.history[-1])
    model.requires_grad_(True).load_state_dict(training.best)
    facts = {"best_step": state.best_step, "steps": state.step, "precision": context.runtime.precision}
    facts |= {"nondeterministic": sorted(nondeterministic), "choices": context.runtime.as_dict()}
    facts["determinism"] = grade(settings.deterministic, sorted(nondeterministic))
    return Trained(model.eval(), state.history, facts, state.seconds, state.step * settings.batch)


@dataclass
class _Training:
    """A training between two steps.

    Attributes:
        average: of the weights; validated, and the source of `best`.
        best: weights of the best validation so far; empty before the first.
    """

    context: StepContext
    optimizer: torch.optim.Optimizer
    average: WeightAverage[SegmentationModel]
    best: dict[str, Tensor]
    state: TrainingState

    def rows(
        self, model: SegmentationModel, loader: Loader, losses: Losses, seed: int
    ) -> Iterator[dict[str, Any]]:
        """Train to the end, and yield step, train_loss and learning_rate whenever a validation is due."""
        settings, state = self.context.settings, self.state
        stepper = TrainStep(model, self.optimizer, self.context)
        model.train()
        start = time.perf_counter()
        while state.step < settings.steps and not _stops_early(state, settings):
            step, rate = state.step, learning_rate(state.step, settings)
            batch = loader.batch(step)
            # for dropout: the same after a resume, different on each process
            torch.manual_seed((seed + 1) * 1_000_003 + step + self.context.processes.rank * 1_000_000_007)
            if settings.freeze_encoder:
                freeze_encoder(model, step < settings.freeze_encoder)
            loss = stepper.step(batch, rate)
            self.average.follow(step + 1)
            state.step = step + 1
            losses.add(step + 1, loss)
            if (step + 1) % settings.validate_every == 0 or step + 1 == settings.steps:
                row = {"step": step + 1, "train_loss": losses.mean(), "learning_rate": rate}
                state.seconds += time.perf_counter() - start
                yield row
                start = time.perf_counter()

    def validate(self, data: PreparedData, row: dict[str, Any]) -> None:
        """Validate, add a row to the history, and keep the weights if they are the best so far."""
        context, state, model = self.context, self.state, self.average.model
        loss, score = validate(model, data, context.settings, context.runtime.precision, context.processes)
        better = score > state.best_score or self._is_tie_with_lower_loss(score, loss)
        state.history.append({**row, "val_loss": loss, f"val_{model.score_name}": score, "best": better})
        state.validations_since_best = 0 if better else state.validations_since_best + 1
        if better:
            state.best_score, state.best_step = score, row["step"]
            self.best = {k: v.detach().to("cpu", copy=True) for k, v in model.state_dict().items()}

    def _is_tie_with_lower_loss(self, score: float, loss: float) -> bool:
        """Whether an instance network scores as the best one so far, with a lower loss: at first, PQ is often 0."""
        if self.average.model.kind != "instance" or score != self.state.best_score:
            return False
        best = next(row for row in reversed(self.state.history) if row["best"])
        return loss < float(best["val_loss"])

    def save(self, folder: Path, model: SegmentationModel) -> None:
        """Write the checkpoint."""
        checkpoint.save(folder, model, self.best, self.optimizer, self.state, self.average)


def _begin(
    model: SegmentationModel,
    data: PreparedData,
    settings: TrainSettings,
    folder: Path,
    on_restart: Callable[[str], None],
) -> _Training:
    """The training at its checkpoint, or before its first step."""
    accelerator = distributed.accelerator()
    processes, device = Distributed.of(accelerator), accelerator.device
    instances = model.kind == "instance"
    runtime = choose_runtime(settings, data, device, processes, instances=instances)
    runtime.place(model, device)
    processes.prepare(model)
    optimizer = make_optimizer(model, settings, runtime.fused)
    average = WeightAverage(model, decay_of(settings.ema, settings.steps))
    best, state = checkpoint.load(folder, model, optimizer, average, on_restart)
    processes.require_same(state.step)
    resumed = resume_runtime(state.runtime, runtime)
    most = object_sizes(data, settings).most if instances else 0
    runtime = resumed or fit_micro_batch(runtime, settings, model, processes, most)
    state.runtime = runtime.as_dict()
    runtime.apply()
    return _Training(StepContext(settings, device, processes, runtime), optimizer, average, best, state)


def _stops_early(state: TrainingState, settings: TrainSettings) -> bool:
    return settings.patience is not None and state.validations_since_best >= settings.patience
