"""Tests that every semantic architecture must pass."""

import json
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor

from segcore.constants import IGNORE
from segcore.errors import ModelError
from segcore.models.base.factory import SegmentationModel, build_model, defaults, kind, names, rebuild_model
from segcore.models.base.model import pad_to_multiple
from segcore.models.base.semantic import SemanticModel
from segcore.training.losses import build_loss

# A new architecture is tested with its defaults until variants are added here.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "fcn": [
        {},
        {"variant": "32s"},
        {"variant": "16s", "encoder": "resnet18", "output_stride": 16},
        {"encoder": "vgg16", "fc_channels": 8},
    ],
    "unet": [
        {},
        {"encoder": "plain", "width": 4},
        {"encoder": "resnet18", "upsampling": "bilinear", "full_resolution": True},
        {"encoder": "vgg16_bn", "decoder_channels": [16, 16, 8, 8, 8]},
        {"upsampling": "nearest", "norm": "group", "score_gain": 10, "deep_supervision": True},
        {"encoder": "resnet18", "norm": "instance", "full_resolution": True, "deep_supervision": True},
    ],
    "deeplab": [
        {},
        {"version": "v3", "output_stride": 8},
        {"encoder": "resnet34", "separable": False, "aspp_channels": 16},
        {"encoder": "vgg16", "aspp_channels": 16},
        {"version": "v1", "encoder": "vgg16", "aspp_channels": 16},
        {"version": "v2"},
        {"encoder": "efficientnet_lite0", "output_stride": 8},
    ],
}
SEMANTIC = [name for name in names() if kind(name) == "semantic"]
CASES = [(name, keywords) for name in SEMANTIC for keywords in VARIANTS.get(name, [{}])]
every_variant = pytest.mark.parametrize(
    ("name", "keywords"), CASES, ids=[f"{name}-{'-'.join(map(str, k.values()))}" for name, k in CASES]
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def pixels(*shape: int) -> Tensor:
    return torch.rand(*shape) * 255


def build(name: str, keywords: dict[str, Any], channels: int = 3, classes: int = 5) -> SegmentationModel:
    model = build_model(name, channels, classes, **keywords)
    model.set_normalization([127.0] * channels, [70.0] * channels)
    return model


@every_variant
def test_odd_sizes_are_padded_and_cropped_back(name: str, keywords: dict[str, Any]) -> None:
    model = build(name, keywords).eval()
    for height, width in ((37, 53), (5, 7), (64, 64)):
        probabilities = model.predict(pixels(1, 3, height, width))
        assert probabilities.shape == (1, 5, height, width)
        assert probabilities.dtype == torch.float32
        torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(1, height, width))


def test_values_are_clipped_to_the_range_before_they_are_normalised() -> None:
    model = build_model("unet", 2, 2, encoder="plain")
    model.set_normalization([10.0, 100.0], [2.0, 10.0])
    model.set_range([0.0, 90.0], [20.0, 120.0])
    image = torch.tensor([[-5.0, 12.0, 1e9], [0.0, 100.0, 1e9]])[None, :, None]
    expected = torch.tensor([[-5.0, 1.0, 5.0], [-1.0, 0.0, 2.0]])[None, :, None]
    torch.testing.assert_close(model.normalize(image), expected)
    with pytest.raises(ModelError, match="is not 2 lows below their highs"):
        model.set_range([0.0, 5.0], [1.0, 5.0])


@every_variant
def test_a_batch_of_one_does_not_break_batch_norm(name: str, keywords: dict[str, Any]) -> None:
    model = build(name, keywords).train()
    for size in (5, 40):
        batch = {"image": pixels(1, 3, size, size), "label": torch.randint(0, 5, (1, size, size))}
        loss = model.loss(batch)["loss"]
        loss.backward()
        assert loss.isfinite()
    assert all(value.isfinite().all() for value in model.state_dict().values())


@every_variant
def test_gradient_reaches_every_parameter(name: str, keywords: dict[str, Any]) -> None:
    model = build(name, keywords | ({"dropout": 0.0} if "dropout" in defaults(name) else {})).train()
    model.loss({"image": pixels(2, 3, 64, 64), "label": torch.randint(0, 5, (2, 64, 64))})["loss"].backward()
    without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@every_variant
