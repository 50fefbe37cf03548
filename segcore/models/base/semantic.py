"""Base class of semantic networks: one logit per pixel and class, loss and prediction."""

from abc import abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from segcore.constants import IGNORE
from segcore.models.base.crf import Crf
from segcore.models.base.model import SegmentationModel, cropped, resized

Criterion = Callable[[Tensor, Tensor], dict[str, Tensor]]


def cross_entropy(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Mean cross-entropy over the pixels that are not IGNORE; 0 if all are.

    Args:
        logits: (N, K, H, W).
        labels: (N, H, W) int64, classes 0..K-1 or IGNORE.

    Returns:
        "loss", a float32 scalar with gradient, and "cross_entropy", the same without.
    """
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="sum")
    loss = total / (labels != IGNORE).sum().clamp(min=1)
    return {"loss": loss, "cross_entropy": loss.detach()}


class SemanticModel(SegmentationModel):
    """A network that maps raw pixels to one logit per pixel and class.

    A subclass implements `segment`; the rest is the same for all.

    Attributes:
        criterion: (logits (N, K, H, W), labels (N, H, W)) -> dict of scalars, of which "loss" is minimised. Can be
            replaced; by default cross-entropy without IGNORE pixels.
        crf: applied to the logits in evaluation mode; None: logits are those of the network.
    """

    kind = "semantic"
    score_name = "iou"

    def __init__(self, in_channels: int, num_classes: int, title: str, output_stride: int) -> None:
        super().__init__(in_channels, num_classes, title, output_stride)
        self.criterion: Criterion = cross_entropy
        self.crf: Crf | None = None

    @abstractmethod
    def segment(self, x: Tensor) -> Tensor:
        """Logits (N, outputs, H, W) of normalised pixels (N, C, H, W); H and W are multiples of output_stride."""

    def forward(self, images: Tensor, valid: Tensor | None = None) -> Tensor:
        """Logits for images of any size.

        Args:
            images: (N, C, H, W) float32, raw pixel values.
            valid: (N, H, W) bool, False where nodata; None: all are valid.

        Returns:
            (N, outputs, H, W) float logits.

        Raises:
            ModelError: the number of channels is not that of the model.
        """
        x, sides = self.prepared(images, valid)
        logits = cropped(self.segment(x), *sides)
        logits = cropped(resized(logits, 1 / self.magnify), *images.shape[-2:])
        if self.crf is None or self.training:
            return logits
        return self.crf(logits, self.normalize(images, valid), valid)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """As of `SegmentationModel`, by `criterion`."""
        logits = self(batch["image"], batch.get("valid"))
        return self.training_loss(logits, batch["label"])

    def training_loss(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """As `criterion`, of what `forward` gives in training mode; a network with auxiliary outputs overrides it."""
        return self.criterion(logits, labels)

    @torch.inference_mode()
    def predict(self, images: Tensor, valid: Tensor | None = None) -> Tensor:
        """Probabilities (N, outputs, H, W) float32 in 0..1, in evaluation mode, without gradient."""
        was_training = self.training
        self.eval()
        try:
            logits: Tensor = self(images, valid)
            return logits.float().softmax(dim=1)
        finally:
            self.train(was_training)
