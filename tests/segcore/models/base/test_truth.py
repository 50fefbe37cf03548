"""Tests for the true objects that instance networks derive from dense maps."""

import numpy as np
import pytest
import torch
from torch import Tensor

from segcore.constants import IGNORE
from segcore.models.base.instance import Truth, truth_of
from tests.support.toy_instance import Toy

FOREGROUND = [1, 3]


def random_maps(seed: int) -> tuple[Tensor, Tensor]:
    """Labels and numbers (3, 17, 23) of random pixels; objects have several parts and classes."""
    rng = np.random.default_rng(seed)
    instance = rng.integers(0, 9, (3, 17, 23)) * rng.integers(0, 2, (3, 17, 23)) * 1_000_003
    label = rng.choice([0, 1, 2, 3, IGNORE], (3, 17, 23))
    return torch.from_numpy(label), torch.from_numpy(instance)


def literal(label: np.ndarray, instance: np.ndarray) -> list[tuple[int, int, list[float], int]]:
    """Item, class place, box and area of each object, one after the other."""
    found = []
    for item, (classes, numbers) in enumerate(zip(label, instance, strict=True)):
        counts = np.isin(classes, FOREGROUND)
        for number in np.unique(numbers[(numbers > 0) & counts]):
            mask = (numbers == number) & counts
            rows, cols = np.nonzero(mask)
            votes = [int((classes[mask] == index).sum()) for index in FOREGROUND]
            box = [float(v) for v in (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)]
            found.append((item, int(np.argmax(votes)), box, int(mask.sum())))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_objects_are_those_of_a_literal_loop(seed: int) -> None:
    label, instance = random_maps(seed)
    truth = truth_of(label, instance, FOREGROUND)
    rows = zip(
        truth.item.tolist(), truth.classes.tolist(), truth.boxes.tolist(), truth.areas.tolist(), strict=True
    )
    assert list(rows) == literal(label.numpy(), instance.numpy())
    areas = torch.bincount(truth.instance.flatten(), minlength=len(truth) + 1)[1:]
    assert areas.tolist() == truth.areas.tolist()


def test_foreground_pixels_without_a_number_are_ignored_and_background_is_not() -> None:
    label = torch.tensor([[[1, 1, 0, 2, IGNORE]]])
    instance = torch.tensor([[[5, 0, 7, 0, 5]]])
    truth = truth_of(label, instance, FOREGROUND)
    assert truth.ignored.tolist() == [[[False, True, False, False, True]]]
    assert truth.instance.tolist() == [[[1, 0, 0, 0, 0]]]


def test_a_batch_without_objects_has_an_empty_truth() -> None:
    empty = torch.zeros(2, 8, 8, dtype=torch.int64)
    truth = truth_of(empty, empty, FOREGROUND)
    assert len(truth) == 0 and truth.boxes.shape == (0, 4) and not truth.ignored.any()
    assert truth.ignored_shares(truth.item, truth.boxes).shape == (0,)


def test_ignored_shares_of_boxes_are_those_of_their_pixels() -> None:
    label, instance = random_maps(7)
    truth = truth_of(label, instance, FOREGROUND)
    rng = np.random.default_rng(1)
    first, size = rng.integers(0, 15, (40, 2)), rng.integers(1, 9, (40, 2))
    item = rng.integers(0, 3, 40)
    boxes = torch.from_numpy(np.concatenate([first, first + size], axis=1)).float()
    shares = truth.ignored_shares(torch.from_numpy(item), boxes)
    ignored = truth.ignored.numpy()
    for share, place, (x, y), (wide, tall) in zip(shares.tolist(), item, first, size, strict=True):
        assert share == pytest.approx(ignored[place, y : y + tall, x : x + wide].mean())


def test_the_truth_of_an_image_does_not_depend_on_its_batch() -> None:
    label, instance = random_maps(3)
    whole = truth_of(label, instance, FOREGROUND)
    alone = truth_of(label[1:2], instance[1:2], FOREGROUND)
    part: Truth = whole
    here = whole.of_item(1)
    assert part.boxes[here].tolist() == alone.boxes.tolist()
    assert part.classes[here].tolist() == alone.classes.tolist()


@pytest.mark.parametrize("magnify", [0.5, 1, 2])
def test_maps_are_enlarged_and_padded_like_the_image(magnify: float) -> None:
    model = Toy()
    model.magnify, model.output_stride = magnify, 32
    label = torch.zeros(1, 50, 70, dtype=torch.int64)
    label[0, 10:20, 30:60] = 1
    batch = {"label": label, "instance": label * 9, "image": torch.rand(1, 3, 50, 70)}
    truth = model.truth(batch)
    prepared, (height, width) = model.prepared(batch["image"], None)
    assert truth.instance.shape[1:] == prepared.shape[2:]
    assert truth.boxes.tolist() == [[30 * magnify, 10 * magnify, 60 * magnify, 20 * magnify]]
    assert truth.ignored[:, height:].all() and truth.ignored[:, :, width:].all()
    assert not truth.ignored[:, :height, :width].any()


def test_pixels_without_data_are_ignored() -> None:
    valid = torch.ones(1, 32, 32, dtype=torch.bool)
    valid[0, :, :16] = False
    label = torch.zeros(1, 32, 32, dtype=torch.int64)
    label[0, 4:8, 4:8] = 1
    truth = Toy().truth({"label": label, "instance": label, "valid": valid})
    assert len(truth) == 0 and torch.equal(truth.ignored, ~valid)