def test_labels_that_are_all_ignored_give_a_finite_loss_and_no_gradient(
    name: str, keywords: dict[str, Any]
) -> None:
    model = build(name, keywords).train()
    loss = model.loss({"image": pixels(2, 3, 33, 33), "label": torch.full((2, 33, 33), IGNORE)})["loss"]
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


@every_variant
def test_saved_weights_and_settings_rebuild_the_same_model(
    name: str, keywords: dict[str, Any], tmp_path: Any
) -> None:
    model = build(name, keywords)
    # changes the statistics of batch norm
    model.loss({"image": pixels(2, 3, 32, 32), "label": torch.randint(0, 5, (2, 32, 32))})
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    settings = json.loads(json.dumps(model.settings))
    torch.manual_seed(1)
    again = rebuild_model(name, 3, 5, settings)
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    image = pixels(1, 3, 40, 40)
    assert again.settings == settings
    assert again.title == model.title
    assert torch.equal(again.std, torch.full((3,), 70.0))
    assert torch.equal(again.predict(image), model.predict(image))
    assert torch.equal(again.predict(image), again.predict(image))


@pytest.mark.parametrize("name", SEMANTIC)
def test_rebuilding_does_not_need_the_pretrained_weights(name: str, tmp_path: Any) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(torchvision.models.resnet18(weights=None).state_dict(), file)
    model = build_model(name, 3, 2, encoder="resnet18", weights=f"file:{file}")
    file.unlink()
    again = rebuild_model(name, 3, 2, model.settings)
    again.load_state_dict(model.state_dict())
    assert again.settings["weights"] == f"file:{file}"


@every_variant
def test_normalisation_is_inside_and_saved(name: str, keywords: dict[str, Any]) -> None:
    model = build(name, keywords)
    image = pixels(1, 3, 32, 32)
    before = model.predict(image)
    model.set_normalization([10.0, 20.0, 30.0], [1.0, 2.0, 4.0])
    scale, shift = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([10.0, 20.0, 30.0])
    same = ((image - 127) / 70) * scale[:, None, None] + shift[:, None, None]
    torch.testing.assert_close(model.predict(same), before, atol=1e-4, rtol=1e-3)
    assert {"mean", "std"} <= model.state_dict().keys()


@every_variant
def test_the_values_of_nodata_pixels_change_nothing(name: str, keywords: dict[str, Any]) -> None:
    model = build(name, keywords)
    image, valid = pixels(1, 3, 40, 40), torch.rand(1, 40, 40) > 0.3
    holes = image.masked_fill(~valid[:, None], float("nan"))
    means = image.masked_fill(~valid[:, None], 127.0)
    assert torch.equal(model.predict(holes, valid), model.predict(means))
    none_valid = torch.zeros(1, 40, 40, dtype=torch.bool)
    assert model.predict(torch.full_like(image, float("nan")), none_valid).isfinite().all()


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("name", SEMANTIC)
def test_any_number_of_bands(name: str, channels: int) -> None:
    model = build(name, {}, channels=channels)
    assert model.predict(pixels(1, channels, 32, 32)).shape == (1, 5, 32, 32)
    with pytest.raises(ModelError, match=r"takes \(N, .* got \(1, 2, 32, 32\)"):
        model(pixels(1, 2, 32, 32))


