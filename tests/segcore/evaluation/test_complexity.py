"""Parameters, multiply-accumulates and receptive fields of networks small enough to count by hand."""

import time

import pytest
import torch
from torch import Tensor, nn

from segcore.evaluation.complexity import complexity
from segcore.models.base.factory import build_model, names
from segcore.models.base.semantic import SemanticModel


class Small(SemanticModel):
    """A sequence of layers, with logits resized to the input's size."""

    def __init__(self, *layers: nn.Module, channels: int = 3) -> None:
        super().__init__(channels, 2, "small", 8)
        self.layers = nn.Sequential(*layers)

    def segment(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_parameters_and_macs_of_one_convolution_are_exact() -> None:
    measured = complexity(Small(nn.Conv2d(3, 2, 3, padding=1)), size=64)
    assert measured.parameters == 3 * 2 * 9 + 2
    assert measured.macs == 64 * 64 * 3 * 2 * 9


def test_macs_of_strided_grouped_and_transposed_convolutions_are_exact() -> None:
    model = Small(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.ConvTranspose2d(8, 2, 2, stride=2),
    )
    assert complexity(model, size=64).macs == 32 * 32 * (8 * 3 * 9 + 8 * 9 + 8 * 2 * 4)


@pytest.mark.parametrize(
    ("layers", "field"),
    [
        ([nn.Conv2d(3, 2, 1)], 1),
        ([nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1)], 5),
        ([nn.Conv2d(3, 2, 3, padding=4, dilation=4)], 9),
        ([nn.Conv2d(3, 4, (1, 7), padding=(0, 3)), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)], 7),
        ([nn.Conv2d(3, 4, (9, 1), padding=(4, 0)), nn.Conv2d(4, 2, 1)], 9),
        ([nn.MaxPool2d(3, stride=1, padding=1), nn.Conv2d(3, 2, 3, padding=1)], 5),
        # 3 pixels at stride 2, then twice 2 more positions of 2 pixels each: 3 + 2 * (2 * 2)
        (
            [
                nn.Conv2d(3, 4, 3, stride=2, padding=1),
                nn.Conv2d(4, 4, 3, padding=1),
                nn.Conv2d(4, 4, 3, padding=1),
                nn.Upsample(scale_factor=2, mode="nearest"),
                nn.Conv2d(4, 2, 1),
            ],
            11,
        ),
    ],
)
def test_receptive_field_is_exact(layers: list[nn.Module], field: int) -> None:
    measured = complexity(Small(*layers), size=16)
    assert measured.receptive_field == field
    assert not measured.global_context


def test_weights_that_cancel_or_block_do_not_hide_the_field() -> None:
    model = Small(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(), nn.Conv2d(1, 2, 3, padding=1), channels=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(-1.0)
    assert complexity(model, size=16).receptive_field == 5


def test_published_fields_of_vgg16_are_found() -> None:
    # 212 pixels at pool5 and 404 at fc6; the bilinear step of 32 reads two neighbours, 32 pixels apart
    plain = build_model("fcn", 3, 2, encoder="vgg16", variant="32s", fc_channels=0)
    assert complexity(plain, size=32).receptive_field == 212 + 32
    full = build_model("fcn", 3, 2, encoder="vgg16", variant="32s", fc_channels=2)
    assert complexity(full, size=32).receptive_field == 404 + 32


def test_pixels_inside_the_field_of_unet_change_its_logits_and_those_outside_do_not() -> None:
    model = build_model("unet", 1, 2, encoder="plain", width=4).eval()
    side = complexity(model, size=32).receptive_field
    reach = (side + 1) // 2 + model.output_stride  # the field is not centred, because of strides
    image = torch.zeros(1, 1, 32, 512)
    beyond = image.clone()
    beyond[..., : 256 - reach] = 50.0
    beyond[..., 256 + reach :] = -50.0
    with torch.no_grad():
        assert torch.equal(model(image)[..., 256], model(beyond)[..., 256])
        within = image.clone()
        within[..., 256 - side // 4] = 50.0
        assert not torch.equal(model(image)[..., 256], model(within)[..., 256])


def test_image_pooling_is_global_context_and_not_part_of_the_local_field() -> None:
    deeplab, unet = (complexity(build_model(name, 3, 2), size=64) for name in ("deeplab", "unet"))
    assert deeplab.global_context and not unet.global_context
    assert unet.receptive_field < deeplab.receptive_field < 2000


@pytest.mark.parametrize("name", names())
def test_measuring_is_quick_and_leaves_the_model_as_it_was(name: str) -> None:
    model = build_model(name, 3, 2).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modules = [type(module) for module in model.modules()]
    start = time.perf_counter()
    complexity(model)
    assert time.perf_counter() - start < 10  # about half a second on an idle core
    assert model.training and [type(module) for module in model.modules()] == modules
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_range_that_clips_zero_does_not_hide_the_field() -> None:
    model = Small(nn.Conv2d(3, 2, 3, padding=1))
    model.set_normalization([-10.0] * 3, [1.0] * 3)
    model.set_range([-20.0] * 3, [-5.0] * 3)
    assert complexity(model, size=16).receptive_field == 3


def test_cost_of_an_instance_network_is_of_a_stated_number_of_objects() -> None:
    few, many = (
        complexity(build_model("mask_rcnn", 3, 2, width=16, proposals=n, detections=20)) for n in (50, 150)
    )
    assert few.fixed == {"proposals": 50, "masks": 10} and many.fixed == {"proposals": 150, "masks": 10}
    # two layers of 64 on 7 x 7 x 16, two classes, and the box of one
    assert many.macs - few.macs == 100 * (49 * 16 * 64 + 64 * 64 + 64 * 2 + 64 * 4)
    assert few.parameters == many.parameters


def test_the_field_of_an_instance_network_is_that_of_the_finest_map_or_global() -> None:
    # conv and norm layers of the pyramid: the same for all on one encoder
    of = {name: complexity(build_model(name, 3, 2, width=16)) for name in ("mask_rcnn", "yolact", "solo")}
    assert of["mask_rcnn"].receptive_field == of["yolact"].receptive_field > 200
    assert of["yolact"].fixed == {}
    # group norm is over the whole image
    assert {name: one.global_context for name, one in of.items()} == {
        "mask_rcnn": False,
        "yolact": True,
        "solo": True,
    }
    twice = complexity(build_model("yolact", 3, 2, width=16, magnify=2))
    assert abs(2 * twice.receptive_field - of["yolact"].receptive_field) <= 4
