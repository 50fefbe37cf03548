"""Mask R-CNN's choice of regions in fixed shapes is that of proposals and regions, image by image."""

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from segcore.models.instance.proposals import without_duplicates
from segcore.models.instance.region_tensors import (
    best_regions,
    distinct,
    kept,
    planes_of_regions,
    pool_of_all,
)
from segcore.models.instance.regions import best, mask_in_image, pool


def boxes_of(seed: int, *shape: int, side: float = 64) -> Tensor:
    torch.manual_seed(seed)
    corner = torch.rand(*shape, 2) * side
    return torch.cat([corner, corner + 1 + torch.rand(*shape, 2) * side / 2], dim=-1).clamp(max=side)


def test_boxes_are_kept_as_by_torchvision() -> None:
    for seed in range(20):
        boxes, scores = boxes_of(seed, 3, 200), torch.rand(3, 200).sort(1, descending=True).values
        usable = torch.rand(3, 200) < 0.7
        found = kept(boxes, usable, 0.4)
        for image in range(3):
            places = usable[image].nonzero()[:, 0]
            wanted = places[nms(boxes[image, places], scores[image, places], 0.4)]
            assert found[image].nonzero()[:, 0].tolist() == sorted(wanted.tolist())


def test_in_a_chain_of_boxes_that_overlap_their_neighbours_each_second_one_is_kept() -> None:
    """The decision on the last box depends on all before it."""
    left = torch.arange(101.0) * 4
    boxes = torch.stack([left, left * 0, left + 10, left * 0 + 10], dim=1)
    assert kept(boxes, torch.ones(101, dtype=torch.bool), 0.4).tolist() == [n % 2 == 0 for n in range(101)]
    assert not kept(boxes, torch.zeros(101, dtype=torch.bool), 0.4).any()


def test_proposals_are_those_of_each_image() -> None:
    boxes, scores = boxes_of(1, 4, 150), torch.randn(4, 150)
    # without area
    boxes[:, ::7, 2] = boxes[:, ::7, 0]
    scores[:, 30:60] = 0.5
    for count in (5, 40, 150):
        wanted, real = without_duplicates(scores, boxes, 0.5, count)
        found, is_one = distinct(scores, boxes, 0.5, count)
        assert torch.equal(is_one, real)
        assert torch.equal(found[is_one], wanted[real])


def test_regions_are_the_best_of_each_image_and_class() -> None:
    boxes = boxes_of(2, 3, 100, 4)
    probabilities = torch.rand(3, 100, 4)
    probabilities[0, :, 2] = 0.5
    # fewer than are wanted
    probabilities[2] *= 0.06
    for count in (10, 1000):
        found, classes, scores = best_regions(boxes, probabilities, 0.05, 0.5, count)
        for image in range(3):
            place, of_class = best(boxes[image], probabilities[image], 0.05, 0.5, count)
            number = int((scores[image] > 0).sum())
            assert number == len(place) and not scores[image, number:].any()
            assert torch.equal(classes[image, :number], of_class)
            assert torch.equal(found[image, :number], boxes[image, place, of_class])
            assert torch.equal(scores[image, :number], probabilities[image, place, of_class])


def test_pooling_of_every_map_is_that_of_the_suitable_one() -> None:
    strides = [4, 8, 16, 32]
    torch.manual_seed(0)
    maps = [torch.randn(2, 5, 256 // stride, 192 // stride) for stride in strides]
    boxes = boxes_of(3, 60, side=250)
    boxes[:30, 2:] = boxes[:30, :2] + 12
    item = torch.arange(60) % 2
    for size in (7, 14):
        wanted = pool(maps, strides, item, boxes, size)
        found = pool_of_all(maps, strides, item, boxes, size)
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_planes_have_the_masks_of_regions() -> None:
    torch.manual_seed(4)
    probabilities = torch.rand(80, 28, 28)
    boxes = boxes_of(4, 80, side=70) - 5
    # without a pixel, of one pixel, with edges at the middle of pixels
    boxes[0], boxes[1], boxes[2] = (
        torch.tensor(b) for b in ([3.6, 3.6, 3.9, 9.0], [3.0, 3, 4, 4], [2.5, 3.5, 20.5, 30.5])
    )
    found = planes_of_regions(probabilities, boxes, 60, 50).numpy()
    for plane, probability, box in zip(found, probabilities.numpy(), boxes.numpy(), strict=True):
        one, wanted = mask_in_image(probability, box, 60, 50), np.zeros((60, 50), bool)
        if one:
            (row, col, tall, wide), mask = one
            wanted[row : row + tall, col : col + wide] = mask
        assert (plane != wanted).sum() == 0
