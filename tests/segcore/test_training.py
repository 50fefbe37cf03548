"""The training loop: exact resume, selection on validation, determinism, and what it refuses."""

import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch

from segcore import checkpoint
from segcore.constants import IGNORE
from segcore.errors import ModelError
from segcore.inference import choose_precision
from segcore.params import TrainSettings
from segcore.training import (
    class_weights,
    learning_rate,
    make_optimizer,
    new_model,
    normalization,
    train,
    validate,
)


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs."""


SMALL = {
    "unet": {"encoder": "plain", "width": 4},
    "deeplab": {"encoder": "mobilenet_v2", "aspp_channels": 8, "dropout": 0.5},
}


def small(architecture="unet", **over):
    values = {"weights": "none", "steps": 6, "batch": 2, "crop": 32, "validate_every": 2, "warmup_steps": 1}
    return TrainSettings(**{**values, "model": SMALL[architecture], **over})


def run(prepared_scene, folder, architecture="unet", kill_at=None, seed=0, **over):
    p, data = prepared_scene
    base = small(architecture)
    settings = base.model_copy(update=over)
    folder.mkdir(exist_ok=True)

    def on_step(step, loss):
        if step == kill_at:
            raise Killed

    model = new_model(architecture, settings, data, seed)
    return train(model, data, settings, p.prepare.window, seed, folder, on_step)


def same(a, b):
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


KILLS = [("unet", 1), ("unet", 2), ("unet", 4), ("unet", 5), ("unet", 6), ("deeplab", 3)]


@pytest.mark.parametrize(("architecture", "kill_at"), KILLS)
def test_32_killed_at_any_step_and_resumed_ends_as_the_uninterrupted_run(
    prepared_scene, tmp_path, architecture, kill_at
):
    whole = run(prepared_scene, tmp_path / "whole", architecture)
    with pytest.raises(Killed):
        run(prepared_scene, tmp_path / "cut", architecture, kill_at=kill_at)
    resumed = run(prepared_scene, tmp_path / "cut", architecture)
    assert same(whole.model, resumed.model)
    assert whole.history == resumed.history and whole.facts == resumed.facts


def test_33_best_score_survives_a_resume(prepared_scene, tmp_path):
    with pytest.raises(Killed):
        run(prepared_scene, tmp_path / "cut", kill_at=5)
    _, data = prepared_scene
    settings = small()
    model = new_model("unet", settings, data, 0)
    best, state = checkpoint.load(tmp_path / "cut", model, make_optimizer(model, settings))
    assert state["step"] == 4 and len(state["history"]) == 2
    assert state["best_iou"] == max(row["val_iou"] for row in state["history"]) and best


def test_34_killed_while_saving_the_previous_checkpoint_still_loads(prepared_scene, tmp_path, monkeypatch):
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


def test_35_a_last_batch_of_one_does_not_break_batch_norm(prepared_scene, tmp_path):
    assert np.isfinite(run(prepared_scene, tmp_path / "one", batch=1, steps=2).history[-1]["train_loss"])


def test_36_two_runs_of_one_seed_give_equal_weights_and_another_seed_does_not(prepared_scene, tmp_path):
    one, two, other = (
        run(prepared_scene, tmp_path / n, seed=s, steps=2) for n, s in (("a", 1), ("b", 1), ("c", 2))
    )
    assert same(one.model, two.model) and one.facts["nondeterministic"] == []
    assert not same(one.model, other.model)


def test_36_an_operator_without_a_deterministic_form_is_named():
    from segcore.training import _Determinism

    with _Determinism(True) as named:
        warnings.warn(
            "upsample_x does not have a deterministic implementation, but ...", UserWarning, stacklevel=1
        )
    assert named == {"upsample_x"}


def test_25_checkpoints_are_selected_on_validation_and_test_is_never_read(prepared_scene, tmp_path):
    p, data = prepared_scene
    test = data.regions[data.regions["split"] == "test"]
    read = []
    original = type(data).crop

    class Watched(type(data)):
        def crop(self, item, row, col, height, width):
            read.append((row, col, height, width))
            return original(self, item, row, col, height, width)

    result = run((p, Watched(data.folder)), tmp_path / "w")
    for row, col, height, width in read:
        overlap = (
            (test["row"] < row + height) & (test["row"] + test["height"] > row)
            & (test["col"] < col + width) & (test["col"] + test["width"] > col)
        )  # fmt: skip
        assert not overlap.any()
    best = max(result.history, key=lambda r: r["val_iou"])
    assert result.facts["best_step"] == next(
        r["step"] for r in result.history if r["val_iou"] == best["val_iou"]
    )
    assert validate(result.model, data, 64, "fp32")[1] == pytest.approx(best["val_iou"], abs=1e-12)


def test_early_stopping_ends_before_the_budget(prepared_scene, tmp_path):
    result = run(prepared_scene, tmp_path / "p", patience=1, steps=40, learning_rate=1e-12)
    assert result.facts["steps"] < 40


def test_9_ignored_pixels_change_no_weight(prepared_scene):
    _, data = prepared_scene
    settings = small()
    gradients = []
    for fill in (0.0, 3.0):
        model = new_model("unet", settings, data, 0).eval()
        logits = torch.zeros(1, 2, 8, 8) + 0.1
        logits[..., :4] += fill
        logits.requires_grad_()
        label = torch.ones(1, 8, 8, dtype=torch.long)
        label[..., :4] = IGNORE
        model.criterion(logits, label)["loss"].backward()
        gradients.append(logits.grad)
    assert torch.equal(gradients[0], gradients[1]) and (gradients[0][..., :4] == 0).all()


def test_a_loss_that_is_not_finite_stops_with_a_remedy(prepared_scene, tmp_path):
    with pytest.raises(ModelError, match=r"loss is (nan|inf)[\s\S]*learning_rate"):
        run(prepared_scene, tmp_path / "n", learning_rate=1e30, steps=6)


def test_29_normalisation_is_what_pretrained_weights_expect_else_of_the_training_split(prepared_scene):
    _, data = prepared_scene
    mean, std = normalization("sample", data)
    assert np.allclose(np.array(mean) / 255, (0.485, 0.456, 0.406)) and np.allclose(
        np.array(std) / 255, (0.229, 0.224, 0.225)
    )
    assert normalization("none", data)[0] == data.statistics["mean"]


def test_schedules_start_low_peak_and_end_at_nothing():
    for schedule in ("cosine", "poly"):
        s = TrainSettings(steps=100, batch=1, crop=32, validate_every=1, warmup_steps=10, schedule=schedule)
        rates = [learning_rate(i, s) for i in range(100)]
        assert rates[0] == pytest.approx(1e-4) and max(rates) == pytest.approx(1e-3) and rates[-1] < 2.5e-5
        assert all(a >= b for a, b in pairwise(rates[10:]))


def test_24_class_weights_come_from_the_training_split(prepared_scene):
    _, data = prepared_scene
    pixels = np.array(data.statistics["class_pixels"])
    weights = class_weights(
        TrainSettings(steps=1, batch=1, crop=32, validate_every=1, class_weights="balanced"), data
    )
    assert weights is not None and weights[1] / weights[0] == pytest.approx(pixels[0] / pixels[1])


def test_precision_is_what_was_asked_or_what_the_device_computes_in():
    cpu = torch.device("cpu")
    assert choose_precision("bf16", cpu) == "bf16" and choose_precision("auto", cpu) in ("fp32", "bf16")


def test_bf16_trains_finitely(prepared_scene, tmp_path):
    result = run(prepared_scene, tmp_path / "b", precision="bf16", steps=2)
    assert np.isfinite(result.history[-1]["val_loss"])


def test_an_unknown_keyword_is_named(prepared_scene):
    _, data = prepared_scene
    settings = TrainSettings(steps=1, batch=1, crop=32, validate_every=1, weights="none", model={"widht": 3})
    with pytest.raises(ModelError, match="no keyword 'widht'"):
        new_model("unet", settings, data, 0)
