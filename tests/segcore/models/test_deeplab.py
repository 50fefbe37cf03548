"""DeepLab: dilation instead of stride, and the published figures of its first two versions."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segcore.errors import ModelError
from segcore.evaluation.complexity import complexity
from segcore.models.base.factory import build_model, rebuild_model
from segcore.models.base.model import upsample
from segcore.models.deeplab import SummedDeepLab

# of PASCAL VOC, with the background
VOC = 21


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def convolution(width: int, outputs: int, kernel: int) -> int:
    return width * outputs * kernel**2 + outputs


def test_weights_have_the_same_shapes_at_output_stride_8_and_16() -> None:
    coarse, fine = (build_model("deeplab", 3, 2, output_stride=stride) for stride in (16, 8))
    assert {k: v.shape for k, v in coarse.state_dict().items()} == {
        k: v.shape for k, v in fine.state_dict().items()
    }
    fine.load_state_dict(coarse.state_dict())
    rates = [
        [m.dilation[0] for m in model.aspp.modules() if isinstance(m, nn.Conv2d) and m.dilation[0] > 1]
        for model in (coarse, fine)
    ]
    assert rates == [[6, 12, 18], [12, 24, 36]]


def test_v1_has_the_published_size_and_field_of_view() -> None:
    model = build_model("deeplab", 3, VOC, encoder="vgg16", version="v1")
    # table 2 of the paper, LargeFOV: 20.5 M
    assert round(complexity(model, size=32).parameters / 1e6, 1) == 20.5
    convolutions = [m for m in model.encoder.modules() if isinstance(m, nn.Conv2d)]
    assert [m.dilation[0] for m in convolutions] == [1] * 10 + [2] * 3
    assert {m.stride[0] for m in convolutions} == {1} and model.output_stride == 8
    (branch,) = model.branches
    assert [type(m).__name__ for m in branch] == ["Conv2d", "ReLU", "Dropout"] * 2
    assert (branch[2].p, branch[0].dilation, branch[3].kernel_size) == (0.5, (12, 12), (1, 1))
    # fc6 reaches as far as that of VGG, 7x7 at stride 32, whose 7 * 32 = 224 pixels are the paper's field of view
    assert (branch[0].kernel_size[0] - 1) * branch[0].dilation[0] * 8 == (7 - 1) * 32
    # 404 is the receptive field of VGG as the paper gives it, 8 that of the upsampling of the scores
    assert complexity(model, size=32).receptive_field == 404 + 8


def test_v2_has_four_branches_of_the_published_size() -> None:
    model = build_model("deeplab", 3, VOC, encoder="vgg16", version="v2")
    branch = convolution(512, 1024, 3) + convolution(1024, 1024, 1) + convolution(1024, VOC, 1)
    assert parameters(model) == parameters(model.encoder) + 4 * branch
    assert [b[0].dilation[0] for b in model.branches] == [6, 12, 18, 24]
    # the authors' ResNet has no fc6 and fc7
    residual = build_model("deeplab", 3, VOC, encoder="resnet18", version="v2")
    assert parameters(residual) == parameters(residual.encoder) + 4 * convolution(512, VOC, 3)
    assert residual.output_stride == 8 and residual.title == "DeepLabV2"


@pytest.mark.parametrize("channels", [0, 6])
def test_v2_is_the_sum_of_its_branches(channels: int) -> None:
    torch.manual_seed(0)
    rates = [1, 3]
    model = build_model(
        "deeplab", 3, 4, encoder="resnet18", version="v2", aspp_channels=channels, atrous_rates=rates
    ).eval()
    x = torch.rand(1, 3, 64, 72)
    with torch.no_grad():
        deep, total = model.encoder(x)[-1], torch.zeros(1)
        for rate, branch, score in zip(rates, model.branches, model.scores, strict=True):
            if channels:
                fc6, fc7 = branch[0], branch[3]
                hidden = F.relu(F.conv2d(deep, fc6.weight, fc6.bias, padding=rate, dilation=rate))
                hidden = F.relu(F.conv2d(hidden, fc7.weight, fc7.bias))
                total = total + F.conv2d(hidden, score.weight, score.bias)
            else:
                total = total + F.conv2d(deep, score.weight, score.bias, padding=rate, dilation=rate)
        torch.testing.assert_close(model.segment(x), upsample(total, (64, 72)))


def test_fc6_and_fc7_start_as_those_of_vgg_thinned_out() -> None:
    torch.manual_seed(0)
    model = build_model("deeplab", 3, 2, encoder="vgg16", version="v1", aspp_channels=3).eval()
    assert isinstance(model, SummedDeepLab)
    state = {
        "classifier.0.weight": torch.randn(5, 512 * 7 * 7),
        "classifier.0.bias": torch.randn(5),
        "classifier.3.weight": torch.randn(5, 5),
        "classifier.3.bias": torch.randn(5),
    }
    model.load_fully_connected(state)
    # VGG's fc6 on a grid four times as fine has dilation 4: the rows 0, 3 and 6 are 12 apart
    fine = torch.randn(1, 512, 25, 25)
    kept = [0, 2, 4]
    thinned = torch.zeros(3, 512, 7, 7)
    thinned[:, :, ::3, ::3] = state["classifier.0.weight"].view(5, 512, 7, 7)[kept][:, :, ::3, ::3]
    with torch.no_grad():
        hidden = F.relu(F.conv2d(fine, thinned, state["classifier.0.bias"][kept], dilation=4))[0, :, 0, 0]
        weight = state["classifier.3.weight"][kept][:, kept]
        expected = F.relu(F.linear(hidden, weight, state["classifier.3.bias"][kept]))
        torch.testing.assert_close(model.branches[0](fine)[0, :, 12, 12], expected, atol=1e-3, rtol=1e-4)


def test_keywords_that_are_null_get_the_values_of_the_version() -> None:
    common = {"encoder": "mobilenet_v2", "weights": "none", "atrous_rates": None}
    # as older versions wrote it into model.json, which a training compares with that of the champion
    old = {
        **common,
        "version": "v3+",
        "output_stride": 16,
        "aspp_channels": 128,
        "separable": True,
        "dropout": 0.1,
    }
    model = build_model("deeplab", 3, 2, aspp_channels=None)
    assert model.settings == old
    rebuild_model("deeplab", 3, 2, old).load_state_dict(model.state_dict())
    new = {"version": "v1", "output_stride": 8, "aspp_channels": 0, "separable": False, "dropout": 0.5}
    assert build_model("deeplab", 3, 2, version="v1").settings == {**common, **new}
    with pytest.raises(ModelError, match="v2 has no separable convolutions"):
        build_model("deeplab", 3, 2, version="v2", separable=True)
