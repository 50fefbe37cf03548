"""Data held on the device give the batches of the loader; a CPU stands for the device here."""

import numpy as np
import pytest
import torch

from segcore.constants import IGNORE
from segcore.params import TrainSettings
from segcore.training.gpu_sampler import GpuSampler
from segcore.training.loader import Loader
from segcore.training.runtime import choose_runtime
from segcore.training.sampler import Sampler

CPU = torch.device("cpu")


def sampler(prepared_scene, **augment):
    p, data = prepared_scene
    options = {"steps": 3, "batch": 6, "crop": 32, "validate_every": 3, "augment": augment}
    return Sampler(data, TrainSettings(**options), p.prepare.window, seed=3)


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in ("image", "label", "valid"))


def batches(own):
    """Those of the loader and of held data, whose labels and validity are equal."""
    held = GpuSampler(own, CPU)
    for step in range(6):
        plain, other = own.batch(step), held.batch(step)
        assert torch.equal(plain["label"], other["label"]) and torch.equal(plain["valid"], other["valid"])
        yield plain, other


def test_flips_and_turns_are_exactly_those_of_the_loader(prepared_scene):
    own = sampler(prepared_scene, scale=1.0, brightness=0, contrast=0)
    for plain, other in batches(own):
        assert torch.allclose(
            plain["image"], other["image"], atol=1e-3
        )  # centred and moved back: float rounding
        assert {k: v.dtype for k, v in plain.items()} == {k: v.dtype for k, v in other.items()}


def test_resized_and_recoloured_pixels_are_within_a_level(prepared_scene):
    own = sampler(prepared_scene, scale=1.25, brightness=0.2, contrast=0.2)
    for plain, other in batches(own):
        difference = (plain["image"] - other["image"]).abs()
        assert difference.max() <= 1.3 and difference.mean() < 0.5  # a level times the gain of contrast


def test_a_share_of_a_batch_is_what_it_is_in_the_whole(prepared_scene):
    held = GpuSampler(sampler(prepared_scene), CPU)
    whole, part = held.batch(1), held.batch(1, slice(2, 5))
    assert torch.equal(whole["label"][2:5], part["label"])
    assert torch.allclose(whole["image"][2:5], part["image"], atol=1e-4)


def test_what_lies_outside_an_item_is_ignored(prepared_scene):
    own = sampler(prepared_scene, flip=False, rotate90=False, scale=1.0, brightness=0, contrast=0)
    own.places = [(item, -8, 0) for item, _, _ in own.places]
    own.window = 32  # no room to move: every crop begins eight rows above its item
    plain, held = own.batch(0), GpuSampler(own, CPU).batch(0)
    assert (held["label"][:, :8] == IGNORE).all() and not held["valid"][:, :8].any()
    assert torch.equal(plain["label"], held["label"])
    assert torch.allclose(plain["image"], held["image"], atol=1e-3)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_feed_gives_the_batches_of_its_steps_in_order(prepared_scene, workers):
    own = sampler(prepared_scene)
    settings = own.settings.model_copy(
        update={"speed": own.settings.speed.model_copy(update={"workers": workers})}
    )
    threads = torch.get_num_threads()
    with Loader(own, slice(1, 4), choose_runtime(settings, own.data, CPU), CPU) as feed:
        assert torch.get_num_threads() == threads  # those of the network's operators
        for step in range(2, 9):  # as after a resume
            assert same(feed.batch(step), own.batch(step, slice(1, 4)))


def test_values_of_16_bits_are_held_as_they_are(prepared_scene, monkeypatch):
    own = sampler(prepared_scene, scale=1.0, brightness=0, contrast=0)
    original = type(own.data).whole

    def wide(self, item):
        patch = original(self, item)
        return patch.__class__((patch.image.astype(np.uint16) * 257), patch.label, patch.valid)

    monkeypatch.setattr(type(own.data), "whole", wide)
    wider = GpuSampler(own, CPU).batch(0)["image"]
    monkeypatch.undo()
    assert torch.allclose(wider, own.batch(0)["image"] * 257, rtol=1e-4, atol=1)
