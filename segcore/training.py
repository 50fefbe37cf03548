"""One short loop that trains every architecture."""

import math
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from segcore import checkpoint, sharing
from segcore.augment import Sampler
from segcore.constants import IGNORE
from segcore.dataset import PreparedData
from segcore.errors import ModelError
from segcore.inference import autocast, choose_precision, predict_patch
from segcore.losses import build_loss
from segcore.models import build_model
from segcore.models._base import SegmentationModel
from segcore.params import TrainSettings
from segcore.sharing import Share
from segcore.weights import imagenet_normalization

_NONDETERMINISTIC = "does not have a deterministic implementation"


@dataclass(frozen=True)
class Trained:
    """What a training gives.

    Attributes:
        model: with the weights of the best validation.
        history: one row a validation: step, train_loss, learning_rate, val_loss, val_iou, best.
        facts: best_step, steps, precision, nondeterministic (operators without a deterministic form).
        seconds, images: wall time and crops of the training steps, resumed parts added up.
    """

    model: SegmentationModel
    history: list[dict[str, Any]]
    facts: dict[str, Any]
    seconds: float
    images: int


def class_weights(settings: TrainSettings, data: PreparedData) -> list[float] | None:
    """Median-frequency weights of the training split (Eigen and Fergus 2015), or None."""
    if settings.class_weights == "none":
        return None
    pixels = np.asarray(data.statistics["class_pixels"], dtype=float)
    weights = np.where(pixels > 0, np.median(pixels[pixels > 0]) / np.maximum(pixels, 1), 0)
    return [float(w) for w in weights]


def normalization(weights: str, data: PreparedData) -> tuple[list[float], list[float]]:
    """Mean and std a band: those that pretrained encoders expect of 8-bit RGB, else of the training split."""
    whole_range = data.statistics["range"] is None and (data.items["dtype"] == "uint8").all()
    if weights != "none" and data.bands == 3 and whole_range:
        return imagenet_normalization()
    return data.statistics["mean"], data.statistics["std"]


def new_model(architecture: str, settings: TrainSettings, data: PreparedData, seed: int) -> SegmentationModel:
    """An untrained model with its encoder's weights, normalisation and loss.

    Raises:
        ModelError: unknown keywords, or weights that cannot be had.
    """
    torch.manual_seed(seed)
    keywords = {"encoder": settings.encoder, "weights": settings.weights, **settings.model}
    model = build_model(architecture, data.bands, len(data.classes), **keywords)
    model.set_normalization(*normalization(settings.weights, data))
    if data.statistics["range"] is not None:
        model.set_range(*data.statistics["range"])
    model.criterion = build_loss(settings.loss, class_weights(settings, data))
    return model


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019); the encoder learns slower, norms and biases do not decay."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault((name.startswith("encoder."), parameter.ndim > 1), []).append(parameter)
    pretrained = getattr(model, "settings", {}).get("weights", "none") != "none"
    options = []
    for (in_encoder, decays), parameters in groups.items():
        factor = settings.encoder_learning_rate if in_encoder and pretrained else 1.0
        decay = settings.weight_decay if decays else 0.0
        options.append({"params": parameters, "factor": factor, "weight_decay": decay, "lr": 0.0})
    return torch.optim.AdamW(options, foreach=True)


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Linear warm-up, then cosine (Loshchilov and Hutter 2017) or poly 0.9 (Chen et al. 2017) decay to 0."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(settings.steps - settings.warmup_steps, 1)
    decay = 0.5 * (1 + math.cos(math.pi * done)) if settings.schedule == "cosine" else (1 - done) ** 0.9
    return settings.learning_rate * decay


