"""One short loop that trains every architecture."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segcore.data.prepared import PreparedData
from segcore.models.base.model import SegmentationModel
from segcore.params import TrainSettings
from segcore.training import checkpoint, distributed
from segcore.training.determinism import Determinism, grade
from segcore.training.distributed import Distributed
from segcore.training.ema import WeightAverage, decay_of
from segcore.training.loader import Loader
from segcore.training.optimizer import learning_rate, make_optimizer
from segcore.training.runtime import Runtime, choose, fitting, resumed
from segcore.training.sampler import Sampler
from segcore.training.step import Losses, StepContext, TrainStep, look_every
from segcore.training.transfer import rest_encoder
from segcore.training.validate import validate


@dataclass(frozen=True)
class Trained:
    """What a training gives.

    Attributes:
        model: with the weights of the best validation.
        history: one row a validation: step, train_loss, learning_rate, val_loss, val_iou, best.
        facts: best_step, steps, precision, nondeterministic (operators without a deterministic form),
            determinism (the grade: bit-exact, or what prevents it), choices (how the machine was used).
        seconds, images: wall time and crops of the training steps, resumed parts added up.
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
    on_start: Callable[[Runtime], None] = lambda choices: None,
) -> Trained:
    """Train from `folder`'s checkpoint if there is one, else from the model as given.

    Killed at any step and resumed, the result is that of the uninterrupted run: crops, augmentation and dropout
    depend on seed and step alone. Under `torchrun` each process trains on its share of every batch
    (segcore/training/distributed.py)
    and returns the same model; the first writes the checkpoints, which all must see.

    Args:
        model: of `new_model`; moved to the device there is.
        window: side of the training windows in pixels.
        folder: for checkpoints, one after each validation.
        on_step: called with steps done and the loss, on a GPU for several steps at once.
        on_validation: called with the history's new row.
        on_start: called with how the machine is used, before the first step.

    Raises:
        ModelError: the loss is not finite, or the checkpoint is damaged.
    """
    fixed, optimizer, average, best, state = _begin(model, data, settings, folder)
    device, share, choices = fixed.device, fixed.share, fixed.choices
    on_start(choices)
    stepper, losses = TrainStep(model, optimizer, fixed), Losses(model.title, on_step, look_every(device))
    feed = Loader(Sampler(data, settings, window, seed), share.of_batch(settings.batch), choices, device)
    model.train()
    with Determinism(settings.deterministic) as named, feed:
        start = time.perf_counter()
        while state["step"] < settings.steps and not _stop(state, settings):
            step, rate = state["step"], learning_rate(state["step"], settings)
            batch = feed.batch(step)
            # dropout: the same after a resume, another in each process
            torch.manual_seed((seed + 1) * 1_000_003 + step + share.rank * 1_000_000_007)
            if settings.freeze_encoder:
                rest_encoder(model, step < settings.freeze_encoder)
            loss = stepper.step(batch, rate)
            average.follow(step + 1)
            state["step"] = step + 1
            losses.add(step + 1, loss)
            if (step + 1) % settings.validate_every == 0 or step + 1 == settings.steps:
                row = {"step": step + 1, "train_loss": losses.mean(), "learning_rate": rate}
                state["seconds"] += time.perf_counter() - start
                best = _validated(average.model, data, fixed, state, row, best)
                if share.is_first:
                    checkpoint.save(folder, model, best, optimizer, state, average)
                on_validation(state["history"][-1])
                start = time.perf_counter()
    model.requires_grad_(True).load_state_dict(best)
    facts = {"best_step": state["best_step"], "steps": state["step"]}
    facts |= {"precision": choices.precision, "nondeterministic": sorted(named)}
    facts |= {"determinism": grade(settings.deterministic, sorted(named)), "choices": choices.as_dict()}
    images = state["step"] * settings.batch
    return Trained(model.eval(), state["history"], facts, state["seconds"], images)


def _begin(
    model: SegmentationModel, data: PreparedData, settings: TrainSettings, folder: Path
) -> tuple[
    StepContext, torch.optim.Optimizer, WeightAverage[SegmentationModel], dict[str, Tensor], dict[str, Any]
]:
    """What does not change, and optimiser, average, best weights and state as they were at the checkpoint."""
    accelerator = distributed.accelerator()
    share, device = Distributed.of(accelerator), accelerator.device
    choices = choose(settings, data, device, share)
    choices.place(model, device)
    share.prepare(model)
    optimizer = make_optimizer(model, settings, choices.fused)
    average = WeightAverage(model, decay_of(settings.ema, settings.steps))
    best, state = checkpoint.load(folder, model, optimizer, average)
    state = state or {"step": 0, "best_iou": -1.0, "best_step": 0, "stale": 0, "history": [], "seconds": 0.0}
    share.require_same(state["step"])
    choices = resumed(state, choices) or fitting(choices, settings, model, share)
    state["choices"] = choices.as_dict()
    choices.apply()
    return StepContext(settings, device, share, choices), optimizer, average, best, state


def _validated(
    model: SegmentationModel,
    data: PreparedData,
    fixed: StepContext,
    state: dict[str, Any],
    row: dict[str, Any],
    best: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Add a row to the history and keep the weights if they are the best so far."""
    loss, iou = validate(model, data, 2 * fixed.settings.crop, fixed.choices.precision, fixed.share)
    better = iou > state["best_iou"]
    state["history"].append({**row, "val_loss": loss, "val_iou": iou, "best": better})
    state["stale"] = 0 if better else state["stale"] + 1
    if better:
        state["best_iou"], state["best_step"] = iou, row["step"]
        return {k: v.detach().to("cpu", copy=True) for k, v in model.state_dict().items()}
    return best


def _stop(state: dict[str, Any], settings: TrainSettings) -> bool:
    return settings.patience is not None and state["stale"] >= settings.patience
