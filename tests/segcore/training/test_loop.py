"""The training loop: exact resume, selection on validation, determinism, and what it refuses."""

import json
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from segcore.constants import IGNORE
from segcore.errors import ModelError
from segcore.inference.device import choose_precision
from segcore.params import TrainSettings
from segcore.training import checkpoint
from segcore.training.build import class_weights, new_model, normalization
from segcore.training.determinism import grade
from segcore.training.ema import WeightAverage, decay_of
from segcore.training.loop import train
from segcore.training.optimizer import learning_rate, make_optimizer
from segcore.training.validate import validate


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
def test_killed_at_any_step_and_resumed_ends_as_the_uninterrupted_run(
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


def test_a_resting_encoder_keeps_weights_and_statistics_until_it_is_released(prepared_scene, tmp_path):
    _, data = prepared_scene
    begun = new_model("unet", small(), data, 0).encoder.state_dict()
    rests = run(prepared_scene, tmp_path / "rests", freeze_encoder=6).model
    assert all(torch.equal(value, begun[name]) for name, value in rests.encoder.state_dict().items())
    assert all(parameter.requires_grad for parameter in rests.parameters())
    whole = run(prepared_scene, tmp_path / "released", freeze_encoder=3, validate_every=5)
    assert not torch.equal(next(whole.model.encoder.parameters()), next(iter(begun.values())))
    with pytest.raises(Killed):
        run(prepared_scene, tmp_path / "cut", freeze_encoder=3, validate_every=5, kill_at=6)
    assert same(whole.model, run(prepared_scene, tmp_path / "cut", freeze_encoder=3, validate_every=5).model)


def test_the_average_is_that_of_parameters_and_statistics_and_counters_are_copied():
    model = torch.nn.BatchNorm2d(1)
    average = WeightAverage(model, 0.9)
    weights = []
    for step in (1, 2):
        model(torch.randn(4, 1, 3, 3))
        with torch.no_grad():
            model.weight.add_(step)
        weights.append((model.weight.item(), model.running_mean.item()))
        average.follow(step)
    kept = [(1 + n) / (10 + n) for n in (1, 2)]  # below 0.9: the first steps weigh more
    for value, start, (one, two) in zip(
        (average.model.weight, average.model.running_mean),
        (1.0, 0.0),
        zip(*weights, strict=True),
        strict=True,
    ):
        expected = kept[1] * (kept[0] * start + (1 - kept[0]) * one) + (1 - kept[1]) * two
        assert value.item() == pytest.approx(expected, rel=1e-5)
    assert average.model.num_batches_tracked == 2 and average.state().keys() == model.state_dict().keys()
    assert WeightAverage(model, 0).model is model and not WeightAverage(model, 0).state()


def test_the_decay_follows_the_budget():
    assert decay_of("auto", 200) == pytest.approx(0.9) and decay_of("auto", 5) == 0
    assert decay_of(0.99, 5) == 0.99 and decay_of(None, 200) == 0


def test_best_score_survives_a_resume(prepared_scene, tmp_path):
    with pytest.raises(Killed):
        run(prepared_scene, tmp_path / "cut", kill_at=5)
    _, data = prepared_scene
    settings = small()
    model = new_model("unet", settings, data, 0)
    best, state = checkpoint.load(tmp_path / "cut", model, make_optimizer(model, settings))
    assert state.step == 4 and len(state.history) == 2
    assert state.best_iou == max(row["val_iou"] for row in state.history) and best


def test_killed_while_saving_the_previous_checkpoint_still_loads(prepared_scene, tmp_path, monkeypatch):
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


def test_a_checkpoint_of_an_older_version_is_named(prepared_scene, tmp_path):
    with pytest.raises(Killed):
        run(prepared_scene, tmp_path / "cut", kill_at=3)
    path = tmp_path / "cut" / "checkpoint.safetensors"
    old = {
        "step": 2,
        "best_iou": 0.5,
        "best_step": 2,
        "stale": 0,
        "history": [],
        "seconds": 1.0,
        "choices": {},
    }
    save_file(load_file(path), path, metadata={"state": json.dumps(old)})
    with pytest.raises(ModelError, match=r"cannot be resumed[\s\S]*delete the file to train from the start"):
        run(prepared_scene, tmp_path / "cut")


def test_a_last_batch_of_one_does_not_break_batch_norm(prepared_scene, tmp_path):
    assert np.isfinite(run(prepared_scene, tmp_path / "one", batch=1, steps=2).history[-1]["train_loss"])


def test_two_runs_of_one_seed_give_equal_weights_and_another_seed_does_not(prepared_scene, tmp_path):
    one, two, other = (
        run(prepared_scene, tmp_path / n, seed=s, steps=2) for n, s in (("a", 1), ("b", 1), ("c", 2))
    )
    assert same(one.model, two.model) and one.facts["nondeterministic"] == []
    assert not same(one.model, other.model)


def test_an_operator_without_a_deterministic_form_is_named():
    from segcore.training.determinism import Determinism

    with Determinism(True) as named:
        warnings.warn(
            "upsample_x does not have a deterministic implementation, but ...", UserWarning, stacklevel=1
        )
    assert named == {"upsample_x"}


def test_checkpoints_are_selected_on_validation_and_test_is_never_read(prepared_scene, tmp_path):
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


def test_ignored_pixels_change_no_weight(prepared_scene):
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


def test_normalisation_is_what_pretrained_weights_expect_else_of_the_training_split(prepared_scene):
    _, data = prepared_scene
    mean, std = normalization("imagenet", data)
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


def test_class_weights_come_from_the_training_split(prepared_scene):
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


def test_accumulated_gradients_are_those_of_the_batch_where_norms_rest(prepared_scene):
    """Cross-entropy is a mean over pixels, so that equal parts add up; batch norm alone would tell parts apart.

    In fp32: `auto` is bf16 on a CPU with AMX, where a product's rounding depends on how many are summed at once.
    """
    from segcore.training.distributed import Distributed
    from segcore.training.runtime import choose_runtime
    from segcore.training.step import StepContext, TrainStep

    _, data = prepared_scene
    settings = small(batch=5, loss="cross_entropy", learning_rate=1e-3, precision="fp32")
    cpu = torch.device("cpu")
    generator = torch.Generator().manual_seed(0)
    batch = {
        "image": torch.rand(5, 3, 32, 32, generator=generator) * 255,
        "valid": torch.ones(5, 32, 32).bool(),
    }
    batch["label"] = torch.randint(0, 2, (5, 32, 32), generator=generator)
    found = []
    for micro in (5, 2):
        model = new_model("unet", settings, data, 0).eval()
        speed = settings.speed.model_copy(update={"micro_batch": micro})
        choices = choose_runtime(settings.model_copy(update={"speed": speed}), data, cpu)
        stepper = TrainStep(
            model, make_optimizer(model, settings), StepContext(settings, cpu, Distributed(), choices)
        )
        loss = stepper.step(batch, 1e-3)
        found.append((float(loss), torch.cat([p.grad.flatten() for p in model.parameters()])))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-6)


