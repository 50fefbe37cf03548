"""FCN: upsampling, skips, and weights of VGG's classifier."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segcore.models.base.factory import build_model
from segcore.models.fcn import bilinear_transposed


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("factor", [2, 4])
def test_transposed_convolutions_start_as_bilinear_upsampling(factor: int) -> None:
    x = torch.rand(1, 3, 9, 11)
    ours = bilinear_transposed(3, factor)(x)
    theirs = F.interpolate(x, scale_factor=factor, mode="bilinear")
    # without borders, where theirs repeats pixels and ours pads zeros
    inner = (..., slice(factor, -factor), slice(factor, -factor))
    torch.testing.assert_close(ours[inner], theirs[inner])


@pytest.mark.parametrize(("variant", "skips"), [("32s", 0), ("16s", 1), ("8s", 2)])
def test_each_skip_has_a_learnt_upsampling_and_a_score(variant: str, skips: int) -> None:
    model = build_model("fcn", 3, 4, variant=variant)
    ups = [m for m in model.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert len(ups) == skips
    assert [score.in_channels for score in model.scores] == [320, 96, 32][: skips + 1]


def test_vgg_takes_fc6_and_fc7_from_the_classifier() -> None:
    model = build_model("fcn", 3, 2, encoder="vgg16", fc_channels=4)
    state = {
        "classifier.0.weight": torch.randn(4, 512 * 7 * 7),
        "classifier.0.bias": torch.randn(4),
        "classifier.3.weight": torch.randn(4, 4),
        "classifier.3.bias": torch.randn(4),
    }
    model.load_fully_connected(state)
    model.eval()
    pooled = torch.randn(1, 512, 7, 7)
    hidden = F.relu(F.linear(pooled.flatten(1), state["classifier.0.weight"], state["classifier.0.bias"]))
    hidden = F.relu(F.linear(hidden, state["classifier.3.weight"], state["classifier.3.bias"]))
    torch.testing.assert_close(model.fully_connected(pooled)[0, :, 3, 3], hidden[0], atol=1e-3, rtol=1e-4)
