"""Test-time augmentation by flips: the mean of the predictions for an image and its mirror images.

Four forward passes instead of one; the measured costs of a model include them (`segcore.prediction.speed`).
"""

from torch import Tensor

from segcore.constants import SMALLEST_PROBABILITY
from segcore.errors import ParamsError
from segcore.models.base.model import SegmentationModel
from segcore.models.base.semantic import SemanticModel

# axes that are flipped in each pass
FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))
# settings that ask for flips, as errors name them
EVALUATED, PREDICTED = "evaluate.flips", "predict.flips (null: as evaluate.flips)"


class FlipAveraged(SemanticModel):
    """The mean of the probabilities of `model` over `FLIPS`.

    Its logits are the logarithms of these means, so that a softmax over them gives the means.
    """

    def __init__(self, model: SemanticModel) -> None:
        super().__init__(model.in_channels, model.outputs, model.title, model.output_stride)
        self.model, self.criterion = model, model.criterion
        self.take_facts(model)

    def segment(self, x: Tensor) -> Tensor:
        """Logits (N, K, H, W) of the wrapped model, without flips."""
        return self.model.segment(x)

    def forward(self, images: Tensor, valid: Tensor | None = None) -> Tensor:
        """(N, C, H, W) raw pixels to (N, K, H, W) float32 logarithms of mean probabilities."""
        total: Tensor | None = None
        for axes in FLIPS:
            flipped = None if valid is None else valid.flip(axes)
            probabilities = self.model(images.flip(axes), flipped).float().softmax(dim=1).flip(axes)
            total = probabilities if total is None else total.add_(probabilities)
        assert total is not None
        return total.div_(len(FLIPS)).clamp_min_(SMALLEST_PROBABILITY).log_()


def with_flips(model: SegmentationModel, flips: bool) -> SegmentationModel:
    """`model`, or with `flips` the mean of its predictions over mirror images.

    Raises:
        ParamsError: as of `require_no_objects`.
    """
    if not flips:
        return model
    require_no_objects(model, EVALUATED)
    assert isinstance(model, SemanticModel)
    return FlipAveraged(model).to(next(model.parameters()).device).eval()


def require_no_objects(model: SegmentationModel, setting: str) -> None:
    """Check that predictions of a network can be averaged over mirror images.

    Args:
        model: the network.
        setting: that asks for it, `EVALUATED` or `PREDICTED`.

    Raises:
        ParamsError: it is an instance network, whose objects have no mean.
    """
    if model.kind == "instance":
        raise ParamsError(
            f"{setting}: {model.title} finds objects, and objects of mirror images cannot be averaged",
            f"set {setting.split()[0]} to false",
        )


def passes(flips: bool) -> int:
    """Number of forward passes per image."""
    return len(FLIPS) if flips else 1


def require_trained(settings: dict[str, object], name: str, setting: str) -> None:
    """Check that a network was trained with flips.

    Args:
        settings: `parameters` of its model.json.
        name: of the model, for the error message.
        setting: that asks for flips, `EVALUATED` or `PREDICTED`.

    Raises:
        ParamsError: it was trained without flips.
    """
    augment = settings.get("augment")
    if isinstance(augment, dict) and not augment.get("flip", True):
        raise ParamsError(
            f"{setting}: {name} was trained without flips (train.common.augment.flip: false)",
            f"set {setting.split()[0]} to false",
        )
