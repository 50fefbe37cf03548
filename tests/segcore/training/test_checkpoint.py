"""Checkpoints: exact resume after a kill, averaged weights included; old and damaged files."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from segcore.errors import ModelError
from segcore.training import checkpoint
from segcore.training.build import new_model
from segcore.training.optimizer import make_optimizer
from tests.support.trainings import Killed, run, same, small

KILLS = [("unet", 1), ("unet", 2), ("unet", 4), ("unet", 5), ("unet", 6), ("deeplab", 3)]


@pytest.mark.parametrize(("architecture", "kill_at"), KILLS)
def test_a_training_killed_at_any_step_and_resumed_equals_an_uninterrupted_one(
    prepared_scene, tmp_path, architecture, kill_at
):
    whole = run(prepared_scene, tmp_path / "whole", architecture)
    with pytest.raises(Killed):
        run(prepared_scene, tmp_path / "cut", architecture, kill_at=kill_at)
    resumed = run(prepared_scene, tmp_path / "cut", architecture)
    assert same(whole.model, resumed.model)
    assert whole.history == resumed.history and whole.facts == resumed.facts


@pytest.mark.parametrize("kill_at", [3, 5])
def test_averaged_weights_survive_a_resume(prepared_scene, tmp_path, kill_at):
    whole = run(prepared_scene, tmp_path / "whole", ema=0.5)
    with pytest.raises(Killed):
        run(prepared_scene, tmp_path / "cut", kill_at=kill_at, ema=0.5)
    resumed = run(prepared_scene, tmp_path / "cut", ema=0.5)
    assert same(whole.model, resumed.model) and whole.history == resumed.history
    plain = run(prepared_scene, tmp_path / "plain", ema=None)
    assert not same(whole.model, plain.model)


def test_best_score_survives_a_resume(prepared_scene, tmp_path):
    with pytest.raises(Killed):
        run(prepared_scene, tmp_path / "cut", kill_at=5)
    _, data = prepared_scene
    settings = small()
    model = new_model("unet", settings, data, 0)
    best, state = checkpoint.load(tmp_path / "cut", model, make_optimizer(model, settings))
    assert state.step == 4 and len(state.history) == 2
    assert state.best_score == max(row["val_iou"] for row in state.history) and best


def test_after_a_kill_while_saving_the_previous_checkpoint_still_loads(prepared_scene, tmp_path, monkeypatch):
    def half_a_file(tensors, path, metadata):
        path.write_bytes(b"half a fi")
        raise Killed

    real = checkpoint.save_tensors
    calls = []

    def save_tensors(tensors, path, metadata):
        calls.append(path)
        return (real if len(calls) == 1 else half_a_file)(tensors, path, metadata=metadata)

    monkeypatch.setattr(checkpoint, "save_tensors", save_tensors)
    with pytest.raises(Killed):
        run(prepared_scene, tmp_path / "cut")
    monkeypatch.undo()
    resumed = run(prepared_scene, tmp_path / "cut")
    assert len(resumed.history) == 3 and same(resumed.model, run(prepared_scene, tmp_path / "whole").model)


def test_a_damaged_checkpoint_is_named(prepared_scene, tmp_path):
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "checkpoint.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(ModelError, match="cannot be resumed"):
        run(prepared_scene, tmp_path / "cut")


OLD_STATE = {
    "step": 2,
    "best_iou": 0.5,
    "best_step": 2,
    "stale": 0,
    "history": [],
    "seconds": 1.0,
    "choices": {},
}


def cut_training(prepared_scene, folder):
    """The checkpoint of a training that was killed after step 3."""
    with pytest.raises(Killed):
        run(prepared_scene, folder, kill_at=3)
    return folder / "checkpoint.safetensors"


def test_a_checkpoint_of_an_older_version_is_reported_and_training_starts_from_step_0(
    prepared_scene, tmp_path
):
    path = cut_training(prepared_scene, tmp_path / "cut")
    save_file(load_file(path), path, metadata={"state": json.dumps(OLD_STATE)})
    lines = []
    restarted = run(prepared_scene, tmp_path / "cut", restarts=lines)
    (line,) = lines
    assert str(path) in line and "starts from step 0" in line and "\n" not in line
    whole = run(prepared_scene, tmp_path / "whole")
    assert same(whole.model, restarted.model) and whole.history == restarted.history
    again = []
    run(prepared_scene, tmp_path / "cut", restarts=again)
    assert again == [], "the old checkpoint was replaced"


def without_a_weight(path):
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    del tensors["model.score.weight"]
    save_file(tensors, path, metadata=metadata)


DAMAGES = {
    "no weight": without_a_weight,
    "half a file": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "half a state": lambda path: save_file(load_file(path), path, metadata={"state": '{"step": 2, '}),
    "no state": lambda path: save_file(load_file(path), path),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_of_the_present_format_stays_an_error(prepared_scene, tmp_path, damage):
    DAMAGES[damage](cut_training(prepared_scene, tmp_path / "cut"))
    lines = []
    with pytest.raises(ModelError, match=r"cannot be resumed[\s\S]*delete the file to train from the start"):
        run(prepared_scene, tmp_path / "cut", restarts=lines)
    assert lines == []


@pytest.mark.parametrize(
    "speed", [{"micro_batch": 1}, {"hold_data": True}, {"channels_last": False, "fused": False}]
)
def test_a_resume_is_exact_with_other_runtimes_too(prepared_scene, tmp_path, speed):
    options = {"speed": small().speed.model_copy(update=speed)}
    whole = run(prepared_scene, tmp_path / "whole", **options)
    with pytest.raises(Killed):
        run(prepared_scene, tmp_path / "cut", kill_at=5, **options)
    resumed = run(prepared_scene, tmp_path / "cut", **options)
    assert same(whole.model, resumed.model) and whole.history == resumed.history
    assert whole.facts == resumed.facts and speed.items() <= whole.facts["choices"].items()


def test_resumed_moments_have_the_memory_format_of_the_weights(prepared_scene, tmp_path):
    """A fused optimiser reads both in memory order."""
    with pytest.raises(Killed):
        run(prepared_scene, tmp_path / "cut", kill_at=5)
    _, data = prepared_scene
    model = new_model("unet", small(), data, 0).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, small())
    checkpoint.load(tmp_path / "cut", model, optimizer)
    for parameter, values in optimizer.state.items():
        assert values["exp_avg"].stride() == parameter.stride() == values["exp_avg_sq"].stride()
