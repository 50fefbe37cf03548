"""Small trainings on the prepared scene, and a way to kill them."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from segcore.data.prepared import PreparedData
from segcore.params import Params, TrainSettings
from segcore.training.build import new_model
from segcore.training.loop import Trained, train


class Killed(BaseException):
    """Stands for kill -9: no code of the training runs after it."""


SMALL: dict[str, dict[str, Any]] = {
    "unet": {"encoder": "plain", "width": 4},
    "deeplab": {"encoder": "mobilenet_v2", "aspp_channels": 8, "dropout": 0.5},
}


def small(architecture: str = "unet", **changes: Any) -> TrainSettings:
    """Settings of a training of six steps with a validation after every second."""
    values = {"weights": "none", "steps": 6, "batch": 2, "crop": 32, "validate_every": 2, "warmup_steps": 1}
    return TrainSettings(**{**values, "model": SMALL[architecture], **changes})


def run(
    prepared_scene: tuple[Params, PreparedData],
    folder: Path,
    architecture: str = "unet",
    kill_at: int | None = None,
    seed: int = 0,
    restarts: list[str] | None = None,
    **changes: Any,
) -> Trained:
    """Train in `folder`, from its checkpoint if there is one.

    Args:
        prepared_scene: the fixture.
        folder: of the checkpoint.
        architecture: one of SMALL.
        kill_at: step after which the training is killed.
        seed: of the training.
        restarts: gets the lines of `on_restart`.
        changes: of the settings.

    Raises:
        Killed: at `kill_at`.
    """
    p, data = prepared_scene
    settings = small(architecture).model_copy(update=changes)
    folder.mkdir(exist_ok=True)

    def on_step(step: int, loss: float) -> None:
        if step == kill_at:
            raise Killed

    on_restart = [].append if restarts is None else restarts.append
    model = new_model(architecture, settings, data, seed)
    return train(model, data, settings, p.prepare.window, seed, folder, on_step, on_restart=on_restart)


def same(a: nn.Module, b: nn.Module) -> bool:
    """Whether two networks have equal tensors."""
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )
