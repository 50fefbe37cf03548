"""Data on the device give the batches of the sampler; the device is a CPU here."""

import numpy as np
import pytest
import torch

from segcore.constants import IGNORE
from segcore.data.prepared import PreparedData
from segcore.params import TrainSettings
from segcore.training import augmentation
from segcore.training.gpu_sampler import GpuSampler
from segcore.training.loader import Loader
from segcore.training.runtime import choose_runtime
from segcore.training.sampler import Sampler
from tasks.ingest import ingest
from tasks.prepare import prepare
from tests.support.tiny import make_scene, params_for, write_tif

CPU = torch.device("cpu")


def sampler(prepared_scene, **augment):
    p, data = prepared_scene
    options = {"steps": 3, "batch": 6, "crop": 32, "validate_every": 3, "augment": augment}
    return Sampler(data, TrainSettings(**options), p.prepare.window, seed=3)


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in ("image", "label", "valid"))


def batches(host):
    """Batches of the sampler and of the GPU sampler, whose labels and validity are equal."""
    on_device = GpuSampler(host, CPU)
    for step in range(6):
        plain, other = host.batch(step), on_device.batch(step)
        assert torch.equal(plain["label"], other["label"]) and torch.equal(plain["valid"], other["valid"])
        yield plain, other


def test_flips_and_turns_are_exactly_those_of_the_sampler(prepared_scene):
    host = sampler(prepared_scene, scale=1.0, brightness=0, contrast=0)
    for plain, other in batches(host):
        # not equal, because pixels are centred and moved back
        assert torch.allclose(plain["image"], other["image"], atol=1e-3)
        assert {k: v.dtype for k, v in plain.items()} == {k: v.dtype for k, v in other.items()}


def test_resized_and_recoloured_pixels_are_within_a_level(prepared_scene):
    host = sampler(prepared_scene, scale=1.25, brightness=0.2, contrast=0.2)
    for plain, other in batches(host):
        difference = (plain["image"] - other["image"]).abs()
        # one level times the gain of contrast
        assert difference.max() <= 1.3 and difference.mean() < 0.5


ALL = dict.fromkeys(augmentation._PROBABILITIES, 1)
WARPS = {name: float(name in ("rotation", "elastic")) for name in ALL}


@pytest.mark.parametrize(("chances", "scale"), [(ALL, 1.0), (WARPS, 1.0), (WARPS, 1.25)])
def test_strong_augmentation_is_that_of_the_sampler(prepared_scene, monkeypatch, chances, scale):
    monkeypatch.setattr(augmentation, "_PROBABILITIES", chances)
    host = sampler(prepared_scene, scale=scale, strength=1)
    # beyond the item too
    host.places = [(item, row - 6, col) for item, row, col in host.places]
    for plain, other in batches(host):
        difference = (plain["image"] - other["image"]).abs()
        if scale == 1:
            assert difference.max() < 0.01
        else:
            assert difference.max() <= 1.3 and difference.mean() < 0.5


def test_a_part_of_a_batch_equals_that_of_the_whole_batch(prepared_scene):
    on_device = GpuSampler(sampler(prepared_scene), CPU)
    whole, part = on_device.batch(1), on_device.batch(1, slice(2, 5))
    assert torch.equal(whole["label"][2:5], part["label"])
    assert torch.allclose(whole["image"][2:5], part["image"], atol=1e-4)


def test_pixels_outside_an_item_are_ignored(prepared_scene):
    host = sampler(prepared_scene, flip=False, rotate90=False, scale=1.0, brightness=0, contrast=0)
    host.places = [(item, -8, 0) for item, _, _ in host.places]
    # no room to move: every crop begins eight rows above its item
    host.window = 32
    plain, on_device = host.batch(0), GpuSampler(host, CPU).batch(0)
    assert (on_device["label"][:, :8] == IGNORE).all() and not on_device["valid"][:, :8].any()
    assert torch.equal(plain["label"], on_device["label"])
    assert torch.allclose(plain["image"], on_device["image"], atol=1e-3)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_loader_gives_the_batches_of_its_steps_in_order(prepared_scene, workers):
    host = sampler(prepared_scene)
    settings = host.settings.model_copy(
        update={"speed": host.settings.speed.model_copy(update={"workers": workers})}
    )
    threads = torch.get_num_threads()
    with Loader(host, slice(1, 4), choose_runtime(settings, host.data, CPU), CPU) as loader:
        # those of the network's operators
        assert torch.get_num_threads() == threads
        # from step 2, as after a resume
        for step in range(2, 9):
            assert same(loader.batch(step), host.batch(step, slice(1, 4)))


