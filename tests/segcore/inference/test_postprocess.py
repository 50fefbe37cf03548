"""Post-processing of class maps, against searches pixel by pixel and scipy."""

from collections import deque

import numpy as np
import pytest
from scipy import ndimage

from segcore.constants import IGNORE
from segcore.inference.postprocess import Postprocess, Step
from segcore.objects import canvas

BACKGROUND = 1


def noise(seed: int, shape: tuple[int, int] = (40, 31), classes: int = 4) -> np.ndarray:
    """A class map of blobs, with pixels without data."""
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.random((classes, *shape)), (0, 1.2, 1.2))
    made = smooth.argmax(0).astype(np.uint8)
    made[random.random(shape) < 0.02] = IGNORE
    return made


def found(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """Pixels of each 4-connected component, in the order of first pixels, by a search from pixel to pixel."""
    seen, made = np.zeros_like(mask), []
    for start in map(tuple, np.argwhere(mask)):
        if seen[start]:
            continue
        seen[start], queue, pixels = True, deque([start]), []
        while queue:
            row, col = queue.popleft()
            pixels.append((row, col))
            for at in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)):
                inside = 0 <= at[0] < mask.shape[0] and 0 <= at[1] < mask.shape[1]
                if inside and mask[at] and not seen[at]:
                    seen[at] = True
                    queue.append(at)
        made.append(pixels)
    return made


def expected(classes: np.ndarray, step: Step) -> np.ndarray:
    made = classes.copy()
    if step.operation == "holes":
        filled = ndimage.binary_fill_holes(classes == step.class_index)
        made[filled & (classes == BACKGROUND)] = step.class_index
        return made
    parts = found(classes == step.class_index)
    largest = max(map(len, parts), default=0)
    kept = next((i for i, pixels in enumerate(parts) if len(pixels) == largest), None)
    for i, pixels in enumerate(parts):
        if (i != kept) if step.operation == "largest" else (len(pixels) < step.area):
            made[tuple(np.transpose(pixels))] = BACKGROUND
    return made


STEPS = [
    Step("largest", 0),
    Step("min_area", 2, 2),
    Step("min_area", 3, 9),
    Step("holes", 0),
    Step("holes", 3),
]


@pytest.mark.parametrize("rows", [1, 7, 40])
@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step.operation}-{step.class_index}")
def test_steps_equal_a_search_pixel_by_pixel_for_any_bands(monkeypatch, step: Step, rows: int):
    monkeypatch.setattr(canvas, "_PIXELS", rows * 31)
    changed = 0
    for seed in range(4):
        classes = noise(seed)
        made = classes.copy()
        Postprocess(BACKGROUND, (step,)).apply(made)
        np.testing.assert_array_equal(made, expected(classes, step))
        changed += (made != classes).sum()
    assert changed


def test_steps_are_applied_in_their_order():
    ring = np.pad(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.uint8), 2)
    removal, filling = Step("min_area", 1, 9), Step("holes", 1)
    for steps, pixels in (((removal, filling), 0), ((filling, removal), 9)):
        made = ring.copy()
        Postprocess(0, steps).apply(made)
        assert made.sum() == pixels


def test_pixels_without_data_keep_their_class_and_join_no_components():
    # two parts of class 1 that only a pixel without data joins; background is 0
    classes = np.array([[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]], np.uint8)
    valid = np.ones_like(classes, bool)
    valid[1, 2] = False
    made = Postprocess(0, (Step("min_area", 1, 2),)).applied(classes, valid)
    np.testing.assert_array_equal(made, [[0] * 5, [0, 0, 1, 0, 0], [0] * 5])
    assert classes[1].sum() == 3


def test_nothing_to_do_leaves_the_map_as_it_is():
    classes = noise(6)
    for steps in ((), (Step("largest", 9), Step("holes", 9), Step("min_area", 2, 1))):
        made = classes.copy()
        Postprocess(BACKGROUND, steps).apply(made)
        np.testing.assert_array_equal(made, classes)
    one = np.zeros((1, 1), np.uint8)
    Postprocess(BACKGROUND, tuple(STEPS)).apply(one)
    assert one[0, 0] == 0


def test_steps_are_read_from_model_json_and_put_into_words():
    steps = [
        {"operation": "min_area", "class_index": 2, "area": 30},
        {"operation": "holes", "class_index": 2, "area": 0},
        {"operation": "largest", "class_index": 0, "area": 0},
    ]
    read = Postprocess.of({"postprocess": {"background": 1, "steps": steps}})
    assert read == Postprocess(1, (Step("min_area", 2, 30), Step("holes", 2), Step("largest", 0)))
    assert read.text(["a", "b", "c"]) == (
        "c: components under 30 pixels removed, holes filled; a: only the largest component kept"
    )
    assert Postprocess.of({}).steps == () and Postprocess.of({}).text(["a"]) == ""
