"""A fully connected CRF after a semantic network, chosen on the validation split at the end of a training.

As other post-processing, it is kept only if it makes no class worse and the mean of the foreground better.
"""

from typing import Any

import numpy as np

from segcore.constants import IGNORE
from segcore.data.prepared import PreparedData
from segcore.inference.device import Precision
from segcore.inference.tiling import predict_patch
from segcore.models.base.crf import Crf
from segcore.models.base.model import SegmentationModel
from segcore.models.base.semantic import SemanticModel
from segcore.training.postprocess_settings import by_class
from segcore.training.validate import confusion, iou

# distances in pixels, and colours in deviations of the training split
_CANDIDATES = [Crf(*pair, 5.0) for pair in ((3.0, 1.0), (8.0, 0.1), (8.0, 0.3), (30.0, 0.1))]


def choose_crf(
    model: SegmentationModel, data: PreparedData, tile: int, precision: Precision
) -> dict[str, Any] | None:
    """Give a network the CRF of the highest mean foreground IoU on the validation split, if it may be kept.

    IoU is of the pooled pixels, as in validation; predictions are those of the validation.

    Args:
        model: trained, on its device; its settings get the entry "crf" if one is kept.
        data: prepared data.
        tile: side of the windows in pixels.
        precision: of the predictions.

    Returns:
        chosen (words, empty if none), and iou_before and iou_after of each class. None: an instance network, or no
        validation pixel has a label.
    """
    if not isinstance(model, SemanticModel):
        return None
    start = _matrix(model, data, tile, precision)
    if not start.any():
        return None
    before = after = iou(start)
    best, highest = None, before[data.foreground].mean()
    for candidate in _CANDIDATES:
        model.crf = candidate
        found = iou(_matrix(model, data, tile, precision))
        mean = found[data.foreground].mean()
        if mean > highest and (found >= before).all():
            best, highest, after = candidate, mean, found
    model.crf = best
    if best is not None:
        model.settings = {**model.settings, "crf": best.entry()}

    return {
        "chosen": best.text() if best else "",
        "iou_before": by_class(data.classes, before),
        "iou_after": by_class(data.classes, after),
    }


def text(entry: dict[str, Any], foreground: list[int]) -> str:
    """What was chosen, with the mean foreground IoU on the validation split before and after, as one line."""
    before, after = (
        float(np.mean([list(entry[key].values())[index] for index in foreground]))
        for key in ("iou_before", "iou_after")
    )
    if not entry["chosen"]:
        return f"CRF: none improves the validation split, mean foreground IoU {before:.4f}"
    return (
        f"{entry['chosen']}; mean foreground IoU on the validation split {before:.4f} -> {after:.4f}; predictions take "
        "several times as long"
    )


def _matrix(model: SemanticModel, data: PreparedData, tile: int, precision: Precision) -> np.ndarray:
    """(K, K) int64 confusion matrix of the validation split."""
    matrix = np.zeros((len(data.classes),) * 2, np.int64)
    for region in data.regions[data.regions["split"] == "validation"].sort_values("id").itertuples():
        patch = data.read_input(region.id)
        classes = predict_patch(model, patch, tile, min(64, tile // 4), precision).argmax(0)
        label = np.where(patch.valid, patch.label, np.uint8(IGNORE))
        matrix += confusion(label, classes, len(data.classes))
    return matrix
