"""Loss and panoptic quality of an instance network on the validation regions."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from segcore.constants import IGNORE
from segcore.data.prepared import LabelledImage, PreparedData
from segcore.inference.device import Precision
from segcore.inference.objects import objects_loss, predict_objects
from segcore.inference.tiling import tile_starts, to_batch
from segcore.models.base.instance import InstanceModel
from segcore.params import TrainSettings
from segcore.training.cut_objects import CutObjects
from segcore.training.distributed import Distributed
from segcore.training.object_matches import SCORES, matched, true_objects, window_overlap


def window_side(model: InstanceModel, crop: int) -> int:
    """Side of the windows in pixels that an instance network predicts in: as in training, if that changes results."""
    return crop if model.is_position_dependent else 2 * crop


def validate_objects(
    model: InstanceModel,
    data: PreparedData,
    settings: TrainSettings,
    precision: Precision,
    processes: Distributed,
) -> tuple[float, float]:
    """Loss, from sums and weights over all windows, and PQ of all foreground classes at the best score of a grid.

    With several processes, each region is read by exactly one of them. Sums are taken in the order of regions, so that
    the same weights give the same numbers for any number of processes.
    """
    side, device = window_side(model, settings.crop), next(model.parameters()).device
    cut, overlap = CutObjects(data, settings.objects, device), window_overlap(data, side)
    table = data.regions[data.regions["split"] == "validation"]
    regions = list(enumerate(zip(table["id"], table["item"], strict=True)))
    rows = []
    for index, (region, item) in regions[processes.rank :: processes.world]:
        patch = data.read_input(region, instances=True)
        parts = [
            objects_loss(model, batch, precision)
            for batch in _windows(patch, item, side, model.is_position_dependent, cut, device)
        ]
        found = predict_objects(model, patch, side, overlap, precision)
        truth = true_objects(patch, data, item)
        kept, hit, iou = matched(truth, found.numbers(), found.classes, patch.label != IGNORE)
        predicted = np.stack([found.scores.astype(np.float64), hit, iou], axis=1)[kept]
        rows.append((index, parts, int(truth.required.sum()), predicted))
    rows = sorted(processes.gathered(rows), key=lambda row: row[0])
    predictions = np.concatenate([np.zeros((0, 3)), *(row[3] for row in rows)])
    loss = _pooled(model, [part for row in rows for part in row[1]])
    return loss, best_quality(predictions, sum(row[2] for row in rows))


def best_quality(predictions: np.ndarray, true: int) -> float:
    """Panoptic quality at the best score of the grid, in [0, 1]; 1 if there is neither truth nor prediction.

    Args:
        predictions: (N, 3) score, whether it matches, and IoU with the true object that it matches.
        true: number of true objects.
    """
    best = 0.0
    for score in SCORES:
        kept = predictions[predictions[:, 0].astype(np.float32) >= np.float32(score)]
        parts = (len(kept) + true) / 2
        best = max(best, float(kept[:, 2] @ kept[:, 1]) / parts if parts else 1.0)
    return best


def _pooled(model: InstanceModel, parts: list[dict[str, tuple[float, float]]]) -> float:
    """The loss of the sums and weights of all windows."""
    names = parts[0] if parts else {}
    pooled = {name: torch.tensor([p[name] for p in parts], dtype=torch.float64).sum(0) for name in names}
    sums, weights = ({name: of_term[place] for name, of_term in pooled.items()} for place in (0, 1))
    return float(model.combined(sums, weights)["loss"]) if pooled else 0.0


def _windows(
    patch: LabelledImage, item: str, side: int, whole: bool, cut: CutObjects, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """Batches of one window each that cover a region, with cut objects as in training.

    Args:
        patch: the region, with object numbers.
        item: that has the region.
        side: of the windows in pixels.
        whole: whether windows of a smaller region are padded to `side`, by pixels without data.
        cut: the rules.
        device: of the batches.
    """
    assert patch.instances is not None
    height, width = patch.label.shape
    for row in tile_starts(height, side, 0):
        for col in tile_starts(width, side, 0):
            part = (slice(row, row + side), slice(col, col + side))
            window = LabelledImage(patch.image[part], patch.label[part], patch.valid[part])
            image, valid = to_batch(window, device)
            label = torch.from_numpy(window.label).long()[None].to(device)
            numbers = torch.from_numpy(patch.instances[part].astype(np.int64))[None].to(device)
            label, numbers = cut.ignored([item], label, numbers, [numbers])
            batch = {"image": image, "valid": valid, "label": label, "instance": numbers}
            yield _padded(batch, side) if whole else batch


def _padded(batch: dict[str, Tensor], side: int) -> dict[str, Tensor]:
    height, width = batch["label"].shape[-2:]
    pad = (0, max(side - width, 0), 0, max(side - height, 0))
    fill = {"label": IGNORE}
    return {name: functional.pad(x, pad, value=fill.get(name, 0)) for name, x in batch.items()}