def test_16_bit_values_are_not_changed_on_the_device(prepared_scene, monkeypatch):
    host = sampler(prepared_scene, scale=1.0, brightness=0, contrast=0)
    original = type(host.data).whole

    def wide(self, item, **asked):
        patch = original(self, item, **asked)
        return patch.__class__((patch.image.astype(np.uint16) * 257), patch.label, patch.valid)

    monkeypatch.setattr(type(host.data), "whole", wide)
    wider = GpuSampler(host, CPU).batch(0)["image"]
    monkeypatch.undo()
    assert torch.allclose(wider, host.batch(0)["image"] * 257, rtol=1e-4, atol=1)


@pytest.mark.parametrize(("scale", "strength"), [(1.0, 0), (1.25, 0), (1.25, 1)])
def test_labels_of_several_annotators_are_those_of_the_sampler(prepared_annotated, scale, strength):
    host = sampler(prepared_annotated, scale=scale, strength=strength)
    # beyond the item too
    host.places = [(item, row - 6, col) for item, row, col in host.places]
    values, ignored = set(), 0
    for _, other in batches(host):
        label = other["label"]
        assert label.shape == (6, 2, 32, 32) and label.dtype == torch.float32
        values |= {round(value, 3) for value in label.unique().tolist()}
        ignored += int((label.sum(1) == 0).sum())
    assert values == {0.0, 0.333, 0.667, 1.0} and ignored


def test_labels_of_several_annotators_count_among_the_bytes_on_the_device(prepared_annotated):
    host = sampler(prepared_annotated)
    on_device = GpuSampler(host, CPU)
    held = (on_device.pixels, on_device.labels, on_device.valid)
    assert sum(one.numel() * one.element_size() for one in held) == host.data.training_bytes()


@pytest.fixture(scope="module")
def numbered_scene(tmp_path_factory):
    """Prepared data of a scene whose labels and object numbers are equal up to a factor: (params, PreparedData)."""
    folder = tmp_path_factory.mktemp("numbered")
    rng = np.random.default_rng(0)
    # large numbers, which a float of 32 bits or a signed integer would change
    numbers = np.kron(rng.integers(0, 3, (64, 64)), np.ones((4, 4), int)).astype(np.uint32) * 2_000_000_001
    make_scene(folder / "source")
    write_tif(folder / "source/masks/scene.tif", numbers[None])
    data = {"instances": True, "label_values": {"others": 1}}
    p = params_for(folder / "source", scene=True, data=data)
    ingest(p.data, folder / "ingested")
    return p, PreparedData(prepare(p, folder / "ingested", folder / "prepared"))


@pytest.mark.parametrize(("scale", "strength"), [(1.0, 0), (1.25, 0), (1.25, 1)])
def test_object_numbers_move_as_labels_do_on_both_samplers(numbered_scene, scale, strength):
    p, data = numbered_scene
    # every object is larger than a crop
    rules = {"min_visible": 0, "min_area": 0}
    options = {"steps": 3, "batch": 6, "crop": 32, "validate_every": 3}
    options["augment"] = {"scale": scale, "strength": strength}
    settings = TrainSettings(**options, objects=rules)
    host = Sampler(data, settings, p.prepare.window, seed=3, instances=True)
    plain = Sampler(data, settings, p.prepare.window, seed=3)
    # beyond the item too
    for sampler in (host, plain):
        sampler.places = [(item, row - 6, col) for item, row, col in sampler.places]
    on_device, found = GpuSampler(host, CPU), set()
    for step in range(6):
        batch, other = host.batch(step), on_device.batch(step)
        assert batch["instance"].dtype == other["instance"].dtype == torch.int64
        assert batch["instance"].shape == batch["label"].shape
        assert torch.equal(batch["instance"], other["instance"])
        assert torch.equal(batch["label"] == 1, batch["instance"] > 0)
        found |= set(batch["instance"].unique().tolist())
        without = plain.batch(step)
        assert set(without) == {"image", "label", "valid"} and same(without, batch)
    assert found == {0, 2_000_000_001, 4_000_000_002}
    assert "instance" not in GpuSampler(plain, CPU).batch(0)


def test_object_numbers_count_among_the_bytes_on_the_device(numbered_scene):
    _, data = numbered_scene
    assert data.training_bytes(instances=True) - data.training_bytes() == 4 * 256 * 256
