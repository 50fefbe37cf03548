"""The optimiser of all trainings, and its learning-rate schedule."""

import math

import torch
from torch import nn

from segcore.params import TrainSettings


def make_optimizer(model: nn.Module, settings: TrainSettings, fused: bool = True) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019); lower rate for a pretrained encoder, no decay of norms and biases."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault((name.startswith("encoder."), parameter.ndim > 1), []).append(parameter)
    pretrained = getattr(model, "settings", {}).get("weights", "none") != "none"
    options = []
    for (in_encoder, decays), parameters in groups.items():
        factor = settings.encoder_learning_rate if in_encoder and pretrained else 1.0
        decay = settings.weight_decay if decays else 0.0
        options.append({"params": parameters, "factor": factor, "weight_decay": decay, "lr": 0.0})
    return torch.optim.AdamW(options, fused=fused, foreach=not fused)


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Learning rate of a step, from 0.

    Linear warm-up, then cosine (Loshchilov and Hutter 2017) or poly 0.9 (Chen et al. 2017) decay to 0.
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(settings.steps - settings.warmup_steps, 1)
    decay = (
        0.5 * (1 + math.cos(math.pi * progress)) if settings.schedule == "cosine" else (1 - progress) ** 0.9
    )
    return settings.learning_rate * decay
