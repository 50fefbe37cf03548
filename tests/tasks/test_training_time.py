"""The estimated time of trainings: by their first steps and validation, and by earlier trainings."""

import json
from pathlib import Path
from typing import Any

import pytest

from segcore.data.prepared import PreparedData
from segcore.params import Params
from segcore.training import loop
from segcore.training.build import new_model
from segcore.training.runtime import Runtime
from tasks.costs import merge_cost
from tasks.training_time import LEFT, WHOLE, TrainingTime, about, of_earlier
from tests.support.trainings import small

Scene = tuple[Params, PreparedData]


class Clock:
    """A training whose steps and validations take known times."""

    def __init__(self, scene: Scene, device: str = "cpu", **changes: Any) -> None:
        self.now, self.lines = 100.0, list[str]()
        settings = small(**{"steps": 100, "validate_every": 50, **changes})
        model = new_model("unet", settings, scene[1], 0)
        self.time = TrainingTime("unet-0", model, scene[1], settings, self.lines.append, lambda: self.now)
        values = dict.fromkeys(("channels_last", "fused", "compile", "hold_data", "keep_memory"), False)
        self.time.on_start(
            Runtime(device=device, precision="fp32", threads=2, workers=0, micro_batch=2, **values)
        )

    def steps(self, first: int, last: int, seconds: float) -> None:
        for step in range(first, last + 1):
            self.now += seconds
            self.time.on_step(step)

    def validation(self, seconds: float) -> None:
        self.now += seconds
        self.time.on_validation()


def test_the_time_is_that_of_steps_3_to_8_and_of_the_validations(prepared_scene: Scene) -> None:
    clock = Clock(prepared_scene)
    clock.time.relative = 10
    clock.steps(1, 2, 30)
    clock.steps(3, 7, 2)
    assert not clock.lines
    clock.steps(8, 8, 2)
    # 100 steps of 2 s; two validations and one prediction for the temperature of 20 s each
    assert clock.time.told == 260
    assert clock.lines == [
        "train unet-0: about 4 minutes for 100 steps on this machine (2 threads), validation included"
    ]
    clock.steps(9, 50, 2)
    clock.validation(21)
    clock.steps(51, 100, 2)
    clock.validation(21)
    assert len(clock.lines) == 1
    assert clock.time.whole() == 2 * 30 + 98 * 2 + 2 * 21


def test_a_validation_of_another_time_changes_the_estimate_once(prepared_scene: Scene) -> None:
    clock = Clock(prepared_scene, patience=3)
    clock.time.relative = 10
    clock.steps(1, 50, 2)
    clock.validation(200)
    clock.steps(51, 100, 2)
    clock.validation(400)
    assert len(clock.lines) == 2 and "at most about 4 minutes" in clock.lines[0]
    # 200 s of steps, three times 200 s
    assert clock.lines[1].startswith("train unet-0: at most about 13 minutes for 100 steps")
    assert clock.lines[1].endswith(", by its first validation")


def test_validations_between_the_measured_steps_are_no_steps(prepared_scene: Scene) -> None:
    clock = Clock(prepared_scene, validate_every=1)
    for step in range(1, 9):
        clock.steps(step, step, 2)
        clock.validation(5)
    assert clock.time.step_seconds == 2
    assert clock.time.told == 100 * 2 + 101 * 5


def test_a_resumed_training_tells_the_rest(prepared_scene: Scene) -> None:
    clock = Clock(prepared_scene)
    clock.time.relative = 10
    clock.steps(51, 58, 2)
    # 50 steps, the last validation and the temperature
    assert clock.time.told == 140 and " for the remaining 50 of 100 steps on " in clock.lines[0]
    clock.steps(59, 100, 2)
    assert clock.time.whole() == 200


def test_losses_that_are_read_together_are_measured_together(prepared_scene: Scene) -> None:
    clock = Clock(prepared_scene, device="cuda")
    for burst in range(2):
        clock.now += 16 * 0.5
        clock.steps(1 + 16 * burst, 16 + 16 * burst, 0)
    assert clock.time.step_seconds == 0.5 and "(cuda)" in clock.lines[0]


def test_the_time_of_all_trainings_is_told_in_a_flow(
    prepared_scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LEFT, "5 2")
    clock = Clock(prepared_scene)
    clock.time.relative = 10
    clock.steps(1, 8, 2)
    # three rounds of 260 s
    assert clock.lines[0].endswith(
        "; about 13 minutes for the 5 trainings that are left, 2 at a time, if all take as long"
    )


def test_the_estimate_of_a_real_training_is_of_the_right_size(prepared_scene: Scene, tmp_path: Path) -> None:
    p, data = prepared_scene
    settings = small(steps=40, validate_every=20)
    model, lines = new_model("unet", settings, data, 0), list[str]()
    time = TrainingTime("unet-0", model, data, settings, lines.append)
    loop.train(
        *(model, data, settings, p.prepare.window, 0, tmp_path),
        on_step=lambda step, loss: time.on_step(step),
        on_validation=lambda row: time.on_validation(),
        on_start=time.on_start,
    )
    assert lines and 0.2 < time.told / time.whole() < 5


def test_earlier_trainings_tell_the_time_by_the_pixels_that_they_saw(
    tmp_path: Path, prepared_scene: Scene
) -> None:
    p = prepared_scene[0].model_copy(update={"architectures": ["unet", "fcn"], "seeds": [0, 1]})
    trainings = [(name, seed) for name in p.architectures for seed in p.seeds]
    assert of_earlier(tmp_path, p, trainings, 1) == ""
    settings = p.for_architecture("unet").model_dump(mode="json")
    for seed, seconds in ((0, 90), (1, 150)):
        folder = tmp_path / f"models/unet-{seed}"
        folder.mkdir(parents=True)
        # half of the steps
        facts = {"weights_sha256": "0" * 64, "parameters": settings | {"steps": settings["steps"] / 2}}
        (folder / "model.json").write_text(json.dumps(facts))
        merge_cost(tmp_path, folder.name, {WHOLE: seconds})
    # 240 s each; FCN, which has not been trained, is thought to take as long
    assert (
        of_earlier(tmp_path, p, trainings, 1)
        == "4 trainings: about 16 minutes, by earlier trainings in this folder"
    )
    assert of_earlier(tmp_path, p, trainings[:1], 2).startswith("1 training: about 4 minutes, ")
    (tmp_path / "models/unet-0/model.json").write_text("damaged")
    assert "about 20 minutes" in of_earlier(tmp_path, p, trainings, 1)
    assert of_earlier(tmp_path, p, [], 1) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2, "about 10 seconds"), (64, "about 60 seconds"), (100, "about 2 minutes"), (9000, "about 2.5 hours")],
)
def test_an_estimate_has_few_digits(seconds: float, text: str) -> None:
    assert about(seconds) == text
