"""Post-processing is chosen on the validation split, and kept only if no class gets worse and the mean better."""

import numpy as np
import pandas as pd
import pytest
from torch import nn

from segcore.constants import IGNORE
from segcore.data.prepared import LabelledImage
from segcore.inference.postprocess import Postprocess, Step
from segcore.models.base.semantic import SemanticModel
from segcore.training.postprocess_settings import choose_postprocess, text
from tests.support.toy_instance import Toy

CLASSES = ["background", "disc", "stripe"]
FOREGROUND = [1, 2]


class Reads(SemanticModel):
    """Predicts the class that is the value of each pixel."""

    def __init__(self) -> None:
        super().__init__(1, len(CLASSES), "reads", 1)
        self.unused = nn.Conv2d(1, 1, 1)

    def segment(self, x):
        return nn.functional.one_hot(x[:, 0].long(), len(CLASSES)).permute(0, 3, 1, 2).float() * 9


class Data:
    """Regions of known labels and predictions, with what a choice reads of prepared data.

    Args:
        pairs: label and prediction of each region.
        sides: of the pictures in pixels.
    """

    def __init__(self, *pairs: tuple[np.ndarray, np.ndarray], sides: int = 64, foreground=FOREGROUND) -> None:
        self.classes, self.foreground = CLASSES, foreground
        ids = [f"r{n}" for n in range(len(pairs))]
        self.regions = pd.DataFrame({"id": ids, "item": ids, "split": "validation"})
        self.items = pd.DataFrame({"item": ids, "height": sides, "width": sides})
        self._pairs = dict(zip(ids, pairs, strict=True))

    def read_input(self, region: str) -> LabelledImage:
        label, predicted = self._pairs[region]
        return LabelledImage(predicted[..., None].astype(np.float32), label, np.ones(label.shape, bool))


def truth(*discs: tuple[int, int, int], side: int = 64) -> np.ndarray:
    """A label map with discs (row, column, radius) and a stripe."""
    rows, cols = np.mgrid[:side, :side]
    label = np.zeros((side, side), np.uint8)
    label[-6:] = 2
    for row, col, radius in discs:
        label[(rows - row) ** 2 + (cols - col) ** 2 <= radius**2] = 1
    return label


def with_specks(label: np.ndarray) -> np.ndarray:
    """A prediction with false discs of four pixels, and holes in the true ones."""
    made = label.copy()
    made[2:4, 2:60:8] = made[2:4, 3:61:8] = 1
    made[30, 30] = made[31, 30] = 0
    return made


def ious(data: Data, postprocess: Postprocess) -> dict[str, float]:
    """IoU of each class after post-processing, class by class."""
    hit, union = np.zeros(3), np.zeros(3)
    for label, predicted in data._pairs.values():
        made = postprocess.applied(predicted, np.ones(label.shape, bool))
        for index in range(3):
            scored = label != IGNORE
            hit[index] += ((label == index) & (made == index) & scored).sum()
            union[index] += (((label == index) | (made == index)) & scored).sum()
    return dict(zip(CLASSES, hit / union, strict=True))


def test_small_components_and_holes_are_chosen_where_that_improves_each_class():
    pairs = [(label, with_specks(label)) for label in (truth((30, 30, 9), (14, 50, 5)), truth((30, 30, 7)))]
    data = Data(*pairs)
    entry = choose_postprocess(Reads(), data, 64, "fp32")
    # the smallest true disc has 81 pixels
    assert entry["steps"] == [
        {"operation": "min_area", "class_index": 1, "area": 81},
        {"operation": "holes", "class_index": 1, "area": 0},
    ]
    chosen = Postprocess.of({"postprocess": entry})
    for key, steps in (("iou_before", Postprocess(0)), ("iou_after", chosen)):
        assert entry[key] == pytest.approx(ious(data, steps), abs=1e-6)
    assert entry["iou_after"]["disc"] == 1 > entry["iou_before"]["disc"]
    line = text(entry, FOREGROUND)
    assert line.startswith("post-processing: disc: components under 81 pixels removed, holes filled; IoU")
    assert f"disc {entry['iou_before']['disc']:.4f} -> 1.0000" in line


@pytest.mark.parametrize(("false_holes", "taken"), [(2, False), (3, True)])
def test_a_step_that_makes_the_background_worse_is_not_taken(false_holes: int, taken: bool):
    label = truth((30, 30, 12))
    # a true hole of two pixels
    label[20:22, 30] = 0
    predicted = label.copy()
    for pixel in ((25, 25), (27, 33), (36, 30))[:false_holes]:
        predicted[pixel] = 0
    data = Data((label, predicted))
    before, after = (ious(data, Postprocess(0, steps)) for steps in ((), (Step("holes", 1),)))
    assert after["disc"] > before["disc"] and (after["background"] > before["background"]) == taken
    entry = choose_postprocess(Reads(), data, 64, "fp32")
    assert bool(entry["steps"]) == taken
    assert text(entry, FOREGROUND).startswith("post-processing: none improves") != taken


def test_the_largest_component_is_tried_where_regions_are_whole_pictures():
    label = truth((30, 30, 10))
    predicted = label.copy()
    # larger than the true disc of the other picture
    predicted[:15, :15] = 1
    small = truth((40, 40, 6))
    pairs = (label, predicted), (small, small)
    assert choose_postprocess(Reads(), Data(*pairs), 64, "fp32")["steps"] == [
        {"operation": "largest", "class_index": 1, "area": 0}
    ]
    # blocks of a larger picture
    assert choose_postprocess(Reads(), Data(*pairs, sides=65), 64, "fp32")["steps"] == []


def test_nothing_is_chosen_without_background_labels_or_pixels():
    label = truth((30, 30, 9))
    assert choose_postprocess(Reads(), Data((label, label), foreground=[0, 1, 2]), 64, "fp32") is None
    assert choose_postprocess(Reads(), Data((np.full_like(label, IGNORE), label)), 64, "fp32") is None
    assert choose_postprocess(Reads(), Data(), 64, "fp32") is None
    assert choose_postprocess(Toy(), Data((label, label)), 64, "fp32") is None
