"""The training loop: selection on validation, determinism, schedules, and errors."""

import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch

from segcore.constants import IGNORE
from segcore.errors import ModelError
from segcore.inference.device import choose_precision
from segcore.params import TrainSettings
from segcore.training.build import class_weights, new_model, normalization
from segcore.training.determinism import grade
from segcore.training.optimizer import learning_rate, make_optimizer
from segcore.training.validate import validate
from tests.support.trainings import Killed, run, same, small


def test_a_frozen_encoder_keeps_weights_and_statistics_until_it_is_unfrozen(prepared_scene, tmp_path):
    _, data = prepared_scene
    initial = new_model("unet", small(), data, 0).encoder.state_dict()
    frozen = run(prepared_scene, tmp_path / "frozen", freeze_encoder=6).model
    assert all(torch.equal(value, initial[name]) for name, value in frozen.encoder.state_dict().items())
    assert all(parameter.requires_grad for parameter in frozen.parameters())
    whole = run(prepared_scene, tmp_path / "unfrozen", freeze_encoder=3, validate_every=5)
    assert not torch.equal(next(whole.model.encoder.parameters()), next(iter(initial.values())))
    with pytest.raises(Killed):
        run(prepared_scene, tmp_path / "cut", freeze_encoder=3, validate_every=5, kill_at=6)
    assert same(whole.model, run(prepared_scene, tmp_path / "cut", freeze_encoder=3, validate_every=5).model)


def test_a_last_batch_of_one_does_not_break_batch_norm(prepared_scene, tmp_path):
    assert np.isfinite(run(prepared_scene, tmp_path / "one", batch=1, steps=2).history[-1]["train_loss"])


def test_all_stages_of_a_supervised_network_learn(prepared_scene, tmp_path):
    _, data = prepared_scene
    model = {"encoder": "plain", "width": 4, "deep_supervision": True}
    initial = new_model("unet", small(model=model), data, 0).score_stages.state_dict()
    trained = run(prepared_scene, tmp_path / "one", steps=2, model=model)
    learnt = trained.model.score_stages.state_dict()
    assert len(learnt) == 6 and not any(torch.equal(value, initial[name]) for name, value in learnt.items())
    assert np.isfinite(trained.history[-1]["val_loss"])


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
        def crop(self, item, row, col, height, width, **wanted):
            read.append((row, col, height, width))
            return original(self, item, row, col, height, width, **wanted)

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
    score = validate(result.model, data, small(), result.facts["precision"])[1]
    assert score == pytest.approx(best["val_iou"], abs=1e-12)


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
    mean, std = normalization("mobilenet_v2", "imagenet", data)
    assert np.allclose(np.array(mean) / 255, (0.485, 0.456, 0.406)) and np.allclose(
        np.array(std) / 255, (0.229, 0.224, 0.225)
    )
    assert normalization("mobilenet_v2", "none", data)[0] == data.statistics["mean"]
    assert normalization("efficientnet_lite0", "file:weights", data) == ([127.0] * 3, [128.0] * 3)


def test_schedules_start_low_reach_the_peak_and_end_near_zero():
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


def test_precision_is_the_setting_or_with_auto_that_of_the_device():
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


def test_accumulated_gradients_are_those_of_the_batch_with_batch_norm_in_evaluation_mode(prepared_scene):
    """Cross-entropy is a mean over pixels, so that equal parts add up; only batch norm would differ.

    In fp32: `auto` is bf16 on a CPU with AMX, where rounding depends on the number of summands.
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
    results = []
    for micro in (5, 2):
        model = new_model("unet", settings, data, 0).eval()
        speed = settings.speed.model_copy(update={"micro_batch": micro})
        choices = choose_runtime(settings.model_copy(update={"speed": speed}), data, cpu)
        stepper = TrainStep(
            model, make_optimizer(model, settings), StepContext(settings, cpu, Distributed(), choices)
        )
        loss = stepper.step(batch, 1e-3)
        results.append((float(loss), torch.cat([p.grad.flatten() for p in model.parameters()])))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    assert torch.allclose(results[0][1], results[1][1], atol=1e-6)


def test_each_run_states_its_grade(prepared_scene, tmp_path):
    assert run(prepared_scene, tmp_path / "d", steps=2).facts["determinism"] == "bit-exact"
    loose = run(prepared_scene, tmp_path / "l", steps=2, deterministic=False)
    assert loose.facts["determinism"].startswith("not asked for")
    assert grade(True, ["a_backward", "b"]) == "not bit-exact: a_backward, b"


def test_losses_are_read_together_and_one_that_is_not_finite_is_an_error():
    from segcore.training.step import Losses

    reported = []
    losses = Losses("U-Net", lambda step, loss: reported.append((step, loss)), every=3)
    losses.add(1, torch.tensor(2.0))
    assert reported == []
    losses.add(2, torch.tensor(4.0))
    assert losses.mean() == 3.0 and reported == [(1, 2.0), (2, 4.0)]
    losses.add(3, torch.tensor(float("nan")))
    with pytest.raises(ModelError, match="U-Net: the loss is nan"):
        losses.mean()


@pytest.mark.parametrize("name", ["in_channels", "num_classes", "name", "magnify", "touching", "foreground"])
def test_an_argument_that_is_no_keyword_of_the_architecture_is_refused(name, prepared_scene):
    _, data = prepared_scene
    with pytest.raises(ModelError, match=f"architecture unet has no keyword '{name}'") as caught:
        new_model("unet", small(model={"encoder": "plain", "width": 4, name: 3}), data, 0)
    assert "decoder_channels" in caught.value.remedy
