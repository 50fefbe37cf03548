"""Training state on disk without pickle: one safetensors file, replaced atomically.

Sampler and random state need no place here: both are pure functions of seed and step.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from segcore.errors import ModelError
from segcore.files import atomic_write, save_tensors
from segcore.training.ema import WeightAverage

_NAME = "checkpoint.safetensors"


def save(
    folder: Path,
    model: nn.Module,
    best: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    average: WeightAverage[Any] | None = None,
) -> None:
    """Replace the checkpoint in `folder`; killed while saving, the one before still loads.

    Args:
        best: weights of the best validation so far.
        state: JSON-able: step, best score, history, seconds.
        average: of the weights, where there is one.
    """
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"best.{k}": v for k, v in best.items()}
    if average is not None:
        tensors |= {f"average.{k}": v for k, v in average.state().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(v) for name, v in values.items()}
    copies = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
    with atomic_write(folder / _NAME) as part:
        save_tensors(copies, part, metadata={"state": json.dumps(state)})


def load(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage[Any] | None = None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Restore model, optimiser and average; best weights and state are returned, both empty without a checkpoint.

    Raises:
        ModelError: the checkpoint is damaged or of another model.
    """
    path = folder / _NAME
    if not path.exists():
        return {}, {}
    try:
        with safe_open(path, "pt") as file:
            state = json.loads(file.metadata()["state"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        model.load_state_dict(_under(tensors, "model."))
        if average is not None:
            average.load(_under(tensors, "average."))
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"{path}: cannot be resumed ({error})", "delete the file to train from the start"
        ) from error
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in _under(tensors, "optimizer.").items():
        index, _, name = key.partition(".")
        moments.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, values in moments.items():
        # fused optimisers run through weights and moments as they lie in memory, and compare no layouts
        moments[number] = {name: _laid_out(value, parameters[number]) for name, value in values.items()}
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
    return _under(tensors, "best."), state


def _laid_out(value: Tensor, parameter: Tensor) -> Tensor:
    """The value in the memory format of its parameter; a counter as it is."""
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, device="cpu").copy_(value)


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
