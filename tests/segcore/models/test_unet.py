"""U-Net: the network of the paper."""

import pytest
import torch
from torch import nn

from segcore.constants import IGNORE
from segcore.models.base.factory import build_model, rebuild_model
from segcore.models.unet import UNet


def test_the_plain_encoder_gives_the_network_of_the_paper() -> None:
    model = build_model("unet", 1, 2, encoder="plain")
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    # "In total the network has 23 convolutional layers"
    assert len(convolutions) == 23
    assert model.encoder.channels == [64, 128, 256, 512, 1024]
    assert [up.convolve[0][0].in_channels for up in model.ups] == [1024, 512, 256, 128]


def test_settings_of_older_versions_rebuild_their_network() -> None:
    old = {
        "encoder": "plain",
        "weights": "none",
        "width": 4,
        "decoder_channels": None,
        "upsampling": "transposed",
        "full_resolution": False,
    }
    model = build_model("unet", 1, 2, encoder="plain", width=4)
    # a training compares them with those of the champion
    assert model.settings == old
    rebuild_model("unet", 1, 2, old).load_state_dict(model.state_dict())
    assert build_model("unet", 1, 2, **old, score_gain=10).settings == {**old, "score_gain": 10}


def supervised(magnify: float = 1, **keywords: object) -> UNet:
    torch.manual_seed(0)
    model = build_model(
        "unet", 1, 3, encoder="plain", width=4, magnify=magnify, deep_supervision=True, **keywords
    )
    assert isinstance(model, UNet)
    return model


@pytest.mark.parametrize("magnify", [0.5, 1, 2])
def test_deep_supervision_is_the_weighted_mean_of_the_losses_of_the_stages(magnify: float) -> None:
    model = supervised(magnify)
    images, labels = torch.rand(2, 1, 64, 64), torch.randint(0, 3, (2, 64, 64))
    logits = model.train()(images)
    # the last stage and the three before it
    assert logits.shape == (2, 4 * 3, 64, 64)
    expected = model.criterion(logits[:, :3], labels)["loss"]
    # logits are those of the last stage, then of the coarsest one
    for channels, stride, weight in ((9, 2, 1 / 2), (6, 4, 1 / 4), (3, 8, 1 / 8)):
        cell = max(1, round(stride / magnify))
        middle = slice(cell // 2, None, cell)
        stage = logits[:, channels : channels + 3, middle, middle]
        expected = expected + weight * model.criterion(stage, labels[:, middle, middle])["loss"]
    torch.testing.assert_close(model.training_loss(logits, labels)["loss"], expected / (15 / 8))


def test_deep_supervision_changes_training_alone() -> None:
    model = supervised()
    image = torch.rand(1, 1, 20, 30)
    with torch.no_grad():
        logits = model.eval()(image)
        for score in model.score_stages:
            torch.nn.init.zeros_(score.weight)
        assert logits.shape == (1, 3, 20, 30) and torch.equal(model(image), logits)
    losses = model.training_loss(logits, torch.full((1, 20, 30), IGNORE))
    assert losses["loss"] == 0


def test_group_and_instance_norm_of_an_image_do_not_depend_on_its_batch() -> None:
    for norm in ("group", "instance"):
        model = build_model("unet", 1, 2, encoder="plain", width=4, norm=norm).train()
        images = torch.rand(2, 1, 32, 32)
        torch.testing.assert_close(model(images)[:1], model(images[:1]), atol=1e-5, rtol=1e-4)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_the_gain_multiplies_the_logits() -> None:
    model = supervised(score_gain=8).eval()
    image = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        gained = model(image)
        model.score_gain = 1
        torch.testing.assert_close(gained, 8 * model(image))
