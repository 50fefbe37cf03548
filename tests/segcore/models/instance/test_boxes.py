"""Anchors and boxes, beside torchvision's where the conventions agree."""

import torch
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import box_iou

from segcore.models.instance.boxes import anchors, clip, decode, encode, iou, match

CPU = torch.device("cpu")


def boxes(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 100
    return torch.cat([corner, corner + 1 + torch.rand(count, 2, generator=generator) * 60], dim=1)


def test_anchors_are_those_of_torchvision_about_the_centres_of_pixels() -> None:
    ours = anchors(3, 5, 8, [32], [0.5, 1.0, 2.0], CPU)
    # torchvision centres them on the corners of pixels, and rounds them
    generator = AnchorGenerator(((32,),), ((0.5, 1.0, 2.0),))
    theirs = generator.grid_anchors([(3, 5)], [(torch.tensor(8), torch.tensor(8))])[0]
    assert (ours - 4 - theirs).abs().max() <= 0.5
    assert torch.equal(ours[1], torch.tensor([-12.0, -12, 20, 20]))
    sides = ours[:, 2:] - ours[:, :2]
    torch.testing.assert_close(sides.prod(dim=1), torch.full((45,), 32.0**2))
    torch.testing.assert_close((sides[:, 1] / sides[:, 0])[:3], torch.tensor([0.5, 1, 2]))


def test_offsets_are_those_of_torchvision() -> None:
    reference, truth = boxes(50), boxes(50, seed=1)
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    offsets = encode(truth, reference, (10, 10, 5, 5))
    torch.testing.assert_close(offsets, coder.encode_single(truth, reference))
    torch.testing.assert_close(decode(offsets, reference, (10, 10, 5, 5)), truth, atol=1e-3, rtol=1e-5)
    large = torch.full((50, 4), 9.0)
    torch.testing.assert_close(decode(large, reference), BoxCoder((1.0,) * 4).decode_single(large, reference))


def test_a_box_without_area_gives_finite_offsets() -> None:
    nothing = torch.zeros(1, 4)
    assert encode(nothing, nothing).isfinite().all()
    assert decode(torch.zeros(1, 4), nothing).isfinite().all()


def test_overlaps_are_those_of_torchvision_and_0_without_area() -> None:
    first, second = boxes(20), boxes(30, seed=1)
    torch.testing.assert_close(iou(first, second), box_iou(first, second))
    assert iou(torch.zeros(2, 4), torch.zeros(3, 4)).tolist() == [[0.0] * 3] * 2


def test_images_are_matched_independently_of_padding() -> None:
    reference, truth = boxes(40), boxes(6, seed=1)
    padded = torch.stack([torch.cat([truth[:4], torch.zeros(2, 4)]), truth])
    together = match(reference.expand(2, -1, -1), padded, 0.5, 0.3, keep_best=True)
    assert torch.equal(together[0], match(reference, truth[:4], 0.5, 0.3, keep_best=True))
    assert torch.equal(together[1], match(reference, truth, 0.5, 0.3, keep_best=True))


def test_boxes_match_by_overlap_and_none_is_left_without() -> None:
    truth = torch.tensor([[0.0, 0, 10, 10], [50, 50, 52, 52]])
    reference = torch.tensor(
        [[0.0, 0, 10, 9], [0, 0, 10, 5], [0, 0, 10, 4], [48, 48, 58, 58], [80, 80, 90, 90]]
    )
    assert match(reference, truth, 0.7, 0.5, keep_best=False).tolist() == [0, -2, -1, -1, -1]
    assert match(reference, truth, 0.7, 0.5, keep_best=True).tolist() == [0, -2, -1, 1, -1]
    assert match(reference, truth[:0], 0.7, 0.5, keep_best=True).tolist() == [-1] * 5


def test_clipped_boxes_are_within_the_image() -> None:
    clipped = clip(torch.tensor([[-5.0, 2, 30, 90], [-9, -9, -3, -3]]), 40, 20)
    assert clipped.tolist() == [[0, 2, 20, 40], [0, 0, 0, 0]]
