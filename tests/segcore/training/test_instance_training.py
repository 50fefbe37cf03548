"""Instance networks in the training loop: kills, averages, frozen encoders, memory, transfer, and what is told."""

import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from segcore.data.prepared import PreparedData
from segcore.errors import DataError, ModelError
from segcore.models.base.factory import kind, names
from segcore.models.instance.roi_align import roi_align
from segcore.params import TrainSettings
from segcore.planning.lr_range import range_test
from segcore.training import micro_batch
from segcore.training.build import new_model, object_sizes
from segcore.training.determinism import Determinism, grade
from segcore.training.distributed import Distributed
from segcore.training.loop import train
from segcore.training.optimizer import make_optimizer
from segcore.training.placement import unplaced
from segcore.training.runtime import Runtime
from segcore.training.sampler import Sampler
from segcore.training.step import StepContext, TrainStep
from segcore.training.transfer import take_over
from tasks.ingest import ingest
from tasks.prepare import prepare
from tests.support.discs import VALUES, make_discs
from tests.support.instance_batches import case_id, cases, crowd, network, stacked
from tests.support.tiny import params_for
from tests.support.trainings import Killed, same

ARCHITECTURES = [name for name in names() if kind(name) == "instance"]
# the fastest
ONE = "solo"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    """Parameters and prepared data of twelve images of numbered discs."""
    root = tmp_path_factory.mktemp("discs")
    p = params_for(make_discs(root / "source"), data=VALUES)
    ingest(p.data, root / "ingested")
    return p, PreparedData(prepare(p, root / "ingested", root / "prepared"))


def small(**changes):
    values = {"weights": "none", "steps": 4, "batch": 2, "crop": 32, "validate_every": 2, "warmup_steps": 1}
    return TrainSettings(**{**values, "model": {"width": 8}, **changes})


def run(discs, folder, architecture=ONE, kill_at=None, **changes):
    p, data = discs
    settings = small(**changes)
    folder.mkdir(exist_ok=True)

    def on_step(step, loss):
        if step == kill_at:
            raise Killed

    model = new_model(architecture, settings, data, 0)
    return train(model, data, settings, p.prepare.window, 0, folder, on_step)


@pytest.mark.parametrize(
    "architecture",
    [pytest.param(name, marks=[pytest.mark.slow] if name != ONE else []) for name in ARCHITECTURES],
)
def test_a_training_killed_at_any_step_and_resumed_equals_an_uninterrupted_one(discs, architecture, tmp_path):
    changes = {"ema": 0.5, "freeze_encoder": 1}
    whole = run(discs, tmp_path / "whole", architecture, **changes)
    assert whole.facts["determinism"] == "bit-exact" and len(whole.history) == 2
    for kill_at in (1, 4):
        folder = tmp_path / str(kill_at)
        with pytest.raises(Killed):
            run(discs, folder, architecture, kill_at, **changes)
        resumed = run(discs, folder, architecture, **changes)
        assert same(resumed.model, whole.model) and resumed.history == whole.history


def test_the_history_has_the_quality_of_objects_in_place_of_the_iou(discs, tmp_path):
    history = run(discs, tmp_path).history
    assert list(history[0]) == ["step", "train_loss", "learning_rate", "val_loss", "val_pq", "best"]
    assert all(np.isfinite(row["val_loss"]) and 0 <= row["val_pq"] <= 1 for row in history)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_frozen_encoder_keeps_its_weights(discs, architecture, tmp_path):
    initial = new_model(architecture, small(), discs[1], 0)
    trained = run(discs, tmp_path, architecture, freeze_encoder=4, steps=2).model
    for name, value in trained.state_dict().items():
        if name.startswith("encoder."):
            assert torch.equal(value, initial.state_dict()[name]), name
    assert not same(trained, initial)


