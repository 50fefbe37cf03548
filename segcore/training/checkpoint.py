"""Training state on disk without pickle: one safetensors file, replaced atomically.

Sampler and random state are not stored: both are pure functions of seed and step.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from segcore.errors import ModelError
from segcore.files import atomic_write, save_tensors
from segcore.training.ema import WeightAverage

_NAME = "checkpoint.safetensors"


@dataclass
class TrainingState:
    """Progress of a training, as stored in its checkpoint; JSON-able.

    Attributes:
        step: number of steps done.
        best_score, best_step: of the best validation so far.
        validations_since_best: number of validations since then, for early stopping.
        history: one row per validation.
        seconds: wall time of the training steps.
        runtime: `Runtime` as a dict; None before the first step.
    """

    step: int = 0
    best_score: float = -1.0
    best_step: int = 0
    validations_since_best: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    runtime: dict[str, Any] | None = None


def save(
    folder: Path,
    model: nn.Module,
    best: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
    average: WeightAverage[Any] | None = None,
) -> None:
    """Replace the checkpoint in `folder`; after a kill while saving, the previous one still loads.

    Args:
        folder: existing.
        model: with its current weights.
        best: weights of the best validation so far.
        optimizer: of the training.
        state: progress.
        average: of the weights, if there is one.
    """
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"best.{k}": v for k, v in best.items()}
    if average is not None:
        tensors |= {f"average.{k}": v for k, v in average.state().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(v) for name, v in values.items()}
    copies = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
    with atomic_write(folder / _NAME) as part:
        save_tensors(copies, part, metadata={"state": json.dumps(asdict(state))})


def load(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage[Any] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, Tensor], TrainingState]:
    """Restore model, optimiser and average; they are unchanged if there is no checkpoint to resume from.

    A checkpoint in the format of another version of segflow is not resumed, so that an unattended retraining after an
    upgrade does not fail; the next `save` replaces it.

    Args:
        folder: of the checkpoint.
        model: as when the training started.
        optimizer: of the training.
        average: of the weights, if there is one.
        report: called with one line if a checkpoint is not resumed.

    Returns:
        The best weights so far, and the state; without a checkpoint no weights, and the state of step 0.

    Raises:
        ModelError: the checkpoint is damaged or of another model.
    """
    path = folder / _NAME
    if not path.exists():
        return {}, TrainingState()
    try:
        with safe_open(path, "pt") as file:
            values = json.loads(file.metadata()["state"])
            if _is_other_format(values):
                report(f"{path}: is a checkpoint of another version of segflow; training starts from step 0")
                return {}, TrainingState()
            state = TrainingState(**values)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        model.load_state_dict(_with_prefix(tensors, "model."))
        if average is not None:
            average.load(_with_prefix(tensors, "average."))
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path}: cannot be resumed ({error})", "delete the file to train from the start"
        ) from error
    _load_moments(optimizer, _with_prefix(tensors, "optimizer."))
    return _with_prefix(tensors, "best."), state


def _load_moments(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore the optimiser's state from tensors named `<parameter index>.<name>`."""
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        moments.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, values in moments.items():
        # fused optimisers read weights and moments in memory order, without comparing their layouts
        moments[number] = {
            name: _in_memory_format(value, parameters[number]) for name, value in values.items()
        }
    optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _is_other_format(values: Any) -> bool:
    """Whether a stored state has entries that `TrainingState` does not have, as those of older versions."""
    return isinstance(values, dict) and not values.keys() <= {f.name for f in fields(TrainingState)}


def _in_memory_format(value: Tensor, parameter: Tensor) -> Tensor:
    """The value in the memory format of its parameter; a counter unchanged."""
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, device="cpu").copy_(value)


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name starts with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
