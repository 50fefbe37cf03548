"""What holds for every instance network: losses that add up, objects of an image alone, and learning."""

import copy
import json

import numpy as np
import pytest
import torch

from segcore.constants import IGNORE
from segcore.errors import ModelError
from segcore.models.base.bundle import load_bundle, save_bundle
from segcore.models.base.factory import rebuild_model
from segcore.models.base.instance import InstanceModel
from segcore.training.determinism import Determinism
from tests.support.instance_batches import (
    able,
    case_id,
    cases,
    crowd,
    mixed,
    network,
    quality,
    scene,
    stacked,
    trained,
)

CASES = cases()
ARCHITECTURES = [case for case in CASES if case[0] != "toy"]
every_network = pytest.mark.parametrize("case", CASES, ids=case_id)
every_architecture = pytest.mark.parametrize("case", ARCHITECTURES, ids=case_id)
# uneven numbers of objects
UNEVEN = [0, 40, 0, 3, 1, 12, 0, 5]


@pytest.fixture(scope="module")
def uneven():
    return stacked([crowd(seed, count) for seed, count in enumerate(UNEVEN)])


@pytest.fixture(scope="module", params=CASES, ids=case_id)
def finder(request):
    """A case and a network of it that finds objects."""
    model = network(request.param)
    if request.param[0] == "toy":
        with torch.no_grad():
            model.encoder.weight.fill_(2.0)
            model.encoder.bias.fill_(0.5)
    return request.param, able(model)


def part(batch, places):
    return {name: tensor[places] for name, tensor in batch.items()}


def gradients(model):
    assert all(p.grad is not None for p in model.parameters()), "a parameter has no gradient"
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def backward(model, batch, totals=None):
    """Loss and gradient of a batch."""
    model.zero_grad(set_to_none=True)
    loss = model.loss(batch, totals)["loss"]
    loss.backward()
    return loss.item(), gradients(model)


def added(weights):
    return {name: torch.stack([w[name].float() for w in weights]).sum() for name in weights[0]}


@every_network
@pytest.mark.parametrize("count", [0, 400])
def test_without_objects_and_with_400_the_loss_is_finite_and_every_parameter_gets_a_gradient(case, count):
    model = network(case).train()
    loss, gradient = backward(model, stacked([crowd(1, count), crowd(2, count)]))
    assert np.isfinite(loss) and loss > 0 and gradient.isfinite().all()


