"""Encoders of timm, and Xception, whose weights are timm's."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segcore.errors import ModelError
from segcore.models.base.bundle import load_bundle, save_bundle
from segcore.models.base.encoders import build_encoder
from segcore.models.base.factory import build_model
from segcore.models.base.pretrained import imagenet_normalization
from segcore.prediction.fuse_batchnorm import fused


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def timm() -> Any:
    return pytest.importorskip("timm")


def saved(network: nn.Module, path: Path) -> str:
    """Specification of a file with the weights of a network, whose norms get random statistics."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    save_file(network.state_dict(), path)
    return f"file:{path}"


def test_without_timm_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    for call in (
        lambda: build_model("fcn", 3, 2, encoder="timm:resnet18"),
        lambda: imagenet_normalization("timm:x"),
    ):
        with pytest.raises(ModelError, match=r"timm is not installed[\s\S]*pip install \"\.\[timm\]\""):
            call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build_encoder("timm:nosuch", 3), "no network 'nosuch'.*timm:resnet18"),
        # would be fetched from elsewhere
        (lambda: build_encoder("timm:hf-hub:someone/else", 3), "no network 'hf-hub:someone/else'"),
        (
            lambda: build_encoder("timm:vit_tiny_patch16_224", 3),
            "cannot be an encoder.*strides.*timm:resnet18",
        ),
        (lambda: build_encoder("timm:swin_tiny_patch4_window7_224", 3), "cannot be an encoder.*64"),
        (
            lambda: build_encoder("timm:edgenext_xx_small", 3, output_stride=16),
            "no output stride 16.*timm:resnet18",
        ),
        (
            lambda: build_encoder("timm:resnet18", 3, "torchvision:IMAGENET1K_V1"),
            "torchvision has no weights for",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_names_that_do(
    timm: Any, call: Callable[[], Any], message: str
) -> None:
    with pytest.raises(ModelError, match=f"(?s){message}"):
        call()


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_weights_of_a_local_file_give_the_last_map_of_timm(timm: Any, name: str, tmp_path: Path) -> None:
    network = timm.create_model(name).eval()
    weights = saved(network, tmp_path / "w.safetensors")
    encoder = build_encoder(f"timm:{name}", 3, weights).eval()
    grey = torch.rand(1, 1, 64, 96)
    with torch.no_grad():
        expected = network.forward_features(grey.expand(-1, 3, -1, -1))
        torch.testing.assert_close(encoder(grey.expand(-1, 3, -1, -1))[-1], expected)
        five = build_encoder(f"timm:{name}", 5, weights).eval()
        torch.testing.assert_close(five(grey.expand(-1, 5, -1, -1))[-1], expected, atol=1e-4, rtol=1e-3)
    with pytest.raises(ModelError, match=r"tensors are missing, first stages"):
        build_encoder("timm:regnety_002", 3, weights)


@pytest.mark.parametrize(
    ("architecture", "keywords"),
    [
        ("unet", {"encoder": "timm:convnext_atto", "full_resolution": True}),
        ("fcn", {"encoder": "timm:convnext_atto"}),
        ("deeplab", {"encoder": "timm:convnext_atto"}),
        ("deeplab", {"encoder": "timm:resnet18"}),
    ],
)
def test_a_bundle_is_read_again_and_fused(
    timm: Any, architecture: str, keywords: dict[str, Any], tmp_path: Path
) -> None:
    model = build_model(architecture, 4, 3, **keywords)
    model.loss({"image": torch.rand(2, 4, 64, 64), "label": torch.zeros(2, 64, 64, dtype=torch.int64)})[
        "loss"
    ].backward()
    save_bundle(tmp_path, model, architecture, {"classes": ["a", "b", "c"]})
    image = torch.rand(1, 4, 50, 70)
    expected = model.predict(image)
    assert expected.shape == (1, 3, 50, 70)
    assert torch.equal(load_bundle(tmp_path).predict(image), expected)
    torch.testing.assert_close(fused(model).predict(image), expected, atol=1e-4, rtol=1e-3)


def test_a_batch_norm_of_timm_with_an_activation_keeps_it(timm: Any) -> None:
    from timm.layers import BatchNormAct2d

    pair = nn.Sequential(nn.Conv2d(3, 4, 1), BatchNormAct2d(4)).eval()
    image = torch.randn(1, 3, 8, 8)
    assert torch.equal(fused(pair)(image), pair(image))


def test_normalisation_is_that_of_the_weights(timm: Any) -> None:
    assert imagenet_normalization("timm:resnet18")[0] == pytest.approx([123.675, 116.28, 103.53])
    assert imagenet_normalization("timm:xception65") == imagenet_normalization("xception")


def test_weights_of_a_hub_that_is_not_reached_are_an_error_with_a_remedy(
    timm: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"could not be downloaded[\s\S]*file:PATH"):
        build_encoder("timm:resnet18", 3, "imagenet")


@pytest.mark.parametrize("output_stride", [32, 16, 8])
def test_all_maps_of_xception_are_those_of_timm(timm: Any, output_stride: int, tmp_path: Path) -> None:
    weights = saved(timm.create_model("xception65"), tmp_path / "w.safetensors")
    ours = build_encoder("xception", 3, weights, output_stride).eval()
    theirs = build_encoder("timm:xception65", 3, weights, output_stride).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for found, expected in zip(ours(image), theirs(image), strict=True):
            torch.testing.assert_close(found, expected)
