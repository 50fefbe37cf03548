"""What a network predicts for a region, as evaluations compare it with the labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from segcore.constants import IGNORE
from segcore.data.prepared import LabelledImage
from segcore.inference.calibration import confidence
from segcore.inference.device import Precision
from segcore.inference.objects import predict_objects
from segcore.inference.tiling import predict_with_touching
from segcore.models.base.instance import InstanceModel
from segcore.models.base.semantic import SemanticModel
from segcore.objects.find import FindSettings, find
from segcore.objects.found import Objects
from segcore.params import Evaluate


@dataclass(frozen=True)
class Predicted:
    """Prediction for a region.

    Attributes:
        classes: (H, W) uint8 class indices.
        confidence: (H, W) float32 in [0, 1], probability of each pixel's class.
        objects: of every score; None: not asked for.
        calibrated: (H, W) float32, the confidence after temperature scaling; None: there is no temperature.
    """

    classes: np.ndarray
    confidence: np.ndarray
    objects: Objects | None
    calibrated: np.ndarray | None = None


def by_pixels(
    model: SemanticModel,
    patch: LabelledImage,
    settings: Evaluate,
    precision: Precision,
    foreground: Sequence[int],
    finding: FindSettings | None,
    temperature: float | None = None,
) -> Predicted:
    """Prediction of a semantic network.

    Args:
        model: on its device.
        patch: the pixels.
        settings: tile and overlap.
        precision: "fp32" or "bf16".
        foreground: indices of the classes that have objects.
        finding: how objects are found, whatever their score; None: they are not.
        temperature: of the model; None: confidence is not calibrated.
    """
    probabilities, touching = predict_with_touching(model, patch, settings.tile, settings.overlap, precision)
    classes, found = probabilities.argmax(axis=0).astype(np.uint8), None
    if finding is not None:
        inside = np.where(patch.valid, classes, np.uint8(IGNORE))
        found = find(probabilities, inside, foreground, replace(finding, score=0.0), touching)
    calibrated = None
    if temperature is not None:
        calibrated = confidence(torch.from_numpy(probabilities), temperature).numpy()
    return Predicted(classes, probabilities.max(axis=0), found, calibrated)


def by_objects(
    model: InstanceModel, patch: LabelledImage, settings: Evaluate, precision: Precision, score: float
) -> Predicted:
    """Prediction of an instance network; arguments as of `by_pixels`.

    A pixel is of the class of its object if that has at least the operating score, else of the background, the first
    class without objects. The probability of an object's class in its pixels is its score, the rest is that of the
    background.

    Args:
        model: see `by_pixels`.
        patch: see `by_pixels`.
        settings: see `by_pixels`.
        precision: see `by_pixels`.
        score: operating score.
    """
    found = predict_objects(model, patch, settings.tile, settings.overlap, precision)
    counts = found.scores >= np.float32(score)
    numbers = found.numbers()
    classes = np.append(model.background, np.where(counts, found.classes, model.background)).astype(np.uint8)
    confidence = np.append(1, np.where(counts, found.scores, 1 - found.scores)).astype(np.float32)
    return Predicted(classes[numbers], confidence[numbers], found)
