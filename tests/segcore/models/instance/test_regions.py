"""Regions of interest: pooling, mask targets, the choice of regions, and masks in images."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from segcore.constants import IGNORE
from segcore.models.base.instance import Truth, truth_of
from segcore.models.instance.proposals import highest, true_boxes, without_duplicates
from segcore.models.instance.regions import Regions, mask_in_image, mask_targets, mask_term, pool, sample


def boxes_of(count: int, side: float = 64, largest: float = 60) -> Tensor:
    corner = torch.rand(count, 2) * side
    return torch.cat([corner, corner + 1 + torch.rand(count, 2) * largest], dim=1).clamp(max=side)


def truth_with(images: list[list[tuple[int, int, int, int]]], side: int = 64) -> Truth:
    """Objects of given left, top, right and bottom edges."""
    label = torch.zeros(len(images), side, side, dtype=torch.int64)
    instance = torch.zeros_like(label)
    for i, objects in enumerate(images):
        for number, (left, top, right, bottom) in enumerate(objects, start=1):
            label[i, top:bottom, left:right] = 1
            instance[i, top:bottom, left:right] = number
    return truth_of(label, instance, [1])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_a_pooled_ramp_gives_the_centres_of_the_parts() -> None:
    # value at each pixel of a map of stride 4: place of its centre in the image
    ramp = (torch.arange(32) + 0.5) * 4
    x = torch.stack([ramp.expand(32, 32), ramp[:, None].expand(32, 32)])[None]
    boxes = torch.tensor([[10.0, 20, 38, 90], [33.3, 40.1, 44.4, 51.2]])
    pooled = pool([x], [4], torch.zeros(2, dtype=torch.int64), boxes, 7)
    share = (torch.arange(7) + 0.5) / 7
    for box, values in zip(boxes, pooled, strict=True):
        across, down = (box[i] + share * (box[i + 2] - box[i]) for i in (0, 1))
        torch.testing.assert_close(values[0], across.expand(7, 7))
        torch.testing.assert_close(values[1], down[:, None].expand(7, 7))


def test_pooling_and_its_gradient_are_those_of_torchvision() -> None:
    maps = [torch.rand(2, 3, 16, 24).requires_grad_()]
    item, boxes = torch.randint(0, 2, (40,)), boxes_of(40, side=100) - 10
    ours = pool(maps, [4], item, boxes, 5)
    regions = torch.cat([item[:, None].float(), boxes], dim=1)
    theirs = roi_align(maps[0], regions, (5, 5), 1 / 4, sampling_ratio=2, aligned=True)
    torch.testing.assert_close(ours, theirs)
    weight = torch.rand_like(ours)
    gradients = [torch.autograd.grad((x * weight).sum(), maps)[0] for x in (ours, theirs)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("side", "stride"), [(8, 4), (111, 4), (112, 8), (223, 8), (224, 16), (600, 32), (2000, 32)]
)
def test_regions_are_pooled_at_the_strides_of_the_paper(side: float, stride: int) -> None:
    strides = [4, 8, 16, 32]
    maps = [torch.full((1, 1, 600, 600), float(s)) for s in strides]
    boxes = torch.tensor([[0.0, 0, 3, 3], [0, 0, side, side]])
    pooled = pool(maps, strides, torch.zeros(2, dtype=torch.int64), boxes, 1)
    assert pooled.flatten().tolist() == [4, stride]


def test_mask_targets_are_those_of_a_loop_over_points() -> None:
    label = torch.zeros(2, 40, 40, dtype=torch.int64)
    instance = torch.randint(0, 4, (2, 40, 40))
    label[instance > 0] = 1
    label[torch.rand(2, 40, 40) < 0.1] = IGNORE
    truth = truth_of(label, instance, [1])
    item, boxes = torch.randint(0, 2, (9,)), boxes_of(9, side=40, largest=30)
    numbers = torch.randint(1, len(truth) + 1, (9,))
    regions = Regions(item, boxes, torch.zeros_like(item), numbers)
    target, counted = mask_targets(truth, regions, 28)
    for r in range(9):
        left, top, right, bottom = boxes[r].tolist()
        for i in range(28):
            for j in range(28):
                row = min(int(top + (i + 0.5) / 28 * (bottom - top)), 39)
                col = min(int(left + (j + 0.5) / 28 * (right - left)), 39)
                assert target[r, i, j] == (truth.instance[item[r], row, col] == numbers[r])
                assert counted[r, i, j] == (label[item[r], row, col] != IGNORE)


def test_the_mask_term_is_a_mean_over_points_then_regions_and_a_sum_over_objects() -> None:
    truth = truth_with([[(0, 0, 10, 10), (20, 20, 30, 30)]])
    truth.ignored[0, :5, :10] = True
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [20, 20, 30, 40], [50, 50, 60, 60]])
    regions = Regions(torch.zeros(4, dtype=torch.int64), boxes, torch.zeros(4), torch.tensor([1, 1, 2, 0]))
    logits = torch.randn(4, 28, 28)
    target, counted = mask_targets(truth, regions, 28)
    mean = [
        F.binary_cross_entropy_with_logits(logits[r][counted[r]], target[r][counted[r]]) for r in range(4)
    ]
    assert counted[0].float().mean() == 0.5
    torch.testing.assert_close(mask_term(logits, regions, truth), (mean[0] + mean[1]) / 2 + mean[2])


def test_true_boxes_are_padded_per_image() -> None:
    truth = truth_with([[(1, 2, 5, 9)], [], [(0, 0, 4, 4), (10, 10, 30, 20)]])
    true = true_boxes(truth)
    assert true.numbers.tolist() == [[1, 0], [0, 0], [2, 3]]
    assert true.boxes[0].tolist() == [[1, 2, 5, 9], [0] * 4]
    assert true.boxes[2].tolist() == [[0, 0, 4, 4], [10, 10, 30, 20]]
    assert true_boxes(truth_with([[], []])).boxes.shape == (2, 0, 4)


def test_the_highest_of_each_level_are_kept_in_order() -> None:
    scores = torch.tensor([[1.0, 5, 5, 2, 9, 7]])
    boxes = torch.arange(6.0)[None, :, None].expand(1, 6, 4)
    found, of_found = highest(scores, boxes, [4, 2], 3)
    assert found.tolist() == [[5, 5, 2, 9, 7]]
    assert of_found[0, :, 0].tolist() == [1, 2, 3, 4, 5]


def test_proposals_have_no_duplicates_and_are_padded() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 11], [20, 20, 30, 30], [5, 5, 5, 9]]])
    found, real = without_duplicates(torch.tensor([[1.0, 2, 3, 4]]), boxes, 0.7, 5)
    assert real.tolist() == [[True, True, False, False, False]]
    assert found[0, :2].tolist() == [[20, 20, 30, 30], [0, 0, 10, 11]]


def test_true_boxes_are_sampled_before_proposals_and_at_most_half_are_positive() -> None:
    positive, negative = torch.zeros(2, 50, dtype=torch.bool), torch.zeros(2, 50, dtype=torch.bool)
    positive[0, :20] = positive[0, 40:44] = True
    negative[0, 20:38] = True
    negative[1, :3] = True
    chosen, kind = sample(positive, negative, 16, boxes_of(100).view(2, 50, 4), first=40)
    assert set(range(40, 44)) <= set(chosen[0, :8].tolist())
    assert kind[0].tolist() == [0] * 8 + [1] * 8
    assert len(set(chosen[0].tolist())) == 16
    assert kind[1].tolist() == [1] * 3 + [2] * 13
    assert positive[0, chosen[0, :8]].all() and negative[0, chosen[0, 8:]].all()
    # not only those of the highest scores
    assert chosen[0, 4:8].max() > 8 or chosen[0, 4:8].float().mean() > 4


def test_the_sample_of_an_image_does_not_depend_on_the_number_of_objects_of_another() -> None:
    positive, negative = torch.rand(1, 60) < 0.3, torch.rand(1, 60) < 0.5
    negative &= ~positive
    nothing, boxes = torch.zeros(1, 7, dtype=torch.bool), boxes_of(67)[None]
    alone = sample(positive, negative, 20, boxes[:, :60], first=50)
    beside = sample(torch.cat([positive, nothing], 1), torch.cat([negative, nothing], 1), 20, boxes, first=50)
    real = alone[1] < 2
    assert torch.equal(alone[0][real], beside[0][real]) and torch.equal(alone[1], beside[1])


def test_of_too_many_true_boxes_others_are_sampled_where_they_are_elsewhere() -> None:
    corner = torch.arange(40).repeat_interleave(2).view(1, 40, 2) * 6.0
    all_are, none = torch.ones(1, 40, dtype=torch.bool), torch.zeros(1, 40, dtype=torch.bool)
    taken = torch.zeros(40)
    for shift in range(60):
        boxes = torch.cat([corner + shift, corner + shift + 9], dim=2)
        chosen, kind = sample(all_are, none, 20, boxes, first=0)
        kept = chosen[kind == 0]
        assert len(set(kept.tolist())) == 10
        taken[kept] += 1
    # 15 of 60 are expected of each, the last ones included
    assert taken.min() >= 5 and taken.max() <= 30


def test_a_full_mask_covers_the_pixels_whose_centres_are_in_the_box() -> None:
    for box in ([3.0, 4, 9, 8], [3.4, 4.4, 9.4, 8.4], [2.6, 3.6, 8.6, 7.6]):
        found = mask_in_image(np.ones((28, 28), np.float32), np.array(box), 20, 20)
        assert found is not None
        assert found[0] == (4, 3, 4, 6)
        assert found[1].all() and found[1].shape == (4, 6)


def test_a_mask_is_that_of_its_points_and_tight() -> None:
    # a disc of radius 10 at row 20, column 30, as seen from a box that is larger
    share = (np.arange(28) + 0.5) / 28
    x, y = 30 - 15 + share * 30, 20 - 12 + share * 24
    disc = ((x - 30) ** 2 + (y[:, None] - 20) ** 2 < 100).astype(np.float32)
    found = mask_in_image(disc, np.array([15.0, 8, 45, 32]), 64, 64)
    assert found is not None
    (row, col, height, width), mask = found
    rows, cols = np.mgrid[:64, :64] + 0.5
    expected = (rows - 20) ** 2 + (cols - 30) ** 2 < 100
    drawn = np.zeros((64, 64), bool)
    drawn[row : row + height, col : col + width] = mask
    assert (drawn & expected).sum() / (drawn | expected).sum() > 0.95
    assert mask.any(axis=0).all() and mask.any(axis=1).all()


def test_masks_end_at_the_image_and_empty_ones_are_none() -> None:
    found = mask_in_image(np.ones((28, 28), np.float32), np.array([-5.0, -5, 3, 90]), 10, 8)
    assert found is not None and found[0] == (0, 0, 10, 3)
    assert mask_in_image(np.zeros((28, 28), np.float32), np.array([0.0, 0, 5, 5]), 10, 8) is None
    assert mask_in_image(np.ones((28, 28), np.float32), np.array([2.6, 0, 3.4, 5]), 10, 8) is None