def validate(
    model: SegmentationModel, data: PreparedData, tile: int, precision: str, share: Share | None = None
) -> tuple[float, float]:
    """Loss (mean over pixels) and pooled foreground mean IoU on the validation regions, as in evaluation.

    With several processes each region is read by one of them, and by no other to fill up; sums are taken in the
    order of regions, so that the same weights give the same numbers however many processes there are.
    """
    share = share or Share()
    classes, rows = model.num_classes, []
    regions = list(enumerate(data.regions.loc[data.regions["split"] == "validation", "id"]))
    for index, region in regions[share.rank :: share.world]:
        patch = data.read(region)
        probabilities = predict_patch(model, patch, tile, min(64, tile // 4), precision)
        scored = patch.label != IGNORE
        logits = torch.from_numpy(probabilities).clamp_min(1e-12).log()[None]  # softmax of log p is p
        loss = model.criterion(logits, torch.from_numpy(patch.label).long()[None])["loss"]
        pair = patch.label[scored].astype(np.int64) * classes + probabilities.argmax(0)[scored]
        counts = np.bincount(pair, minlength=classes**2).reshape(classes, classes)
        rows.append((index, float(loss), int(scored.sum()), counts))
    total, pixels, confusion = 0.0, 0, np.zeros((classes, classes), dtype=np.int64)
    for _, loss_mean, count, counts in sorted(share.gathered(rows), key=lambda row: row[0]):
        total, pixels, confusion = total + loss_mean * count, pixels + count, confusion + counts
    hit = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hit
    iou = np.where(union > 0, hit / np.maximum(union, 1), 1.0)[data.foreground]
    return total / max(pixels, 1), float(iou.mean())


class _Fixed(NamedTuple):
    """What stays the same from step to step."""

    settings: TrainSettings
    accelerator: Accelerator
    share: Share
    precision: str


def _step(
    model: SegmentationModel,
    batch: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    rate: float,
    fixed: _Fixed,
) -> float:
    settings, accelerator, share, precision = fixed
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    batch = {k: v.to(accelerator.device, non_blocking=True) for k, v in batch.items()}
    with autocast(accelerator.device, precision):
        logits = share.whole_batch(model(batch["image"], batch["valid"]), settings.batch)
        loss = model.criterion(logits, share.whole_batch(batch["label"], settings.batch))["loss"]
    if not torch.isfinite(loss):
        raise ModelError(
            f"{model.title}: the loss is {loss.item()}", "lower train.learning_rate, or check the images"
        )
    optimizer.zero_grad(set_to_none=True)
    accelerator.backward(loss)
    share.add_gradients(model)
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    return loss.item()


def train(
    model: SegmentationModel,
    data: PreparedData,
    settings: TrainSettings,
    window: int,
    seed: int,
    folder: Path,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    on_validation: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Trained:
    """Train from `folder`'s checkpoint if there is one, else from the model as given.

    Killed at any step and resumed, the result is that of the uninterrupted run: crops, augmentation and dropout
    depend on seed and step alone. Under `torchrun` each process trains on its share of every batch (segcore/sharing.py)
    and returns the same model; the first writes the checkpoints, which all must see.

    Args:
        model: of `new_model`; moved to the device there is.
        window: side of the training windows in pixels.
        folder: for checkpoints, one after each validation.
        on_step: called with steps done and the loss; on_validation: with the history's new row.

    Raises:
        ModelError: the loss is not finite, or the checkpoint is damaged.
    """
    accelerator = sharing.accelerator()
    share = Share.of(accelerator)
    fixed = _Fixed(settings, accelerator, share, choose_precision(settings.precision, accelerator.device))
    model = model.to(accelerator.device).to(memory_format=torch.channels_last)
    share.prepare(model)
    optimizer, sampler = make_optimizer(model, settings), Sampler(data, settings, window, seed)
    best, state = checkpoint.load(folder, model, optimizer)
    state = state or {"step": 0, "best_iou": -1.0, "best_step": 0, "stale": 0, "history": [], "seconds": 0.0}
    share.require_same(state["step"])
    part = share.of_batch(settings.batch)
    model.train()
    with _Determinism(settings.deterministic) as named, ThreadPoolExecutor(1) as ahead:
        batch, losses, start = ahead.submit(sampler.batch, state["step"], part), [], time.perf_counter()
        while state["step"] < settings.steps and not _stop(state, settings):
            step = state["step"]
            # dropout: the same after a resume, another in each process
            torch.manual_seed((seed + 1) * 1_000_003 + step + share.rank * 1_000_000_007)
            current, batch = batch.result(), ahead.submit(sampler.batch, step + 1, part)
            rate = learning_rate(step, settings)
            losses.append(_step(model, current, optimizer, rate, fixed))
            state["step"] = step + 1
            on_step(step + 1, losses[-1])
            if (step + 1) % settings.validate_every == 0 or step + 1 == settings.steps:
                state["seconds"] += time.perf_counter() - start
                row = {"step": step + 1, "train_loss": float(np.mean(losses)), "learning_rate": rate}
                best = _validated(model, data, fixed, state, row, best)
                if share.is_first:
                    checkpoint.save(folder, model, best, optimizer, state)
                on_validation(state["history"][-1])
                losses, start = [], time.perf_counter()
    model.load_state_dict(best)
    facts = {"best_step": state["best_step"], "steps": state["step"]}
    facts |= {"precision": fixed.precision, "nondeterministic": sorted(named)}
    images = state["step"] * settings.batch
    return Trained(model.eval(), state["history"], facts, state["seconds"], images)


def _validated(
    model: SegmentationModel,
    data: PreparedData,
    fixed: _Fixed,
    state: dict[str, Any],
    row: dict[str, Any],
    best: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Add a row to the history and keep the weights if they are the best so far."""
    loss, iou = validate(model, data, 2 * fixed.settings.crop, fixed.precision, fixed.share)
    better = iou > state["best_iou"]
    state["history"].append({**row, "val_loss": loss, "val_iou": iou, "best": better})
    state["stale"] = 0 if better else state["stale"] + 1
    if better:
        state["best_iou"], state["best_step"] = iou, row["step"]
        return {k: v.detach().to("cpu", copy=True) for k, v in model.state_dict().items()}
    return best


def _stop(state: dict[str, Any], settings: TrainSettings) -> bool:
    return settings.patience is not None and state["stale"] >= settings.patience


class _Determinism:
    """Deterministic algorithms where there are any; operators without one are named, not hidden."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self.names: set[str] = set()

    def __enter__(self) -> set[str]:
        torch.use_deterministic_algorithms(self.wanted, warn_only=True)
        # Filling fresh tensors with NaN finds bugs in operators; it costs a sixth of a step here.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        self._catch = warnings.catch_warnings(record=True)
        self._caught = self._catch.__enter__()
        warnings.simplefilter("always")
        return self.names

    def __exit__(self, *exception: object) -> None:
        self._catch.__exit__(None, None, None)
        for caught in self._caught or []:
            text = str(caught.message)
            if _NONDETERMINISTIC in text:
                self.names.add(text.split(" ")[0])
            else:
                warnings.warn_explicit(caught.message, caught.category, caught.filename, caught.lineno)
        torch.use_deterministic_algorithms(False)