@every_network
def test_an_image_without_objects_punishes_what_is_found_in_it(case):
    """One step on empty images lowers the loss on them."""
    model, batch = network(case).train(), stacked([scene(1, count=0), scene(2, count=0)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(4):
        loss, gradient = backward(model, batch)
        assert gradient.abs().max() > 0
        optimizer.step()
        losses.append(loss)
    assert losses[-1] < losses[0]


@every_network
def test_a_batch_that_is_all_ignored_has_a_loss_of_0_and_no_gradient(case):
    model, batch = network(case).train(), stacked([crowd(1, 40), scene(2)])
    for changed in (
        {"label": torch.full_like(batch["label"], IGNORE)},
        {"valid": torch.zeros_like(batch["valid"])},
    ):
        loss, gradient = backward(model, {**batch, **changed})
        assert loss == 0 and not gradient.any()


@every_network
def test_sums_and_weights_of_a_batch_are_those_of_its_images(case, uneven):
    model = network(case).eval()
    with torch.no_grad():
        truth = model.truth(uneven)
        whole = model.terms(model(uneven["image"], uneven["valid"]), truth)
        single, weights = [], []
        for place in range(len(UNEVEN)):
            one = part(uneven, slice(place, place + 1))
            weights.append(model.weights(model.truth(one)))
            single.append(model.terms(model(one["image"], one["valid"]), model.truth(one)))
    of_batch = model.weights(truth)
    assert set(whole) == set(of_batch) <= set(model.coefficients)
    for name in whole:
        assert float(of_batch[name]) == pytest.approx(float(added(weights)[name]), rel=1e-6), name
        assert float(whole[name]) == pytest.approx(float(added(single)[name]), rel=1e-4, abs=1e-4), name
        assert whole[name].dtype == torch.float32 and not of_batch[name].requires_grad


@every_network
@pytest.mark.parametrize("parts", [2, 3, 8])
def test_parts_of_a_batch_add_up_to_the_gradient_of_the_whole(case, parts, uneven):
    """As micro-batches and as processes, with batch norm in evaluation mode."""
    model = network(case).eval()
    loss, gradient = backward(model, uneven)
    split = [part(uneven, places) for places in torch.arange(len(UNEVEN)).tensor_split(parts)]
    totals = added([model.weights(model.truth(one)) for one in split])
    found = [backward(model, one, totals) for one in split]
    assert sum(one for one, _ in found) == pytest.approx(loss, rel=1e-4)
    summed = torch.stack([g for _, g in found]).sum(0)
    assert (summed - gradient).abs().max() < 1e-3 * gradient.abs().max()


@every_network
def test_labels_and_numbers_under_ignored_pixels_change_no_loss(case):
    model, batch = network(case).eval(), stacked([scene(1), scene(2), crowd(3, 40)])
    rng = torch.Generator().manual_seed(0)
    hidden = torch.rand(batch["label"].shape, generator=rng) < 0.3
    hidden[:, 20:40, 20:40] = True
    label = batch["label"].masked_fill(hidden, IGNORE)
    other = torch.randint(1, 60, label.shape, generator=rng)
    numbers = torch.where(hidden, other, batch["instance"])
    with torch.no_grad():
        plain = model.loss({**batch, "label": label})
        assert model.loss({**batch, "label": label, "instance": numbers}) == plain
        # pixels without data are ignored whatever their label is
        valid, image = ~hidden, batch["image"].masked_fill(hidden[:, None], 7.0)
        without = model.loss({**batch, "valid": valid})
        classes = torch.where(hidden, torch.randint(0, 3, label.shape, generator=rng), batch["label"])
        changed = {"image": image, "valid": valid, "label": classes, "instance": numbers}
        assert model.loss({**batch, **changed}) == without


def finite_over(case, count):
    """Optimiser steps on random batches."""
    model = network(case).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for seed in range(count):
        loss, gradient = backward(model, mixed(seed))
        assert np.isfinite(loss) and gradient.isfinite().all(), seed
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        if seed % 10 == 0:
            predicted = model.predict(mixed(seed)["image"])
            assert all(np.isfinite(found.scores).all() for found in predicted)


@every_network
def test_losses_and_gradients_are_finite_over_random_batches(case):
    finite_over(case, 20)


@pytest.mark.slow
@every_architecture
def test_losses_and_gradients_are_finite_over_500_random_batches(case):
    finite_over(case, 500)


@every_network
def test_two_trainings_on_a_cpu_are_bit_identical(case):
    states = []
    for _ in range(2):
        with Determinism(True) as named:
            state = trained(network(case), 3, batch=2).state_dict()
        assert not named
        states.append(state)
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))


def equal(a, b):
    return (
        np.array_equal(a.boxes, b.boxes)
        and np.array_equal(a.scores, b.scores)
        and np.array_equal(a.classes, b.classes)
        and all(np.array_equal(x, y) for x, y in zip(a.masks, b.masks, strict=True))
    )


def test_objects_of_an_image_do_not_depend_on_the_other_images(finder):
    _, model = finder
    images = [
        stacked([s])["image"] for s in (scene(901, count=6), scene(902), crowd(3, 400), scene(4, count=0))
    ]
    a, b, c, d = images
    first, *_ = model.predict(torch.cat([a, b, c]))
    assert len(first) > 0
    for others in ([b, d], [c, d], [a, a], [d, d]):
        assert equal(model.predict(torch.cat([a, *others]))[0], first)
        # in another place of the batch
        assert equal(model.predict(torch.cat([*others, a]))[2], first)
    # convolutions of other batches may round otherwise
    (alone,) = model.predict(a)
    assert len(alone) == len(first) and np.allclose(alone.scores, first.scores, atol=1e-3)