def test_the_learning_rate_range_test_takes_instance_networks(discs):
    p, data = discs
    settings = small()
    result = range_test(new_model(ONE, settings, data, 0), data, settings, p.prepare.window, steps=4)
    assert len(result.losses) == 4 and np.isfinite(result.losses).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_memory_is_tried_with_as_many_objects_as_the_densest_crop_has(discs, architecture, monkeypatch):
    settings = small(batch=4)
    model = new_model(architecture, settings, discs[1], 0)
    for objects in (0, 1, 5, 300):
        batch = micro_batch._example(model, settings, 2, objects)
        truth = model.truth(batch)
        assert len(truth) == 2 * objects and (batch["label"] != 255).all()
    none, many = (micro_batch.kept_bytes(model, settings, "fp32", objects) for objects in (0, 60))
    assert many > none > 0
    seen = []
    original = micro_batch._example

    def example(model, settings, count, objects):
        seen.append(objects)
        return original(model, settings, count, objects)

    monkeypatch.setattr(micro_batch, "_example", example)
    assert micro_batch.largest(model, settings, "fp32", 7) == 4 and set(seen) == {7}
    monkeypatch.setattr(micro_batch.psutil, "virtual_memory", lambda: SimpleNamespace(available=3 * many))
    assert micro_batch.largest(model, settings, "fp32", 60) < 4


def test_a_training_tries_memory_with_the_density_of_its_data(discs, monkeypatch, tmp_path):
    from segcore.training import runtime

    seen = []

    def largest(model, settings, precision, objects):
        seen.append(objects)
        return 2

    monkeypatch.setattr(runtime, "largest", largest)
    run(discs, tmp_path, steps=1)
    assert seen == [object_sizes(discs[1], small()).most] and seen[0] > 1


@pytest.mark.parametrize("case", [c for c in cases() if c[0] != "toy"], ids=case_id)
def test_layers_with_outputs_per_class_are_not_taken_over_with_other_classes(case):
    one, two = network(case, foreground=(1,)), network(case)
    shapes = {name: tensor.shape for name, tensor in one.state_dict().items()}
    differ = {name for name, tensor in two.state_dict().items() if shapes.get(name) != tensor.shape}
    assert differ and all(name.startswith(two.class_layers) for name in differ)
    for layer in two.class_layers:
        # a rating of masks is not part of every variant
        assert any(name.startswith(layer) for name in shapes) or layer == "rating"
    other = network(case, seed=1)
    taken = take_over(two, other.state_dict(), False, "start")
    assert {name for name in taken.skipped if name.startswith(two.class_layers)} == set(taken.skipped)
    assert differ <= set(taken.skipped)
    for name in taken.copied:
        assert torch.equal(two.state_dict()[name], other.state_dict()[name])
    assert not take_over(two, other.state_dict(), True, "start").skipped


def test_keywords_that_are_auto_take_known_values_and_those_of_the_user_stay(discs):
    known = {"cells": [16, 32], "ranges": [[1, 64], [32, 4096]], "width": 999, "unheard": 1}
    settings = small(model={"width": 8, "candidates": 123})
    model = new_model(ONE, settings, discs[1], 0, known)
    chosen = model.settings
    assert chosen["cells"] == [16, 32] and chosen["width"] == 8 and chosen["candidates"] == 123
    assert "unheard" not in chosen and new_model(ONE, settings, discs[1], 0).settings["cells"] != [16, 32]


def _empty(model, sampler):
    """Crops without objects among the first hundred."""
    truths = [model.truth(sampler.batch(step)) for step in range(50)]
    return sum(2 - len(truth.item.unique()) for truth in truths)


