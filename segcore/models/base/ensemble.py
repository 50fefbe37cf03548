"""An ensemble: the mean of the probabilities of several semantic networks, which is one network of one bundle."""

from collections.abc import Sequence

from torch import Tensor, nn

from segcore.constants import SMALLEST_PROBABILITY
from segcore.errors import ModelError
from segcore.models.base.model import SegmentationModel
from segcore.models.base.semantic import SemanticModel


class Ensemble(SemanticModel):
    """The mean of the probabilities of several networks (Lakshminarayanan et al. 2017, arXiv 1612.01474).

    Each network takes raw pixels and normalises, enlarges and pads them itself, so that networks of any architecture,
    encoder and magnification fit together. The logits of the ensemble are the logarithms of the means, so that a
    softmax over them gives the means. All costs are those of all networks, one after the other.

    Attributes:
        members: the networks.
        temperatures: by which each network's logits are divided first, so that one that is too confident does not
            outvote the others.
    """

    def __init__(
        self, members: Sequence[SegmentationModel], temperatures: Sequence[float], title: str
    ) -> None:
        first = members[0]
        super().__init__(
            first.in_channels, first.outputs, title, max(member.output_stride for member in members)
        )
        self.members = nn.ModuleList(members)
        self.temperatures = tuple(temperatures)
        self.touching = first.touching
        # what limits the size of an image, for exported graphs
        self.magnify = min(member.magnify for member in members)
        # of no pixel that is predicted, but facts of the bundle: those of the first network
        for name in ("mean", "std", "low", "high"):
            getattr(self, name).copy_(getattr(first, name))

    def segment(self, x: Tensor) -> Tensor:
        """Not possible: each network normalises for itself.

        Raises:
            ModelError: always.
        """
        raise ModelError(f"{self.title} has no logits of normalised pixels", "call it with raw pixels")

    def forward(self, images: Tensor, valid: Tensor | None = None) -> Tensor:
        """(N, C, H, W) raw pixels to (N, outputs, H, W) float32 logarithms of mean probabilities."""
        total: Tensor | None = None
        for member, temperature in zip(self.members, self.temperatures, strict=True):
            probabilities = (member(images, valid).float() / temperature).softmax(dim=1)
            total = probabilities if total is None else total + probabilities
        assert total is not None
        return (total / len(self.members)).clamp_min(SMALLEST_PROBABILITY).log()


def require_alike(members: Sequence[SegmentationModel], names: Sequence[str]) -> None:
    """Check that networks can be averaged: all semantic, of the same bands and outputs.

    Args:
        members: the networks, at least one.
        names: of each, for the error message.

    Raises:
        ModelError: one is an instance network, or differs from the first.
    """

    def facts(model: SegmentationModel) -> tuple[object, ...]:
        return model.kind, model.in_channels, model.outputs, model.touching

    for member, name in zip(members, names, strict=True):
        if member.kind == "instance":
            raise ModelError(
                f"{name}: {member.title} finds objects, and objects of several networks have no mean",
                "average semantic networks alone",
            )
        if facts(member) != facts(members[0]):
            raise ModelError(
                f"{name} has other bands or outputs than {names[0]}, so they have no mean",
                "train all of them on the same data",
            )
