"""Objects of an instance network over windows: exactly those that are there, whatever the windows."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segcore.data.prepared import LabelledImage
from segcore.errors import ModelError
from segcore.inference import objects as windowed
from segcore.inference.objects import predict_objects, windows_of
from segcore.models.base.factory import build_model
from segcore.models.base.instance import Outputs
from segcore.objects.found import Objects
from tests.support.instance_bundle import Oracle
from tests.support.object_maps import scene_of
from tests.support.toy_instance import Toy


def oracle_of(is_position_dependent: bool = False) -> Oracle:
    return Oracle(is_position_dependent, (1, 2, 3), lambda numbers: np.full(len(numbers), 0.5))


def patch_of(numbers: np.ndarray, classes: np.ndarray, valid: np.ndarray | None = None) -> LabelledImage:
    image = np.stack([numbers, np.append(0, classes)[numbers]], axis=-1).astype(np.float32)
    valid = np.ones(numbers.shape, bool) if valid is None else valid
    return LabelledImage(image, np.zeros(numbers.shape, np.uint8), valid)


scenes = st.tuples(
    st.sampled_from(["snake", "rings", "us", "squares"]),
    st.integers(8, 60),
    st.integers(8, 60),
    st.integers(0, 2**16),
)


@settings(max_examples=150, deadline=None)
@given(scenes, st.integers(4, 70), st.data(), st.booleans(), st.integers(1, 5))
def test_a_network_that_is_right_in_each_window_is_right_everywhere(scene, tile, data, dependent, at_once):
    numbers, classes = scene_of(*scene)
    overlap = data.draw(st.integers(2, tile // 2))
    oracle = oracle_of(dependent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(windowed._PIXELS, "fp32", at_once * tile**2)
        found = predict_objects(oracle, patch_of(numbers, classes), tile, overlap)
    assert np.array_equal(found.numbers(), numbers)
    assert np.array_equal(found.classes, classes) and np.allclose(found.scores, 0.5)
    assert (found.height, found.width) == numbers.shape
    size = (tile, tile) if dependent else tuple(min(tile, side) for side in numbers.shape)
    assert set(oracle.windows) == {size}


@pytest.mark.parametrize("seed", range(8))
def test_objects_end_where_data_end(seed):
    numbers, classes = scene_of("squares", 60, 50, seed)
    valid = np.ones(numbers.shape, bool)
    valid[13:, 37:] = False
    found = predict_objects(oracle_of(), patch_of(numbers, classes, valid), 16, 8)
    assert np.array_equal(found.numbers() > 0, valid & (numbers > 0))


def test_a_patch_of_a_single_window_has_the_objects_of_one_pass():
    torch.manual_seed(0)
    model = Toy().eval()
    image = np.random.default_rng(1).normal(size=(30, 40, 3)).astype(np.float32)
    patch = LabelledImage(image, np.zeros((30, 40), np.uint8), np.ones((30, 40), bool))
    (once,) = model.predict(torch.from_numpy(image).permute(2, 0, 1)[None])
    found = predict_objects(model, patch, 64, 8)
    assert len(once) > 10 and np.array_equal(found.numbers(), once.numbers())
    assert np.allclose(found.scores, once.scores, atol=1e-6)


class Fixed(Toy):
    """Has the same objects whatever the image is."""

    def __init__(self, objects: Objects) -> None:
        super().__init__()
        self.objects = objects

    def detect(self, outputs: Outputs, height: int, width: int) -> list[Objects]:
        return [self.objects]


def of_boxes(*objects: tuple[float, int, int, int, int]) -> Objects:
    """Filled boxes, each with score, row, col, height and width, in an image of 20 x 20 pixels."""
    scores = np.array([o[0] for o in objects], np.float32)
    boxes = np.array([o[1:] for o in objects], np.int32).reshape(-1, 4)
    return Objects(
        20, 20, np.ones(len(objects), np.uint8), scores, boxes, [np.ones(b[2:], bool) for b in boxes]
    )


def result_of(*objects: tuple[float, int, int, int, int]) -> list[tuple[float, int]]:
    """Score and pixels of each object that is left; the same for every order of the given ones."""
    patch = LabelledImage(
        np.zeros((20, 20, 3), np.float32), np.zeros((20, 20), np.uint8), np.ones((20, 20), bool)
    )
    results = []
    for order in itertools.permutations(objects):
        found = predict_objects(Fixed(of_boxes(*order)), patch, 20, 4)
        results.append([(round(float(s), 2), int(a)) for s, a in zip(found.scores, found.areas, strict=True)])
    assert all(result == results[0] for result in results)
    return results[0]


def test_an_object_that_keeps_at_most_half_of_its_pixels_is_left_out():
    assert result_of((0.9, 0, 0, 4, 10), (0.8, 2, 0, 4, 10)) == [(0.9, 40)]
    assert result_of((0.9, 0, 0, 4, 10), (0.8, 2, 0, 5, 10)) == [(0.9, 40), (0.8, 30)]
    # a duplicate, and one around it of which a frame would be left
    assert result_of((0.9, 2, 2, 8, 8), (0.5, 2, 2, 8, 8), (0.4, 1, 1, 10, 10)) == [(0.9, 64)]
    # two that take a third each
    assert result_of((0.9, 0, 0, 5, 10), (0.8, 10, 0, 5, 10), (0.7, 0, 0, 15, 10)) == [(0.9, 50), (0.8, 50)]


def test_what_a_left_out_object_had_is_of_the_next_one():
    # the second one loses to the first, and the third has all of its own
    assert result_of((0.9, 0, 0, 6, 10), (0.8, 2, 0, 8, 10), (0.7, 6, 0, 6, 10)) == [(0.9, 60), (0.7, 60)]
    # the third one loses to the second, which stays
    assert result_of((0.9, 0, 0, 2, 10), (0.8, 1, 0, 8, 10), (0.7, 5, 0, 6, 10)) == [(0.9, 20), (0.8, 70)]


def test_windows_of_an_instance_network_fit_its_objects_and_its_training():
    facts = {"tile": 256, "objects": {"side": 90.2}}
    assert windows_of(oracle_of(), facts, 704, 64) == (704, 91)
    assert windows_of(oracle_of(), facts, 704, 200) == (704, 200)
    assert windows_of(oracle_of(True), facts, 704, 64) == (256, 91)
    assert windows_of(oracle_of(True), facts | {"objects": {"side": 500.0}}, 704, 64) == (256, 128)
    assert windows_of(oracle_of(), {}, 704, 0) == (704, 2)
    unet = build_model("unet", 3, 2, encoder="plain", width=4)
    assert windows_of(unet, facts, 704, 64) == (704, 64)
    with pytest.raises(ModelError, match="lacks tile"):
        windows_of(oracle_of(True), {}, 704, 64)


def test_boxes_are_those_of_the_pixels_with_data():
    valid = torch.ones(1, 20, 20, dtype=torch.bool)
    valid[:, :, :4] = valid[:, 12:, :] = False
    model = Fixed(of_boxes((0.9, 2, 0, 15, 10), (0.8, 5, 0, 4, 4), (0.7, 5, 15, 2, 2)))
    (found,) = model.predict(torch.zeros(1, 3, 20, 20), valid)
    assert found.boxes.tolist() == [[2, 4, 10, 6], [5, 15, 2, 2]]
    assert np.allclose(found.scores, [0.9, 0.7]) and found.areas.tolist() == [60, 4]
