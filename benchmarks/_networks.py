"""The networks of the training benchmark; all contestants train the same one."""

from typing import Any

import torch
from torch import Tensor, nn

from segcore.models.base.factory import build_model
from segcore.models.base.semantic import SemanticModel

# of raw pixels
MEAN, STD = 128.0, 60.0
OWN: dict[str, tuple[str, dict[str, Any]]] = {
    "fcn": ("fcn", {"variant": "8s"}),
    # as in params.yaml, but without deep supervision, which the other loops do not have
    "unet": ("unet", {"decoder_channels": [96, 64, 48, 32], "upsampling": "nearest"}),
    "deeplab": ("deeplab", {}),
}
SMP = {"smp-unet": "Unet", "smp-deeplab": "DeepLabV3Plus"}
SEMANTIC = (*OWN, *SMP)
# trained by benchmarks/_object_trainers.py
INSTANCE = ("mask_rcnn",)
NETWORKS = (*SEMANTIC, *INSTANCE)


class _Foreign(SemanticModel):
    """A network of segmentation_models_pytorch with the interface of segcore."""

    def __init__(self, name: str) -> None:
        super().__init__(3, 2, f"smp {SMP[name]}", 32)
        import segmentation_models_pytorch as smp

        self.net = getattr(smp, SMP[name])("mobilenet_v2", encoder_weights=None, in_channels=3, classes=2)

    def segment(self, x: Tensor) -> Tensor:
        return self.net(x)


class Plain(nn.Module):
    """The network without normalisation, as other loops train it: pixels (N, 3, H, W) to logits (N, 2, H, W)."""

    def __init__(self, model: SemanticModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.segment(x)


def network(name: str) -> SemanticModel:
    """An untrained network of SEMANTIC with a MobileNetV2 encoder, 3 bands and 2 classes."""
    torch.manual_seed(0)
    if name in SMP:
        model: SemanticModel = _Foreign(name)
    else:
        architecture, keywords = OWN[name]
        built = build_model(architecture, 3, 2, encoder="mobilenet_v2", **keywords)
        assert isinstance(built, SemanticModel)
        model = built
    model.set_normalization([MEAN] * 3, [STD] * 3)
    return model


def size(model: SemanticModel, crop: int) -> tuple[float, float]:
    """Millions of parameters, and GFLOPs (multiplications and additions) of the forward pass of one crop."""
    from torch.utils.flop_counter import FlopCounterMode

    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.segment(torch.zeros(1, 3, crop, crop))
    return sum(p.numel() for p in model.parameters()) / 1e6, counter.get_total_flops() / 1e9
