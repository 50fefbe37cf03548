"""DeepLab: dilation instead of stride."""

from torch import nn

from segcore.models.base.factory import build_model


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
