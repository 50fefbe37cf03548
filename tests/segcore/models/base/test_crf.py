"""The CRF equals the literal sums over all pairs of pixels, and moves edges to where the colour changes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from segcore.errors import ModelError
from segcore.export._graph import Source
from segcore.models.base import crf as module
from segcore.models.base.bundle import read_bundle, save_bundle
from segcore.models.base.crf import Crf
from segcore.models.base.factory import build_model
from segcore.models.base.semantic import SemanticModel
from segcore.training.crf_settings import choose_crf, text
from tests.segcore.training.test_postprocess_settings import CLASSES, Data, Reads, truth


def literally(crf: Crf, logits: np.ndarray, image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(K, H, W) logits by the sums over all pairs of pixels, each with its two kernels."""
    rows, cols = (axis.ravel() for axis in np.mgrid[: logits.shape[1], : logits.shape[2]])
    apart = (rows[:, None] - rows) ** 2 + (cols[:, None] - cols) ** 2
    colors = image.reshape(len(image), -1).T
    color = ((colors[:, None] - colors) ** 2).mean(-1)
    there = valid.ravel()[:, None] & valid.ravel() & (apart > 0)
    near = (np.abs(rows[:, None] - rows) <= 2) & (np.abs(cols[:, None] - cols) <= 2)
    first = np.exp(-apart / (2 * crf.distance**2) - color / (2 * crf.color**2)) * there
    second = np.exp(-apart / (2 * module._NEAR**2)) * there * near
    unary = logits.reshape(len(logits), -1)
    found = unary
    for _ in range(module._ITERATIONS):
        q = np.exp(found - found.max(0))
        q /= q.sum(0)
        found = unary + crf.weight * (q @ first.T) / (first.sum(1) + module._TINY)
        found = found + module._SMOOTHNESS * (q @ second.T) / (second.sum(1) + module._TINY)
    return found.reshape(logits.shape)


@pytest.mark.parametrize(("height", "width"), [(5, 5), (4, 3), (1, 5)])
def test_mean_field_is_the_sum_over_all_pairs(height: int, width: int) -> None:
    """The grid has distance 1 for a deviation of 2 pixels, and reaches over images of up to 5 pixels."""
    rng = np.random.default_rng(height)
    logits, image = rng.normal(size=(3, height, width)), rng.normal(size=(2, height, width))
    valid = np.ones((height, width), bool)
    valid[0, 1:3] = False
    crf = Crf(2.0, 0.7, 3.0)
    tensors = (torch.from_numpy(array)[None] for array in (logits.astype(np.float32), image, valid))
    np.testing.assert_allclose(crf(*tensors)[0].numpy(), literally(crf, logits, image, valid), atol=1e-4)


def test_an_edge_moves_to_where_the_colour_changes() -> None:
    image = torch.zeros(1, 1, 40, 40)
    image[..., 20:] = 2
    truth_map = image[0, 0] > 1
    logits = torch.zeros(1, 2, 40, 40)
    # the network is sure of the wrong class in two columns, and of the right one elsewhere
    wrong = truth_map.clone()
    wrong[:, 18:20] = True
    logits[0, 1] = torch.where(wrong, 1.0, -1.0)
    found = Crf(8.0, 0.3, 5.0)(logits, image)
    assert torch.equal(found[0].argmax(0) == 1, truth_map)


def test_a_network_has_its_crf_in_evaluation_alone_and_in_its_bundle(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model("unet", 1, 2, encoder="plain", width=4).eval()
    image = torch.randn(1, 1, 32, 32)
    plain = model(image)
    other = build_model("unet", 1, 2, encoder="plain", width=4, crf=Crf(3.0, 0.5, 4.0).entry()).eval()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected = Crf(3.0, 0.5, 4.0)(plain, image)
        assert torch.equal(other(image), expected) and not torch.equal(expected, plain)
        assert torch.equal(other.train()(image), model.train()(image))
    save_bundle(tmp_path, other, "unet", {"classes": ["a", "b"], "colors": [[0, 0, 0], [1, 1, 1]]})
    with torch.no_grad():
        assert torch.equal(read_bundle(tmp_path).model()(image), other.eval()(image))
    with pytest.raises(ModelError, match="has a CRF, which is not exported"):
        Source.of(read_bundle(tmp_path))
    with pytest.raises(ModelError, match="above 0"):
        build_model("unet", 1, 2, crf={"distance": 3.0, "color": 0, "weight": 4.0})


def test_a_crf_is_chosen_if_no_class_gets_worse() -> None:
    """`Reads` predicts the value of each pixel, so that single wrong pixels have another colour, and keep it."""
    label = truth((20, 20, 9), (40, 40, 6))
    model = Reads()
    nothing = choose_crf(model, Data((label, label)), 128, "fp32")
    assert nothing and not nothing["chosen"] and model.crf is None and "crf" not in model.settings
    assert nothing["iou_before"] == nothing["iou_after"] == dict.fromkeys(CLASSES, 1.0)
    assert "none improves" in text(nothing, [1, 2])


class Near(SemanticModel):
    """Predicts the class whose index is nearest to the value of each pixel, with little certainty."""

    def __init__(self) -> None:
        super().__init__(1, len(CLASSES), "near", 1)
        self.unused = nn.Conv2d(1, 1, 1)

    def segment(self, x: torch.Tensor) -> torch.Tensor:
        return -((x - torch.arange(len(CLASSES))[None, :, None, None]) ** 2)


def test_noise_is_removed_by_a_crf_that_is_chosen() -> None:
    label = truth((20, 20, 9), (40, 40, 6))
    noise = np.random.default_rng(0).normal(0, 0.4, label.shape)
    model = Near()
    found = choose_crf(model, Data((label, label + noise)), 128, "fp32")
    assert found and found["chosen"] == Crf.of(model.settings["crf"]).text() and model.crf is not None
    assert all(found["iou_after"][name] > found["iou_before"][name] + 0.1 for name in CLASSES)
    assert found["chosen"] in text(found, [1, 2])
