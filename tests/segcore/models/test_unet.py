"""U-Net: the network of the paper."""

from torch import nn

from segcore.models.base.factory import build_model


def test_the_plain_encoder_gives_the_network_of_the_paper() -> None:
    model = build_model("unet", 1, 2, encoder="plain")
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    # "In total the network has 23 convolutional layers"
    assert len(convolutions) == 23
    assert model.encoder.channels == [64, 128, 256, 512, 1024]
    assert [up.convolve[0][0].in_channels for up in model.ups] == [1024, 512, 256, 128]
