"""Encoders: strides, channels, dilation, and weights of torchvision."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from segcore.models.base.encoders import ENCODERS, Encoder, build_encoder

GUIDE = Path(__file__).parents[4] / "docs/guide/encoders.md"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("output_stride", [32, 16, 8])
@pytest.mark.parametrize("name", ENCODERS)
def test_features_have_the_strides_and_channels_of_the_attributes(name: str, output_stride: int) -> None:
    encoder = build_encoder(name, 3, output_stride=output_stride).eval()
    with torch.no_grad():
        features = encoder(torch.rand(1, 3, 64, 96))
    nominal = [1, 2, 4, 8, 16, 32] if name.startswith("vgg") else [2, 4, 8, 16, 32]
    assert encoder.strides == [min(stride, output_stride) for stride in nominal]
    for feature, channels, stride in zip(features, encoder.channels, encoder.strides, strict=True):
        assert feature.shape == (1, channels, 64 // stride, 96 // stride)


@pytest.mark.parametrize("output_stride", [16, 8])
@pytest.mark.parametrize(
    "name", ["mobilenet_v2", "resnet18", "resnet50", "vgg16", "efficientnet_lite0", "xception"]
)
def test_dilation_computes_the_same_values_on_a_finer_grid(name: str, output_stride: int) -> None:
    strided = build_encoder(name, 3).eval()
    dilated = build_encoder(name, 3, output_stride=output_stride).eval()
    dilated.load_state_dict(strided.state_dict())
    image = torch.rand(1, 3, 96, 64)
    with torch.no_grad():
        pairs = list(zip(strided(image), dilated(image), strict=True))
    for coarse, fine in pairs:
        step = fine.shape[-1] // coarse.shape[-1]
        torch.testing.assert_close(fine[..., ::step, ::step], coarse, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "vgg16_bn"])
def test_encoder_with_weights_computes_what_torchvision_computes(name: str, tmp_path: Any) -> None:
    network = torchvision.models.get_model(name, weights=None).eval()
    file = tmp_path / "weights.safetensors"
    save_file({k: v for k, v in network.state_dict().items() if not k.startswith("classifier")}, file)
    encoder = build_encoder(name, 3, f"file:{file}").eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        if name.startswith("resnet"):
            last = nn.Sequential(*list(network.children())[:-2])(image)
        else:
            last = (network.features[:18] if name == "mobilenet_v2" else network.features)(image)
        torch.testing.assert_close(encoder(image)[-1], last, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_first_convolution_gives_grey_images_the_same_activation_for_any_number_of_bands(
    channels: int, tmp_path: Any
) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(torchvision.models.resnet18(weights=None).state_dict(), file)
    rgb: Encoder = build_encoder("resnet18", 3, f"file:{file}").eval()
    other = build_encoder("resnet18", channels, f"file:{file}").eval()
    grey = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        expected = rgb(grey.expand(-1, 3, -1, -1))[-1]
        torch.testing.assert_close(
            other(grey.expand(-1, channels, -1, -1))[-1], expected, atol=1e-4, rtol=1e-3
        )


def test_the_guide_lists_every_encoder_with_its_parameters() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    with torch.device("meta"):
        counted = {name: sum(p.numel() for p in build_encoder(name, 3).parameters()) for name in ENCODERS}
    assert dict(rows) == {name: f"{parameters / 1e6:.2f}" for name, parameters in counted.items()}
