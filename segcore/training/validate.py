"""Loss and score on the validation regions, used to select the best weights of a training."""

import numpy as np
import torch

from segcore.constants import IGNORE
from segcore.data.prepared import PreparedData
from segcore.inference.device import Precision
from segcore.inference.tiling import predict_with_touching
from segcore.models.base.instance import InstanceModel
from segcore.models.base.model import SegmentationModel
from segcore.models.base.semantic import SemanticModel
from segcore.params import TrainSettings
from segcore.training.distributed import Distributed
from segcore.training.validate_objects import validate_objects, window_side


def tile_side(model: SegmentationModel, crop: int) -> int:
    """Side in pixels of the windows of a network that was trained on crops of this side."""
    return window_side(model, crop) if isinstance(model, InstanceModel) else 2 * crop


def validate(
    model: SegmentationModel,
    data: PreparedData,
    settings: TrainSettings,
    precision: Precision,
    processes: Distributed | None = None,
) -> tuple[float, float]:
    """Loss and score (`SegmentationModel.score_name`) on the validation regions, the same for any number of processes.

    Args:
        model: on its device.
        data: prepared data.
        settings: of the training.
        precision: "fp32" or "bf16".
        processes: of a distributed training.

    Returns:
        Of a semantic network the mean loss over pixels and the pooled foreground mean IoU, of an instance network the
        loss and PQ.
    """
    processes = processes or Distributed()
    if isinstance(model, InstanceModel):
        return validate_objects(model, data, settings, precision, processes)
    assert isinstance(model, SemanticModel)
    return _of_pixels(model, data, tile_side(model, settings.crop), precision, processes)


def _of_pixels(
    model: SemanticModel, data: PreparedData, tile: int, precision: Precision, processes: Distributed
) -> tuple[float, float]:
    """Loss (mean over pixels) and pooled foreground mean IoU on the validation regions, as in evaluation.

    With several processes, each region is read by exactly one of them. Sums are taken in the order of regions, so that
    the same weights give the same numbers for any number of processes. Where the model has an output for pixels near
    two objects, they are a class of the loss, but not of the IoU.
    """
    classes, rows = model.num_classes, []
    regions = list(enumerate(data.regions.loc[data.regions["split"] == "validation", "id"]))
    for index, region in regions[processes.rank :: processes.world]:
        patch = data.read_input(region)
        probabilities, touching = predict_with_touching(model, patch, tile, min(64, tile // 4), precision)
        outputs, label = probabilities, patch.label
        if touching is not None:
            outputs = np.concatenate([probabilities * (1 - touching), touching[None]])
            label = data.read_input(region, touching=True).label
        scored = patch.label != IGNORE
        # softmax(log p) = p
        logits = torch.from_numpy(outputs).clamp_min(1e-12).log()[None]
        loss = model.criterion(logits, torch.from_numpy(label).long()[None])["loss"]
        counts = confusion(patch.label, probabilities.argmax(0), classes)
        rows.append((index, float(loss), int(scored.sum()), counts))
    total, pixels, matrix = 0.0, 0, np.zeros((classes, classes), dtype=np.int64)
    for _, loss_mean, count, counts in sorted(processes.gathered(rows), key=lambda row: row[0]):
        total, pixels, matrix = total + loss_mean * count, pixels + count, matrix + counts
    return total / max(pixels, 1), float(iou(matrix)[data.foreground].mean())


def confusion(label: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """(K, K) int64 pixels by true class (row) and predicted class (column).

    Args:
        label: (H, W) class indices, IGNORE where not scored.
        classes: (H, W) predicted class indices; any value where the label is IGNORE.
        count: K.
    """
    scored = label != IGNORE
    pair = label[scored].astype(np.int64) * count + classes[scored]
    return np.bincount(pair, minlength=count**2).reshape(count, count)


def iou(matrix: np.ndarray) -> np.ndarray:
    """(K,) IoU of each class of a confusion matrix, 1 where it is neither true nor predicted."""
    hit = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - hit
    of_classes: np.ndarray = np.where(union > 0, hit / np.maximum(union, 1), 1.0)
    return of_classes