def check(model, found, height, width):
    """What holds for any objects that a network predicts."""
    assert (found.height, found.width) == (height, width)
    assert found.boxes.shape == (len(found), 4) and len(found.scores) == len(found.classes) == len(found)
    for (row, col, tall, wide), mask in zip(found.boxes, found.masks, strict=True):
        assert mask.shape == (tall, wide) and mask.dtype == bool and mask.any()
        assert row >= 0 and col >= 0 and row + tall <= height and col + wide <= width
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    assert set(found.classes.tolist()) <= set(model.foreground)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (37, 53), (7, 100), (1, 1), (129, 65)])
def test_masks_are_within_the_image_and_none_is_empty(finder, height, width):
    _, model = finder
    batch = stacked([scene(seed, 136, 40) for seed in (5, 6)])
    for found in model.predict(batch["image"][..., :height, :width]):
        check(model, found, height, width)
        assert found.scores.dtype == np.float32 and found.classes.dtype == np.uint8
        assert len(found) > 0 or height < 129


def test_pixels_without_data_are_in_no_object(finder):
    _, model = finder
    batch = stacked([scene(5), scene(6)])
    valid = batch["valid"].clone()
    valid[:, :, 30:] = False
    for found in model.predict(batch["image"], valid):
        check(model, found, 64, 64)
        assert not (found.numbers()[:, 30:] > 0).any()


def needs_tensors(model):
    """Skip a network without the method that only exports need."""
    if type(model).detect_tensors is InstanceModel.detect_tensors:
        pytest.skip("it has no detections as tensors")


def check_same(detections, objects):
    """Check that the detections of an image are the objects of `predict`, but for their order."""
    scores, classes, _, masks = (x.numpy() for x in detections)
    left = list(np.flatnonzero(scores))
    for index, ((row, col, tall, wide), mask) in enumerate(zip(objects.boxes, objects.masks, strict=True)):
        plane = np.zeros(masks.shape[1:], bool)
        plane[row : row + tall, col : col + wide] = mask
        of_class = [p for p in left if classes[p] == objects.classes[index]]
        same = [p for p in of_class if abs(scores[p] - objects.scores[index]) < 1e-5]
        # a pixel of which the probability is .5 but for rounding
        place, *_ = [p for p in same if (masks[p] != plane).sum() <= 1]
        left.remove(place)
    assert not left


def check_detections(model, images, valid=None):
    """Detections, compared with `predict`."""
    with torch.no_grad():
        found = model.detections(images, valid)
    number, depth = found.scores.shape
    assert found.classes.shape == (number, depth) and found.boxes.shape == (number, depth, 4)
    assert found.masks.shape == (number, depth, *images.shape[-2:])
    types = [found.scores.dtype, found.classes.dtype, found.boxes.dtype, found.masks.dtype]
    assert types == [torch.float32, torch.int64, torch.float32, torch.bool]
    predicted = model.predict(images, valid)
    for image, objects in enumerate(predicted):
        check_same([x[image] for x in found], objects)
    none = found.scores == 0
    assert not found.classes[none].any() and not found.boxes[none].any() and not found.masks[none].any()
    for (left, top, right, bottom), mask in zip(
        found.boxes[~none].long().tolist(), found.masks[~none].numpy(), strict=True
    ):
        rows, cols = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        assert (left, top, right, bottom) == (cols[0], rows[0], cols[-1] + 1, rows[-1] + 1)
    return found


