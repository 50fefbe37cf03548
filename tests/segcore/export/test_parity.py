"""The comparison of a file with its network: what counts as the same, and what is timed."""

from typing import Any

import numpy as np
import pytest
import torch

from segcore.export._graph import Source
from segcore.export._parity import Differences, differences, latencies
from segcore.export._parity_text import line, loss_text, markdown, score_text
from segcore.objects.found import Objects
from tests.support.instance_bundle import bundle_of
from tests.support.toy_instance import Toy


def mask(side: int = 10, row: int = 5, col: int = 6) -> np.ndarray:
    plane = np.zeros((40, 40), bool)
    plane[row : row + side, col : col + side] = True
    return plane


def outputs(plane: np.ndarray, box: tuple[int, ...] = (6, 5, 16, 15), score: float = 0.8) -> dict[str, Any]:
    return {
        "scores": np.array([[score, 0]], np.float32),
        "classes": np.array([[1, 0]]),
        "boxes": np.array([[box, (0, 0, 0, 0)]], np.float32),
        "masks": np.stack([plane, np.zeros_like(plane)])[None],
    }


WANTED = [
    Objects(
        40,
        40,
        np.array([1], np.uint8),
        np.array([0.8], np.float32),
        np.array([[5, 6, 10, 10]], np.int32),
        [np.ones((10, 10), bool)],
    )
]


def test_objects_are_the_same_but_for_pixels_near_a_half():
    other = mask()
    other[9, 9] = other[10, 9] = False
    found = Differences()
    assert found.objects(WANTED, outputs(other)) == (pytest.approx(0), 1, 0)
    assert found.least_iou == 0.98


def test_masks_that_differ_more_are_objects_that_differ():
    other = mask()
    other[7:9, 7:15] = False
    assert Differences().objects(WANTED, outputs(other))[1:] == (1, 1)


@pytest.mark.parametrize("box", [(4, 5, 16, 15), (6, 5, 16, 18), (7, 5, 16, 15)])
def test_boxes_that_do_not_enclose_their_masks_are_objects_that_differ(box: tuple[int, ...]):
    other = mask(side=10)
    assert Differences().objects(WANTED, outputs(other))[2] == 0
    assert Differences().objects(WANTED, outputs(other, box))[2] == 1


def of_toy() -> tuple[Source, np.ndarray]:
    """A network that has no form for export, and an image in which it finds the object of `mask`."""
    toy = Toy(in_channels=1)
    torch.nn.init.constant_(toy.encoder.weight, 1.0)
    torch.nn.init.constant_(toy.encoder.bias, -0.5)
    images = np.where(mask(), 3.0, -3.0).astype(np.float32)[None, None]
    facts = {"classes": ["ground", "tree"], "colors": [[0, 0, 0], [0, 255, 0]], "foreground": [1]}
    return Source.of(bundle_of(toy, **facts)), images


def test_objects_are_compared_with_those_of_a_prediction_and_not_of_the_form_for_export():
    source, images = of_toy()
    (wanted,) = source.model.predict(torch.from_numpy(images))
    found = differences(source, lambda _: outputs(mask(), score=float(wanted.scores[0])), [("one", images)])
    assert (found.unit, found.compared, found.changed) == ("objects", 1, 0)
    shifted = outputs(mask(row=20), (6, 20, 16, 30))
    assert differences(source, lambda _: shifted, [("one", images)]).changed == 2


def test_predictions_are_timed_in_the_precision_of_the_model_which_is_named():
    source, images = of_toy()
    times = latencies(source, lambda _: outputs(mask()), images, "bf16", None)
    assert times["precision"] == "bf16" and times["eager"] > 0 and times["exported"] > 0
    facts = facts_of(Differences(compared=3, unit="objects"), times)
    assert "ms in bf16" in line(facts) and "pixels in fp32" in line(facts)
    assert f"{times['threads']} thread" in markdown(facts)


def facts_of(found: Differences, times: dict[str, Any]) -> dict[str, Any]:
    """Content of export.json as far as it is printed."""
    parity = {**vars(found), "largest_difference": found.largest, "score": None, "pixels": "random pixels"}
    parity["latency_ms"] = {"tile": 40, **times}
    facts = {"name": "toy-0", "title": "ONNX", "file": "model.onnx", "weights_sha256": "0" * 64}
    return {**facts, "size": 1, "tolerance": 1e-4, "max_loss": None, "parity": parity}


def test_a_comparison_without_objects_states_that_nothing_was_compared():
    source, images = of_toy()
    none = outputs(mask(), score=0.0)
    found = differences(source, lambda _: none, [("none", -3 * np.ones_like(images))])
    times = {"eager": 1.0, "exported": 1.0, "precision": "fp32", "threads": 1, "machine": "CPU"}
    facts = facts_of(found, times)
    assert "found no objects in these pixels, so that nothing was compared" in line(facts)
    assert "computes what" not in markdown(facts) and ", 1 thread\n" in markdown(facts)


def test_scores_and_losses_have_the_unit_of_their_metric():
    assert score_text("iou", 0.55526) == "55.526 %" and loss_text("iou", 0.01) == "1.000 points"
    assert score_text("hd95", 1.5) == "1.50000 mm" == loss_text("hd95", 1.5)
