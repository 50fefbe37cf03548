"""Crops of instance networks: cut objects are neither object nor background, and some crops have no object."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from segcore.constants import IGNORE
from segcore.data.prepared import PreparedData
from segcore.params import TrainSettings
from segcore.training.cut_objects import CutObjects
from segcore.training.gpu_sampler import GpuSampler
from segcore.training.sampler import Sampler
from tasks.ingest import ingest
from tasks.prepare import prepare
from tests.support.discs import VALUES, make_discs
from tests.support.tiny import params_for
from tests.support.toy_instance import Toy

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "touching"])
def discs(request, tmp_path_factory):
    """Twelve images of touching discs with a name each; and one of two more without any."""
    root = tmp_path_factory.mktemp("discs")
    source = make_discs(root / "source")
    for seed, name in enumerate(("b0", "b1")):
        empty = np.random.default_rng(seed).integers(40, 80, (64, 64), dtype=np.uint8)
        Image.fromarray(np.stack([empty] * 3, axis=2)).save(source / "images" / f"{name}.png")
        Image.fromarray(empty * 0).save(source / "masks" / f"{name}.png")
    given = {
        "train": [*(f"a{i}" for i in range(8)), "b0"],
        "validation": ["a8", "b1"],
        "test": ["a9", "a10", "a11"],
    }
    p = params_for(source, data=VALUES | {"touching": request.param}, split={"given": given})
    ingest(p.data, root / "ingested")
    return p, PreparedData(prepare(p, root / "ingested", root / "prepared"))


def sampler(discs, instances=True, **changes):
    p, data = discs
    options = {"steps": 3, "batch": 8, "crop": 32, "validate_every": 3, "weights": "none"}
    return Sampler(data, TrainSettings(**options | changes), p.prepare.window, seed=3, instances=instances)


def expected(data, settings, draw):
    """Label and numbers of a crop without flips, turns and resizing, by a loop over its objects."""
    window, _ = draw
    patch = data.crop(*window, instances=True)
    label, numbers = patch.label.copy(), patch.instances.astype(np.int64)
    area = data.objects[data.objects["item"] == window.item].set_index("id")["area"]
    ignored = 0
    for number in np.unique(numbers[numbers > 0]):
        inside = numbers == number
        edges = inside[[0, -1]].any() or inside[:, [0, -1]].any()
        hidden = inside.sum() < settings.objects.min_visible * area[number]
        if hidden or (edges and inside.sum() < settings.objects.min_area):
            label[inside], numbers[inside] = IGNORE, 0
            ignored += 1
    return label, numbers, ignored


OFF = {"flip": False, "rotate90": False, "scale": 1, "brightness": 0, "contrast": 0}


@pytest.mark.parametrize(
    "rules", [{}, {"min_visible": 0.9, "min_area": 0}, {"min_visible": 0, "min_area": 60}]
)
def test_cut_objects_are_ignored_by_their_visible_part_and_the_rest_is_unchanged(discs, rules):
    _, data = discs
    host, ignored, kept = sampler(discs, augment=OFF, objects=rules), 0, 0
    for step in range(8):
        batch = host.batch(step)
        for place, draw in enumerate(host.draws(step)):
            label, numbers, count = expected(data, host.settings, draw)
            assert np.array_equal(batch["label"][place].numpy(), label)
            assert np.array_equal(batch["instance"][place].numpy(), numbers)
            ignored, kept = ignored + count, kept + len(np.unique(numbers)) - 1
    assert ignored > 0 and kept > 0


@pytest.mark.parametrize("strength", [0, 1])
def test_both_samplers_have_the_same_labels_and_numbers(discs, strength):
    host = sampler(discs, augment={"strength": strength})
    on_device = GpuSampler(host, CPU)
    for step in range(12):
        batch, other = host.batch(step), on_device.batch(step)
        for name in ("label", "valid", "instance"):
            assert torch.equal(batch[name], other[name]) and batch[name].dtype == other[name].dtype
        half = slice(2, 5)
        assert torch.equal(host.batch(step, half)["label"], batch["label"][half])
        assert torch.equal(on_device.batch(step, half)["instance"], batch["instance"][half])


def test_an_object_that_is_seen_whole_is_never_ignored_however_much_its_pixels_are_resized(discs):
    """The share is of the pixels before they are resized."""
    _, data = discs
    host = sampler(discs, augment={"scale": 2.0}, objects={"min_visible": 1, "min_area": 0})
    whole = 0
    for step in range(8):
        batch = host.batch(step)
        for place, (window, _) in enumerate(host.draws(step)):
            patch = data.crop(*window, instances=True)
            objects = data.objects[data.objects["item"] == window.item]
            numbers, counts = np.unique(patch.instances[patch.instances > 0], return_counts=True)
            full = objects.set_index("id")["area"].loc[numbers].to_numpy()
            complete = set(numbers[counts == full].tolist())
            # small ones may fall between the sampled pixels
            seen = set(batch["instance"][place].unique().tolist()) - {0}
            assert seen <= complete and len(complete - seen) <= len(complete) // 2
            whole += len(seen)
    assert whole > 0


def test_semantic_networks_train_on_all_labels_and_instance_networks_on_no_touching_class(discs):
    _, data = discs
    host, plain = sampler(discs), sampler(discs, instances=False)
    hidden = touching = 0
    for step in range(8):
        batch, other = host.batch(step), plain.batch(step)
        assert set(other) == {"image", "label", "valid"} and torch.equal(batch["image"], other["image"])
        assert batch["label"].unique().tolist()[-1] in (1, IGNORE) and not (batch["label"] == 2).any()
        same = (batch["label"] == other["label"]) | (batch["label"] == IGNORE) | (other["label"] == 2)
        assert same.all()
        hidden += int(((batch["label"] == IGNORE) & (other["label"] != IGNORE)).sum())
        touching += int((other["label"] == 2).sum())
    assert hidden > 0 and (touching > 0) == data.touching


def test_a_share_of_the_crops_has_no_objects_for_every_network(discs):
    _, data = discs
    for instances in (True, False):
        host = sampler(discs, instances, objects={"empty_share": 0.25}, foreground_share=0.5)
        usual = sampler(discs, instances, objects={"empty_share": 0})
        for step in range(8):
            drawn, plain = host.draws(step), usual.draws(step)
            # the last two of a batch of eight
            assert drawn[:6] == plain[:6]
            for window, _ in drawn[6:]:
                assert not data.crop(*window, instances=True).instances.any()
            assert [changes for _, changes in drawn] == [changes for _, changes in plain]
    # those on foreground remain
    most = sampler(discs, objects={"empty_share": 1}, foreground_share=0.5).draws(0)
    assert all(data.crop(*window, instances=True).instances.any() for window, _ in most[:4])


@pytest.mark.parametrize(
    ("batch", "foreground", "share", "empty"),
    [
        (4, 0.5, 0.1, 1),
        (5, 0.5, 0.1, 1),
        (8, 0.5, 0.1, 1),
        (8, 0.5, 0.25, 2),
        (20, 0.5, 0.15, 3),
        (8, 0.5, 0, 0),
        (4, 1, 0.1, 0),
        (8, 0.75, 0.5, 2),
    ],
)
def test_the_share_of_empty_crops_is_rounded_up_and_at_most_what_the_foreground_leaves(
    discs, batch, foreground, share, empty
):
    shares = {"foreground_share": foreground, "batch": batch}
    host = sampler(discs, objects={"empty_share": share}, **shares)
    usual = sampler(discs, objects={"empty_share": 0}, **shares)
    changed = 0
    for step in range(20):
        drawn, plain = host.draws(step), usual.draws(step)
        assert drawn[: batch - empty] == plain[: batch - empty]
        crops = [discs[1].crop(*window, instances=True) for window, _ in drawn[batch - empty :]]
        assert not any(crop.instances.any() for crop in crops)
        changed += drawn != plain
    assert (changed > 0) == (empty > 0)


def test_without_windows_that_are_empty_or_without_objects_draws_are_as_before(prepared_scene, discs):
    p, data = prepared_scene
    settings = p.for_architecture("unet").model_copy(update={"batch": 8})
    asked = settings.model_copy(update={"objects": settings.objects.model_copy(update={"empty_share": 0.5})})
    before = [Sampler(data, s, p.prepare.window, 0).draws(3) for s in (settings, asked)]
    assert before[0] == before[1]
    full = copy.copy(discs[1])
    full.windows = full.windows[full.windows["class_1"] > 0]
    drawn = [Sampler(full, s, discs[0].prepare.window, 0).draws(3) for s in (settings, asked)]
    assert full.instances and drawn[0] == drawn[1]


def test_a_cut_object_below_the_limit_changes_no_gradient(discs):
    """Its pixels, class and number are of no account."""
    _, data = discs
    host = sampler(discs, objects={"min_visible": 0.8}, foreground_share=1, augment=OFF)
    changed = 0
    for step in range(4):
        batch = host.batch(step)
        gradients = []
        for other in (False, True):
            torch.manual_seed(0)
            model = Toy()
            image, label, numbers = (batch[name].clone() for name in ("image", "label", "instance"))
            if other:
                raw = [data.crop(*window, instances=True).instances for window, _ in host.draws(step)]
                gone = torch.from_numpy(np.stack(raw).astype(np.int64)).gt(0) & (numbers == 0)
                changed += int(gone.sum())
                image[gone[:, None].expand_as(image)] = 250
                numbers[gone] = 77
            model.loss({"image": image, "label": label, "instance": numbers, "valid": batch["valid"]})[
                "loss"
            ].backward()
            gradients.append(model.encoder.weight.grad)
        assert torch.equal(*gradients)
    assert changed > 0


def test_numbers_of_different_items_are_different_objects_however_large():
    class Data:
        import pandas as pd

        objects = pd.DataFrame(
            {"item": ["a", "b", "b"], "id": [2**32 - 1, 2**32 - 1, 5], "area": [4, 100, 2]}
        )

    cut = CutObjects(Data(), TrainSettings(steps=1, batch=1, crop=16, validate_every=1).objects, CPU)
    numbers = torch.zeros(2, 16, 16, dtype=torch.int64)
    numbers[:, 3:5, 3:5] = 2**32 - 1
    numbers[1, 8, 8:10] = 5
    label = (numbers > 0).long()
    new_label, new = cut.ignored(["a", "b"], label, numbers, list(numbers))
    # of the second image's object, 4 of 100 pixels are seen
    assert torch.equal(new[0], numbers[0]) and new[1].unique().tolist() == [0, 5]
    assert (new_label[1] == IGNORE).sum() == 4 and (new_label[0] == IGNORE).sum() == 0
