"""How long trainings will take: by their first steps, or by the times of earlier trainings in this folder."""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segcore.data.prepared import PreparedData
from segcore.files import cached_json
from segcore.latency import threads_text
from segcore.params import Params, TrainSettings
from tasks.costs import read_cost
from tasks.project import MODELS, run_name

if TYPE_CHECKING:
    # torch takes seconds to import, and a flow only reads times
    from segcore.models.base.model import SegmentationModel
    from segcore.training.runtime import Runtime

# environment variable of a flow's trainings: number of those that have not ended, and of those at the same time
LEFT = "SEGFLOW_TRAININGS_LEFT"
# entry of a costs file: seconds of a training with its validations and the choices on the validation split
WHOLE = "train_whole_seconds"
# steps whose time is measured; those before are slower
_MEASURED = 6
# Time of predicting a pixel relative to training on one: a forward pass is about a third of a step, and the rest is
# blending and scoring.
_PREDICTION = 0.4
# a first validation that changes the estimate by more than this fraction is printed
_CHANGED = 0.25


class TrainingTime:
    """Estimates the time of a training from its first steps, and again from its first validation.

    Args:
        name: of the run.
        model: to be trained.
        data: prepared data.
        settings: of the training.
        say: receives lines for the user.
        clock: seconds.
    """

    def __init__(
        self,
        name: str,
        model: "SegmentationModel",
        data: PreparedData,
        settings: TrainSettings,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.name, self.settings, self.say, self.clock = name, settings, say, clock
        pixels, self.choices = _validation(model, data, settings.crop)
        # of a validation, in steps
        self.relative = _PREDICTION * pixels / (settings.batch * settings.crop**2)
        self.begun = self.last = clock()
        self.first = self.now = 0
        self.mark: tuple[int, float] | None = None
        self.step_seconds: float | None = None
        self.validation_seconds: float | None = None
        self.told = 0.0

    def on_start(self, runtime: "Runtime") -> None:
        """The training begins."""
        import torch

        from segcore.training.step import read_every

        # losses of several steps are read at once, after the last of them
        self.every = read_every(torch.device(runtime.device))
        self.where = threads_text(runtime.threads) if runtime.device == "cpu" else runtime.device
        self.begun = self.clock()

    def on_step(self, step: int) -> None:
        """A step has ended; steps count from 1."""
        self.last, self.now, self.first = self.clock(), step, self.first or step
        if self.step_seconds is not None or step % self.every:
            return
        if self.mark is None:
            self.mark = (step, self.last) if step > self.first else None
        elif step - self.mark[0] >= _MEASURED:
            self.step_seconds = (self.last - self.mark[1]) / (step - self.mark[0])
            self._tell()

    def on_validation(self) -> None:
        """A validation has ended."""
        spent = self.clock() - self.last
        if self.mark is not None and self.step_seconds is None:
            self.mark = (self.mark[0], self.mark[1] + spent)
        if self.validation_seconds is None:
            self.validation_seconds = spent
            if self.told and abs(self._total() / self.told - 1) > _CHANGED:
                self._tell()

    def whole(self) -> float:
        """Seconds of the whole training, once it has ended; of a resumed one, by the part since."""
        return (self.clock() - self.begun) * self.now / (self.now - self.first + 1)

    def _total(self) -> float:
        """Seconds from the first step of this process to the end."""
        assert self.step_seconds is not None
        steps, every, done = self.settings.steps, self.settings.validate_every, self.first - 1
        validations = math.ceil(steps / every) - done // every + self.choices
        each = (
            self.relative * self.step_seconds if self.validation_seconds is None else self.validation_seconds
        )
        return self.step_seconds * (steps - done) + each * validations

    def _tell(self) -> None:
        self.told, steps, done = self._total(), self.settings.steps, self.first - 1
        which = f"the remaining {steps - done:,} of {steps:,} steps" if done else f"{steps:,} steps"
        since = ", by its first validation" if self.validation_seconds is not None else ""
        most = "at most " if self.settings.patience is not None else ""
        self.say(
            f"train {self.name}: {most}{about(self.told)} for {which} on this machine ({self.where}), validation "
            f"included{since}{_of_all(self.told * steps / (steps - done))}"
        )


def _validation(model: "SegmentationModel", data: PreparedData, crop: int) -> tuple[int, int]:
    """Pixels that a validation predicts, and how often they are predicted again for choices after the last step."""
    from segcore.inference.tiling import tile_starts
    from segcore.models.base.instance import InstanceModel
    from segcore.training.object_matches import window_overlap
    from segcore.training.validate import tile_side

    side, is_instance = tile_side(model, crop), isinstance(model, InstanceModel)
    overlap = window_overlap(data, side) if is_instance else min(64, side // 4)
    regions = data.regions[data.regions["split"] == "validation"]
    pixels = 0
    for height, width in regions[["height", "width"]].to_numpy().tolist():
        windows = len(tile_starts(height, side, overlap)) * len(tile_starts(width, side, overlap))
        pixels += windows * min(side, height) * min(side, width)
    if is_instance:
        # for the loss and for the objects; the choice needs only objects
        return 2 * pixels, 1
    return pixels, 2 if data.instances else 1


def _of_all(seconds: float) -> str:
    """The time of all trainings of the flow, if this process is one of several."""
    left, slots = map(int, os.environ.get(LEFT, "1 1").split())
    if left < 2:
        return ""
    total = about(seconds * math.ceil(left / slots))
    return (
        f"; {total} for the {left} trainings that are left{_at_a_time(min(slots, left))}, if all take as long"
    )


def of_earlier(root: Path, p: Params, trainings: Sequence[tuple[str, int]], slots: int) -> str:
    """A line on the time of trainings by earlier ones in this folder; empty if none of them was measured.

    Args:
        root: the project's folder.
        p: parameters.
        trainings: architecture and seed of each that will run.
        slots: number that run at the same time.
    """
    times = {name: _earlier(root, p, name) for name in {name for name, _ in trainings}}
    known = [seconds for seconds in times.values() if seconds is not None]
    if not known:
        return ""
    each = [times[name] or sum(known) / len(known) for name, _ in trainings]
    total = max(sum(each) / slots, *each)
    count = f"{len(each)} training{'s' * (len(each) > 1)}{_at_a_time(min(slots, len(each)))}"
    return f"{count}: {about(total)}, by earlier trainings in this folder"


def _earlier(root: Path, p: Params, architecture: str) -> float | None:
    """Seconds of a training, by the mean of the earlier ones of the architecture and the number of pixels."""
    seconds = []
    for seed in p.seeds:
        name = run_name(architecture, seed)
        facts = cached_json(root / MODELS / name / "model.json")
        whole = (read_cost(root, name) or {}).get(WHOLE) if facts else None
        if whole:
            settings = p.for_architecture(architecture).model_dump()
            seconds.append(whole * _pixels(settings) / _pixels(facts["parameters"]))
    return sum(seconds) / len(seconds) if seconds else None


def _pixels(settings: Mapping[str, Any]) -> int:
    """Number of pixels that a training is trained on."""
    return int(settings["steps"] * settings["batch"] * settings["crop"] ** 2)


def _at_a_time(slots: int) -> str:
    return f", {slots} at a time" if slots > 1 else ""


def about(seconds: float) -> str:
    """A time that was estimated, such as "about 4 minutes"."""
    if seconds < 90:
        return f"about {max(10, round(seconds, -1)):.0f} seconds"
    return f"about {seconds / 60:.0f} minutes" if seconds < 5400 else f"about {seconds / 3600:.1f} hours"