@pytest.mark.parametrize("name", SEMANTIC)
def test_images_of_a_batch_do_not_influence_each_other(name: str) -> None:
    model, images = build(name, {}), pixels(3, 3, 40, 40)
    together = model.predict(images)
    alone = torch.cat([model.predict(image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", SEMANTIC)
def test_predict_restores_training_mode_and_criterion_can_be_replaced(name: str) -> None:
    model = build(name, {}).train()
    assert not model.predict(pixels(1, 3, 32, 32)).requires_grad
    assert model.training
    model.criterion = build_loss("dice")
    losses = model.loss({"image": pixels(2, 3, 32, 32), "label": torch.randint(0, 5, (2, 32, 32))})
    assert losses["loss"].requires_grad


@pytest.mark.parametrize("name", SEMANTIC)
def test_every_architecture_learns_a_simple_image(name: str) -> None:
    model = build_model(name, 3, 2).train()
    model.set_normalization([127.0] * 3, [70.0] * 3)
    label = torch.zeros(2, 64, 64, dtype=torch.int64)
    label[:, 8:40, 20:52] = 1
    image = pixels(2, 3, 64, 64) * 0.3 + label[:, None] * 150.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(25):
        optimizer.zero_grad()
        model.loss({"image": image, "label": label})["loss"].backward()
        optimizer.step()
    # in training mode: batch norm's running statistics need more than 25 steps
    predicted = model(image).argmax(dim=1) == 1
    overlap = (predicted & (label == 1)).sum() / (predicted | (label == 1)).sum()
    assert overlap > 0.6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build_model("segnet", 3, 2), "'segnet' is unknown.*deeplab, fcn, .*unet"),
        (lambda: build_model("unet", 3, 2, depth=4), "no keyword 'depth'.*encoder, weights, width"),
        (lambda: build_model("fcn", 3, 2, variant="4s"), "'4s' is unknown.*32s, 16s, 8s"),
        (lambda: build_model("fcn", 3, 2, encoder="vgg19"), "'vgg19' is unknown.*mobilenet_v2, resnet18"),
        (lambda: build_model("fcn", 3, 2, encoder="plain"), "U-Net alone.*train.unet.encoder"),
        (lambda: build_model("deeplab", 3, 2, encoder="plain"), "U-Net alone.*train.common.encoder"),
        (lambda: build_model("deeplab", 3, 2, output_stride=32), "32 is unknown.*16, 8"),
        (lambda: build_model("deeplab", 3, 2, output_stride=16.0), "16.0 is unknown.*16, 8"),
        (lambda: build_model("unet", 3, 2, decoder_channels=[8]), "does not fit.*give 4 values"),
        (lambda: build_model("unet", 3, 2, norm="layer"), "norm 'layer' is unknown.*batch, group, instance"),
        (lambda: build_model("unet", 3, 2, score_gain=0), "score_gain is 0.*above 0, at most 100"),
        (lambda: build_model("unet", 3, 2, encoder="plain", weights="imagenet"), "no weights 'imagenet'"),
        (lambda: build_model("unet", 3, 2).set_normalization([0.0], [1.0]), "not 3 finite values"),
        (lambda: build_model("unet", 3, 2).set_normalization([0] * 3, [1, 0, 1]), "not above 0"),
    ],
)
def test_wrong_arguments_are_errors_that_list_the_valid_ones(call: Any, message: str) -> None:
    with pytest.raises(ModelError, match=f"(?s){message}"):
        call()


def test_names_and_titles() -> None:
    assert {"deeplab", "fcn", "unet"} <= set(names())
    titles = {name: build_model(name, 3, 2).title for name in ("fcn", "unet", "deeplab")}
    assert titles == {"fcn": "FCN-8s", "unet": "U-Net", "deeplab": "DeepLabV3+"}
    assert build_model("deeplab", 3, 2, version="v3").title == "DeepLabV3"


@pytest.mark.parametrize("name", SEMANTIC)
@pytest.mark.parametrize("magnify", [0.25, 0.5, 2, 3])
def test_a_magnified_image_gives_logits_of_the_original_size(name: str, magnify: float) -> None:
    torch.manual_seed(0)
    model = build_model(name, 3, 4, magnify=magnify).eval()
    assert rebuild_model(name, 3, 4, model.settings).magnify == magnify
    with torch.no_grad():
        logits = model(torch.rand(1, 3, 45, 38))
    assert logits.shape == (1, 4, 45, 38) and logits.isfinite().all()


def test_the_network_gets_the_magnified_image_and_logits_keep_their_position() -> None:
    class Same(SemanticModel):
        def segment(self, x: Tensor) -> Tensor:
            self.input_shape = x.shape
            return x

    ramp = torch.arange(32.0).expand(1, 1, 32, 32)
    for magnify in (0.5, 2):
        model = Same(1, 1, "same", 1)
        model.magnify = magnify
        inner = model(ramp)[..., 4:-4]
        assert model.input_shape == (1, 1, 32 * magnify, 32 * magnify)
        assert torch.allclose(inner, ramp[..., 4:-4], atol=1e-4)


def test_padding_adds_nothing_to_a_size_that_fits() -> None:
    x = torch.ones(1, 1, 64, 96)
    assert pad_to_multiple(x, 32) is x
    assert pad_to_multiple(torch.ones(1, 1, 3, 65), 32).shape == (1, 1, 64, 96)