@pytest.mark.parametrize(
    "speed", [{"micro_batch": 1}, {"hold_data": True}, {"channels_last": False, "fused": False}]
)
def test_a_resume_is_exact_with_other_choices_too(prepared_scene, tmp_path, speed):
    options = {"speed": small().speed.model_copy(update=speed)}
    whole = run(prepared_scene, tmp_path / "whole", **options)
    with pytest.raises(Killed):
        run(prepared_scene, tmp_path / "cut", kill_at=5, **options)
    resumed = run(prepared_scene, tmp_path / "cut", **options)
    assert same(whole.model, resumed.model) and whole.history == resumed.history
    assert whole.facts == resumed.facts and speed.items() <= whole.facts["choices"].items()


def test_each_run_states_its_grade(prepared_scene, tmp_path):
    assert run(prepared_scene, tmp_path / "d", steps=2).facts["determinism"] == "bit-exact"
    loose = run(prepared_scene, tmp_path / "l", steps=2, deterministic=False)
    assert loose.facts["determinism"].startswith("not asked for")
    assert grade(True, ["a_backward", "b"]) == "not bit-exact: a_backward, b"


def test_losses_are_read_together_and_one_that_is_not_finite_is_never_passed_over():
    from segcore.training.step import Losses

    told = []
    losses = Losses("U-Net", lambda step, loss: told.append((step, loss)), every=3)
    losses.add(1, torch.tensor(2.0))
    assert told == []
    losses.add(2, torch.tensor(4.0))
    assert losses.mean() == 3.0 and told == [(1, 2.0), (2, 4.0)]
    losses.add(3, torch.tensor(float("nan")))
    with pytest.raises(ModelError, match="U-Net: the loss is nan"):
        losses.mean()


def test_a_resume_lays_moments_out_as_the_weights(prepared_scene, tmp_path):
    """A fused optimiser runs through both as they lie in memory."""
    with pytest.raises(Killed):
        run(prepared_scene, tmp_path / "cut", kill_at=5)
    _, data = prepared_scene
    model = new_model("unet", small(), data, 0).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, small())
    checkpoint.load(tmp_path / "cut", model, optimizer)
    for parameter, values in optimizer.state.items():
        assert values["exp_avg"].stride() == parameter.stride() == values["exp_avg_sq"].stride()
