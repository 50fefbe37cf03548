"""The runtime: values of auto, values that are set, and that a resume keeps them."""

import pytest
import torch

from segcore import cpu as counting
from segcore.cpu import cores
from segcore.errors import ParamsError
from segcore.params import Speed, TrainSettings
from segcore.training import micro_batch
from segcore.training.build import new_model
from segcore.training.distributed import Distributed
from segcore.training.runtime import Runtime, choose_runtime, fit_micro_batch, resume_runtime

CPU = torch.device("cpu")


def settings(**over):
    values = {"weights": "none", "steps": 3, "batch": 4, "crop": 32, "validate_every": 3}
    return TrainSettings(**{**values, "model": {"encoder": "plain", "width": 4}, **over})


def test_auto_on_a_cpu(prepared_scene):
    found = choose_runtime(settings(), prepared_scene[1], CPU)
    assert found.device == "cpu" and found.channels_last and found.fused
    assert not found.compile and not found.hold_data
    assert 1 <= found.threads <= cores() and found.micro_batch == 4
    assert "channels-last" in found.text() and "not: compiled" in found.text()


def test_every_part_of_the_runtime_can_be_set(prepared_scene):
    fixed = {"channels_last": False, "fused": False, "compile": True, "hold_data": True, "keep_memory": False}
    fixed |= {"threads": 1, "workers": 2, "micro_batch": 3}
    assert set(fixed) == set(Speed.model_fields)
    found = choose_runtime(settings(speed=fixed, precision="bf16"), prepared_scene[1], CPU).as_dict()
    # data on the device need no loader threads
    assert found == {**fixed, "device": "cpu", "precision": "bf16", "workers": 0}


def test_a_resume_keeps_the_runtime_unless_the_device_is_another(prepared_scene):
    fresh = choose_runtime(settings(), prepared_scene[1], CPU)
    old = {**fresh.as_dict(), "threads": 7, "micro_batch": 1}
    assert resume_runtime(old, fresh) == Runtime(**old)
    assert resume_runtime({**old, "device": "cuda"}, fresh) is None and resume_runtime(None, fresh) is None


def test_a_distributed_training_does_not_accumulate_gradients(prepared_scene):
    with pytest.raises(ParamsError, match="micro_batch 1 of a batch of 4 on 2 processes"):
        choose_runtime(settings(speed={"micro_batch": 1}), prepared_scene[1], CPU, Distributed(0, 2))


def test_the_micro_batch_is_halved_until_it_fits_and_the_model_is_unchanged(prepared_scene, monkeypatch):
    chosen = settings()
    model = new_model("unet", chosen, prepared_scene[1], 0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    one = micro_batch.kept_bytes(model, chosen, "fp32")
    pixels = chosen.crop**2
    # the first convolutions alone keep more
    assert one > 4 * pixels * 3 * 4
    model.load_state_dict(before)

    class Memory:
        # an item and its gradients take 2 * one, and four fifths may be used: two items
        available = one * 5

    monkeypatch.setattr(micro_batch.psutil, "virtual_memory", lambda: Memory)
    fresh = choose_runtime(chosen, prepared_scene[1], CPU)
    assert fit_micro_batch(fresh, chosen, model).micro_batch in (1, 2)
    Memory.available = one * 100
    assert fit_micro_batch(fresh, chosen, model).micro_batch == 4
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    by_hand = settings(speed={"micro_batch": 3})
    assert fit_micro_batch(choose_runtime(by_hand, prepared_scene[1], CPU), by_hand, model).micro_batch == 3


def test_a_container_s_limit_counts_as_cores(tmp_path, monkeypatch):
    limit = tmp_path / "cpu.max"
    limit.write_text("100000 100000\n")
    monkeypatch.setattr(counting, "_CPU_LIMIT", limit)
    assert cores() == 1
    limit.write_text("max 100000\n")
    assert cores() >= 1