@pytest.mark.parametrize(("height", "width"), [(64, 64), (37, 53), (129, 65)])
def test_detections_are_the_objects_of_predict(finder, height, width):
    _, model = finder
    needs_tensors(model)
    images = stacked([scene(seed, 136, 40) for seed in (5, 6)] + [scene(7, 136, 0)])["image"]
    images = images[..., :height, :width]
    valid = torch.ones(3, height, width, dtype=torch.bool)
    valid[1, height // 2 :, : width // 2] = False
    assert check_detections(model, images).scores.any() or height < 129
    assert not (check_detections(model, images, valid).masks & ~valid[:, None]).any()


def test_where_no_pixel_has_data_there_are_no_detections(finder):
    _, model = finder
    needs_tensors(model)
    images = torch.full((2, 3, 64, 64), torch.nan)
    with torch.no_grad():
        found = model.detections(images, torch.zeros(2, 64, 64, dtype=torch.bool))
    assert found.scores.shape[1] > 0 and not any(x.any() for x in found)


@every_architecture
@pytest.mark.parametrize("changes", [{"magnify": 2}, {"magnify": 0.5}, {"foreground": (1, 3, 4)}], ids=str)
def test_detections_of_enlarged_images_and_of_other_classes_are_the_objects_of_predict(case, changes):
    model = able(network(case, num_classes=5, **changes))
    needs_tensors(model)
    images = stacked([scene(1, 63), scene(2, 63, 40)])["image"]
    check_detections(model, images[..., :61, :47])


def test_a_network_without_detections_as_tensors_says_how_it_gets_them():
    model = network(("toy", {}))
    with pytest.raises(ModelError, match="cannot be exported") as error:
        model.detections(torch.zeros(1, 3, 64, 64))
    assert "detect_tensors" in str(error.value)


def test_a_network_of_saved_settings_and_a_bundle_give_the_same_objects(finder, tmp_path):
    case, model = finder
    if case[0] == "toy":
        pytest.skip("it is no architecture by name")
    image = stacked([scene(7, count=7), scene(8)])["image"]
    expected = model.predict(image)
    settings = json.loads(json.dumps(model.settings, allow_nan=False))
    again = rebuild_model(case[0], 3, 3, settings)
    again.load_state_dict(model.state_dict())
    assert again.settings == model.settings and again.title == model.title
    assert all(equal(*pair) for pair in zip(again.predict(image), expected, strict=True))
    facts = {"classes": ["ground", "disc", "square"], "foreground": [1, 2], "tile": 64}
    save_bundle(tmp_path, model, case[0], facts)
    loaded = load_bundle(tmp_path)
    assert (
        isinstance(loaded, InstanceModel)
        and json.loads((tmp_path / "model.json").read_text())["kind"] == "instance"
    )
    assert all(equal(*pair) for pair in zip(loaded.predict(image), expected, strict=True))


@every_architecture
@pytest.mark.parametrize("magnify", [2, 0.5])
def test_enlarged_images_give_masks_of_the_original_size(case, magnify):
    model = network(case, magnify=magnify).train()
    batch = stacked([scene(1, 63), scene(2, 63)])
    loss, gradient = backward(model, batch)
    assert np.isfinite(loss) and gradient.isfinite().all()
    assert model.settings["magnify"] == magnify
    for found in model.predict(batch["image"][..., :61, :47]):
        check(model, found, 61, 47)


@every_network
@pytest.mark.parametrize("bands", [1, 6])
def test_any_number_of_bands_and_foreground_classes_that_are_not_the_first(case, bands):
    model = network(case, in_channels=bands, num_classes=5, foreground=(1, 3, 4)).train()
    image, label, instance = scene(1, bands=bands)
    label = np.where(label == 2, 4, label)
    batch = stacked([(image, label, instance)] * 2)
    loss, gradient = backward(model, batch)
    assert np.isfinite(loss) and gradient.isfinite().all() and model.foreground == [1, 3, 4]
    for found in model.predict(batch["image"]):
        check(model, found, 64, 64)


@every_network
def test_a_copy_of_the_network_in_bf16_has_a_finite_loss(case, uneven):
    model = copy.deepcopy(network(case)).train()
    with torch.autocast("cpu", torch.bfloat16):
        truth = model.truth(uneven)
        terms = model.terms(model(uneven["image"], uneven["valid"]), truth)
        loss = model.combined(terms, model.weights(truth))["loss"]
    loss.backward()
    assert loss.isfinite() and loss.dtype == torch.float32 and gradients(model).isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        for found in model.predict(uneven["image"]):
            check(model, found, 64, 64)


@pytest.mark.slow
@every_architecture
def test_discs_and_squares_are_learned(case):
    model = trained(network(case, width=32, weights="imagenet"), 300, rate=3e-3)
    held_out = [scene(100_000 + seed, 64, 5) for seed in range(40)]
    found = [model.predict(stacked([one])["image"])[0] for one in held_out]
    assert quality(found, held_out) > 0.8