def test_objects_without_a_cell_or_a_mask_are_counted_in_the_first_crops(discs):
    p, data = discs
    settings = small(steps=1000, model={"width": 8, "cells": [32], "ranges": [[1, 4096]]})
    sampler = Sampler(data, settings, p.prepare.window, 0, instances=True)
    model = new_model(ONE, settings, data, 0)
    found = unplaced(model, sampler)
    # one cell per crop
    counts = [len(model.truth(sampler.batch(step))) for step in range(50)]
    assert found.crops == 100 and found.total == sum(counts) and 0 < found.objects < found.total
    fine = new_model(ONE, small(model={"width": 8, "cells": [4], "ranges": [[1, 4096]]}), data, 0)
    assert unplaced(fine, sampler).objects < found.objects
    assert unplaced(new_model("yolact", small(), data, 0), sampler) is None
    few = new_model("mask_rcnn", small(model={"width": 8, "regions": 4}), data, 0)
    assert unplaced(few, sampler).objects == sum(counts) - 100 + _empty(model, sampler)
    assert unplaced(new_model("mask_rcnn", small(), data, 0), sampler).objects == 0


def test_data_without_objects_or_background_are_refused(prepared_scene, discs):
    with pytest.raises(DataError, match="finds objects, and the data have none"):
        new_model(ONE, small(), prepared_scene[1], 0)
    # all objects are in other splits
    elsewhere = copy.copy(discs[1])
    training = elsewhere.regions.loc[elsewhere.regions["split"] == "train", "id"]
    elsewhere.objects = elsewhere.objects[~elsewhere.objects["region"].isin(training)]
    for name in ARCHITECTURES:
        with pytest.raises(DataError, match="the training split has none"):
            new_model(name, small(), elsewhere, 0)
    full = copy.copy(discs[1])
    full.foreground = [0, 1]
    with pytest.raises(ModelError, match=r"data\.background"):
        new_model(ONE, small(), full, 0)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_an_accelerator_names_the_backward_pass_of_roi_align(device):
    """torchvision's operator does not."""
    x = torch.zeros(1, 2, 8, 8, device=device, requires_grad=True)
    regions = torch.tensor([[0.0, 1, 1, 9, 9]], device=device)
    with Determinism(True) as named:
        assert roi_align(x, regions, 4, 7, 2).shape == (1, 2, 7, 7)
        with torch.no_grad():
            roi_align(x.detach(), regions, 4, 7, 2)
    assert named == (set() if device == "cpu" else {"roi_align_backward"})
    expected = "bit-exact" if device == "cpu" else "not bit-exact: roi_align_backward"
    assert grade(True, sorted(named)) == expected
    with Determinism(False) as named:
        roi_align(x, regions, 4, 7, 2)
    assert not named


@pytest.mark.parametrize("case", cases(), ids=case_id)
def test_a_step_of_micro_batches_is_that_of_the_whole_batch_for_uneven_counts(case):
    """With batch norm in evaluation mode."""
    batch = stacked([crowd(seed, count) for seed, count in enumerate([0, 40, 0, 3, 1, 12, 0, 5])])
    settings = small(batch=8, crop=64, precision="fp32")
    whole = Runtime("cpu", "fp32", True, False, False, False, 1, 0, 8, False)
    results = []
    for micro in (8, 1, 3):
        model = network(case).eval()
        context = StepContext(settings, CPU, Distributed(), dataclasses.replace(whole, micro_batch=micro))
        loss = TrainStep(model, make_optimizer(model, settings), context).step(batch, 1e-3)
        results.append((float(loss), torch.cat([p.grad.flatten() for p in model.parameters()])))
    for loss, gradient in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-4)
        assert (gradient - results[0][1]).abs().max() < 1e-3 * results[0][1].abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(), ids=case_id)
def test_a_compiled_forward_pass_gives_the_loss_and_gradients(case):
    batch = stacked([crowd(1, 40), crowd(2, 0)])
    model = network(case).eval()
    compiled = torch.compile(model, backend="aot_eager")
    truth, results = model.truth(batch), []
    for forward in (model, compiled):
        model.zero_grad()
        terms = model.terms(forward(batch["image"], batch["valid"]), truth)
        loss = model.combined(terms, model.weights(truth))["loss"]
        loss.backward()
        results.append((loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-4)
    assert (results[1][1] - results[0][1]).abs().max() < 1e-3 * results[0][1].abs().max()
