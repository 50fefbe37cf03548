"""Tests of YOLACT beyond those of every instance network."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from segcore.constants import IGNORE
from segcore.errors import ModelError
from segcore.models.base.factory import build_model, fitted
from segcore.models.base.instance import truth_of
from segcore.models.base.object_sizes import ObjectSizes
from segcore.models.instance import mask_points
from segcore.models.instance.anchor_targets import class_loss
from segcore.models.instance.boxes import fast_nms
from segcore.models.instance.prototypes import detected_masks, targets_at, trained_masks
from segcore.models.yolact import Yolact

Batch = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def network(classes: int = 3, **keywords: Any) -> Yolact:
    sizes = ObjectSizes(sides=(10, 14, 18, 24, 30), ratios=(0.8, 1.0, 1.2))
    keywords = fitted("yolact", {"width": 16, **keywords}, sizes)
    model = build_model("yolact", 3, classes, **keywords)
    assert isinstance(model, Yolact)
    model.set_normalization([90.0] * 3, [50.0] * 3)
    return model


def batch_of(*counts: int, side: int = 64) -> Batch:
    """Images with so many rectangles of classes 1 and 2 on a dark background."""
    rng = np.random.default_rng(sum(counts))
    label = np.zeros((len(counts), side, side), np.int64)
    instance = label.copy()
    for item, count in enumerate(counts):
        for number in range(1, count + 1):
            row, col = rng.integers(0, side - 8, 2)
            height, width = rng.integers(6, 20, 2)
            free = instance[item, row : row + height, col : col + width] == 0
            instance[item, row : row + height, col : col + width][free] = number
            label[item, row : row + height, col : col + width][free] = 1 + number % 2
    image = 60 + 60 * label[:, None] + rng.normal(0, 10, (len(counts), 3, side, side))
    arrays = {"image": image.astype(np.float32), "label": label, "instance": instance}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def part(batch: Batch, index: int) -> Batch:
    return {name: tensor[index : index + 1] for name, tensor in batch.items()}


def sums(model: Yolact, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    truth = model.truth(batch)
    return model.terms(model(batch["image"]), truth), model.weights(truth)


def test_anchors_of_a_place_have_three_shapes_and_one_area() -> None:
    anchors = network().levels.anchors([64, 64], torch.device("cpu"))[:3]
    sides = anchors[:, 2:] - anchors[:, :2]
    assert len({round(float(height / width), 2) for width, height in sides}) == 3
    torch.testing.assert_close(sides.prod(1), sides.prod(1)[:1].expand(3))


def test_anchors_and_ratios_follow_from_the_objects_and_can_be_fixed() -> None:
    houses = ObjectSizes(sides=(11, 26, 38, 52, 122), ratios=(0.6, 1.1, 1.9), most=21)
    keywords = fitted("yolact", {}, houses)
    assert keywords["finest"] == 8
    assert keywords["anchors"] == [16.9, 33.8, 67.6, 135.3]
    assert keywords["ratios"] == [1.1, 0.6, 1.9]
    squares = fitted("yolact", {}, ObjectSizes(sides=(8,) * 5, ratios=(1, 1, 1), most=300))
    assert squares["finest"] == 4
    assert squares["ratios"] == [1, 0.67, 1.5]
    assert squares["candidates"] == 3000
    fixed = {"anchors": [20, 60], "ratios": [1], "candidates": 5, "finest": 4}
    assert fixed.items() <= fitted("yolact", fixed, houses).items()
    assert fitted("yolact", {"anchors": [20, 60]}, houses)["finest"] == 8
    for wrong in ({"finest": 2}, {"anchors": []}, {"ratios": [1, 0]}):
        with pytest.raises(ModelError):
            fitted("yolact", wrong, houses)


def test_fast_nms_equals_the_rule_of_the_paper() -> None:
    corners = torch.rand(60, 2) * 40
    boxes = torch.cat([corners, corners + 5 + torch.rand(60, 2) * 20], dim=1)
    iou = box_iou(boxes, boxes)
    expected = [all(iou[i, j] <= 0.5 for i in range(j)) for j in range(60)]
    assert fast_nms(boxes, 0.5).tolist() == expected
    assert 1 < sum(expected) < 60
    assert fast_nms(boxes[:0], 0.5).tolist() == []


def test_what_looks_like_two_classes_is_found_once() -> None:
    model = network()
    anchors = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [30, 30, 40, 40]])
    scores, classes = torch.tensor([[0.6, 0.3], [0.3, 0.5], [0.02, 0.1]]).max(dim=1)
    found, kept = model._candidates(scores, classes, torch.zeros(3, 4), anchors, 3)
    assert found.anchor[kept].tolist() == [0, 2]
    assert found.classes[kept].tolist() == [0, 1]


@pytest.mark.parametrize("magnify", [1, 2, 0.5])
def test_masks_cropped_before_they_are_enlarged_equal_those_enlarged_first(magnify: float) -> None:
    stride, size = 4, (40, 52)
    grid = [-(-round(side * magnify) // (2 * stride)) * 2 for side in size]
    prototypes, coefficients = torch.rand(1, 6, *grid) * 4, torch.randn(20, 6)
    corners = torch.rand(20, 2) * 60 * magnify - 10
    boxes = torch.cat([corners, corners + torch.rand(20, 2) * 40 * magnify], dim=1)
    found, masks = detected_masks(prototypes, coefficients, boxes, stride, magnify, size)
    low = torch.einsum("rp,phw->rhw", coefficients, prototypes[0]).sigmoid()
    factor = stride / magnify
    whole = F.interpolate(low[None], scale_factor=factor, mode="bilinear")[0] > 0.5
    pixels = mask_points.cells(boxes / magnify, 1, *size)
    for index, (left, top, right, below) in enumerate(pixels.tolist()):
        expected, pasted = torch.zeros(size, dtype=torch.bool), torch.zeros(size, dtype=torch.bool)
        expected[top:below, left:right] = whole[index, : size[0], : size[1]][top:below, left:right]
        row, col, height, width = found[index]
        pasted[row : row + height, col : col + width] = torch.from_numpy(masks[index])
        assert torch.equal(pasted, expected)
        # the smallest crop
        assert height == width == 0 or (masks[index].any(0).all() | masks[index][0].any())
    assert sum(mask.any() for mask in masks) > 10


def test_masks_in_many_chunks_equal_those_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    corners = torch.rand(9, 2) * 40
    arguments = (torch.rand(1, 4, 16, 16), torch.randn(9, 4), torch.cat([corners, corners + 20], dim=1))
    boxes, masks = detected_masks(*arguments, 4, 1, (64, 64))
    monkeypatch.setattr("segcore.models.instance.prototypes._CHUNK", 500)
    others = detected_masks(*arguments, 4, 1, (64, 64))
    assert (boxes == others[0]).all()
    assert all((one == other).all() for one, other in zip(masks, others[1], strict=True))


def test_sums_and_weights_of_a_batch_are_those_of_its_images() -> None:
    model, batch = network(mask_iou=True).eval(), batch_of(0, 12, 3, 1)
    batch["label"][3, :30] = IGNORE
    terms, weights = sums(model, batch)
    parts = [sums(model, part(batch, index)) for index in range(4)]
    for name in model.coefficients:
        torch.testing.assert_close(terms[name], sum(one[0][name] for one in parts), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(weights[name], sum(one[1][name] for one in parts))


@pytest.mark.parametrize("mask_iou", [False, True])
def test_every_parameter_has_a_gradient_with_and_without_objects(mask_iou: bool) -> None:
    for counts in ((0, 0), (3, 0)):
        model = network(mask_iou=mask_iou)
        loss = model.loss(batch_of(*counts))["loss"]
        assert loss > 0
        loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_scores_fall_when_images_without_objects_are_trained_on() -> None:
    model, batch = network(), batch_of(0, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

    def score() -> float:
        return float(model(batch["image"])[0].detach().softmax(dim=2)[..., :-1].sum(2).mean())

    before = score()
    for _ in range(8):
        optimizer.zero_grad()
        model.loss(batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5)
        optimizer.step()
    assert score() < 0.8 * before


def test_classes_are_trained_on_all_positives_and_the_hardest_negatives() -> None:
    batch = batch_of(0, 30)
    model = network()
    truth = model.truth(batch)
    matched = model.positives(truth).matched
    logits = torch.randn(*matched.shape, 3)
    expected = 0.0
    for item in range(2):
        losses = []
        for anchor, place in enumerate(matched[item].tolist()):
            chances = logits[item, anchor].double().softmax(0)
            if place >= 0:
                expected -= float(chances[truth.classes[place]].log())
            elif place == -1:
                losses.append(-float(chances[2].log()))
        positive = int((matched[item] >= 0).sum())
        assert positive > 20 or item == 0
        expected += sum(sorted(losses)[-max(3 * positive, 60) :])
    assert float(class_loss(logits, matched, truth)) == pytest.approx(expected, rel=1e-5)


def test_ignored_pixels_and_their_objects_change_no_loss() -> None:
    model, batch = network(mask_iou=True).eval(), batch_of(5, 2)
    batch["label"][:, :, 30:] = IGNORE
    other = {name: tensor.clone() for name, tensor in batch.items()}
    other["instance"][:, :, 30:] = torch.randint(0, 9, (2, 64, 34))
    assert torch.equal(model.loss(batch)["loss"], model.loss(other)["loss"])
    batch["label"][:] = IGNORE
    assert model.loss(batch)["loss"] == 0


def test_an_anchor_that_is_mostly_ignored_is_background_only_where_it_is_not() -> None:
    model, batch = network(), batch_of(0)
    batch["label"][:, :, 32:] = IGNORE
    truth = model.truth(batch)
    anchors = model.levels.anchors([64, 64], torch.device("cpu"))
    matched = model.positives(truth).matched[0]
    centres = (anchors[:, 0] + anchors[:, 2]) / 2
    assert (matched[centres < 32 - 12] == -1).all()
    assert (matched[centres > 32 + 2] == -2).all()


def test_an_object_that_no_anchor_fits_has_the_nearest_of_the_best_anchors() -> None:
    model = network()
    label = torch.zeros(1, 64, 64, dtype=torch.int64)
    label[0, 33, 20] = 1
    found = model.positives(truth_of(label, label, [1, 2]))
    assert len(found) == 1
    anchor = model.levels.anchors([64, 64], torch.device("cpu"))[found.anchor[0]]
    centre = (anchor[:2] + anchor[2:]) / 2
    assert ((centre - torch.tensor([20.5, 33.5])).abs() <= 2).all()


def test_target_is_the_share_of_pixels_but_thin_objects_do_not_vanish() -> None:
    label = torch.zeros(1, 32, 32, dtype=torch.int64)
    label[0, 8:16, 8:18] = 1
    label[0, 24:25, 4:28] = 2
    label[0, 8:10, 8:16] = IGNORE
    truth = truth_of(label, label, [1, 2])
    grid = mask_points.points(mask_points.cells(truth.boxes, 4, 8, 8))
    share, visible = targets_at(grid, torch.tensor([0, 1]), truth, 4)
    square, line = (torch.zeros(8, 8) for _ in range(2))
    for place, target in enumerate((square, line)):
        at = grid.owner == place
        target[grid.row[at], grid.col[at]] = share[at]
    # rows 8 and 9 of the square are not visible in two columns of points, and it fills half of the third
    torch.testing.assert_close(square[2:4, 2:6], torch.tensor([[1, 1, 0.5, 0], [1, 1, 0.5, 0]]))
    assert (line[6, 1:7] == 1).all()
    assert visible[grid.owner == 0].min() == 0.5


def test_points_at_which_masks_are_trained_are_limited_and_each_object_comes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, batch = network(), batch_of(8, 8)
    truth = model.truth(batch)
    found = model.positives(truth)
    everything, _ = trained_masks(found, truth, model.stride)
    assert len(everything) == len(found)
    monkeypatch.setattr("segcore.models.instance.prototypes._MASK_POINTS", 300)
    chosen, ranges = trained_masks(found, truth, model.stride)
    for item in (0, 1):
        is_item = found.item[chosen] == item
        areas = mask_points.areas(ranges)[is_item]
        assert areas.sum() - areas[-1] < 300 <= areas.sum()
        # best anchors of different objects
        assert (found.rank[chosen][is_item][:4] == 0).all()
    assert model.weights(truth)["mask"] == len(chosen)


def _best_iou(model: Yolact, batch: Batch) -> float:
    [found] = model.predict(batch["image"])
    truth, worst = batch["instance"][0].numpy(), 1.0
    numbers = found.numbers()
    for number in range(1, int(truth.max()) + 1):
        own, ious = truth == number, [0.0]
        for index in range(1, len(found) + 1):
            mask = numbers == index
            ious.append(float((own & mask).sum() / (own | mask).sum()))
        worst = min(worst, max(ious))
        assert found.classes[int(np.argmax(ious)) - 1] == batch["label"][0].numpy()[own][0]
    return worst


def test_it_overfits_one_image_with_rated_masks() -> None:
    model = network(width=24, mask_iou=True)
    label = torch.zeros(1, 64, 64, dtype=torch.int64)
    instance = label.clone()
    for number, (row, col, height, width) in enumerate(
        [(4, 6, 16, 14), (4, 20, 20, 12), (40, 30, 12, 24)], start=1
    ):
        instance[0, row : row + height, col : col + width] = number
        label[0, row : row + height, col : col + width] = 1 + number % 2
    image = 60.0 + 50 * label[:, None].expand(1, 3, 64, 64) + 10 * torch.randn(1, 3, 64, 64)
    batch = {"image": image, "label": label, "instance": instance}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.004)
    for _ in range(75):
        optimizer.zero_grad()
        model.loss(batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5)
        optimizer.step()
    assert _best_iou(model, batch) > 0.8
