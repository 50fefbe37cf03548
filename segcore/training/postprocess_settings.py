"""Post-processing of a semantic network's class maps, chosen on the validation split at the end of a training.

As in nnU-Net (Isensee et al. 2021, Nature Methods 18), a step is kept only if it makes no class worse and the mean of
the foreground better.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from segcore.constants import IGNORE
from segcore.data.prepared import PreparedData
from segcore.inference.device import Precision
from segcore.inference.postprocess import Postprocess, Step
from segcore.inference.tiling import predict_patch
from segcore.models.base.model import SegmentationModel
from segcore.models.base.semantic import SemanticModel
from segcore.objects.components import components
from segcore.training.validate import confusion, iou

# quantiles of the areas of true components, which are tried as smallest areas
_QUANTILES = (0.0, 0.05, 0.25, 0.5)
_DIGITS = 6


@dataclass
class _Region:
    """A validation region: labels, and predicted classes after the steps chosen so far, (H, W) uint8 each.

    Both are IGNORE where there are no data.
    """

    label: np.ndarray
    classes: np.ndarray


def choose_postprocess(
    model: SegmentationModel, data: PreparedData, tile: int, precision: Precision
) -> dict[str, Any] | None:
    """The entry `postprocess` of model.json: the steps that improve the validation split.

    For each foreground class in turn, components are removed in the way that raises the mean foreground IoU most, and
    then holes are filled, each only if no IoU of a class gets worse, that of the background included. The smallest area
    is one of a few quantiles of true components; the largest component alone is tried where every region is a whole
    picture or plane. IoU is of the pooled pixels, as in validation; predictions are those of the validation.

    Args:
        model: trained, on its device.
        data: prepared data.
        tile: side of the windows in pixels.
        precision: of the predictions.

    Returns:
        background (index of that class), steps, and iou_before and iou_after of each class. None: an instance network,
        data without background class, or no validation pixel has a label.
    """
    others = sorted(set(range(len(data.classes))) - set(data.foreground))
    if not isinstance(model, SemanticModel) or not others:
        return None
    regions, areas, whole = _predicted(model, data, tile, precision)
    matrices = np.stack(
        [confusion(r.label, r.classes, len(data.classes)) for r in regions] or [np.zeros((1, 1))]
    )
    if not matrices.any():
        return None
    found = _Search(data.foreground, regions, matrices, Postprocess(others[0]))
    before = iou(matrices.sum(0))
    for index in data.foreground:
        sizes = np.quantile(areas[index] or [0], _QUANTILES, method="lower")
        removals = [Step("min_area", index, int(size)) for size in np.unique(sizes) if size > 1]
        found.take_best([*removals, *([Step("largest", index)] if whole else [])])
        found.take_best([Step("holes", index)])
    after = iou(found.matrices.sum(0))

    return {
        "background": others[0],
        "steps": [asdict(step) for step in found.chosen.steps],
        "iou_before": by_class(data.classes, before),
        "iou_after": by_class(data.classes, after),
    }


def by_class(classes: list[str], values: np.ndarray) -> dict[str, float]:
    """Values (K,) by the names of their classes, rounded for JSON."""
    return {name: round(float(value), _DIGITS) for name, value in zip(classes, values, strict=True)}


def text(entry: dict[str, Any], foreground: list[int]) -> str:
    """What was chosen, with the IoU of each class on the validation split before and after, as one line."""
    names = list(entry["iou_before"])

    def mean(values: dict[str, float]) -> float:
        return float(np.mean([values[names[index]] for index in foreground]))

    before, after = entry["iou_before"], entry["iou_after"]
    steps = Postprocess.of({"postprocess": entry}).text(names)
    if not steps:
        return f"post-processing: none improves the validation split, mean foreground IoU {mean(before):.4f}"
    per_class = ", ".join(f"{name} {before[name]:.4f} -> {after[name]:.4f}" for name in names)
    return (
        f"post-processing: {steps}; IoU on the validation split, mean of the foreground "
        f"{mean(before):.4f} -> {mean(after):.4f}, {per_class}"
    )


class _Search:
    """The steps that were chosen, and regions and their confusion matrices (R, K, K) after these."""

    def __init__(
        self, foreground: list[int], regions: list[_Region], matrices: np.ndarray, start: Postprocess
    ) -> None:
        self.foreground, self.regions, self.matrices, self.chosen = foreground, regions, matrices, start

    def take_best(self, candidates: list[Step]) -> None:
        """Add the step of the highest mean foreground IoU, of equal ones the first, if it may be kept."""
        now = iou(self.matrices.sum(0))
        best, highest = None, now[self.foreground].mean()
        for step in candidates:
            matrices = np.stack([matrix for _, matrix in self._after(step)])
            then = iou(matrices.sum(0))
            mean = then[self.foreground].mean()
            if mean > highest and (then >= now).all():
                best, highest = step, mean
        if best is None:
            return
        made = list(self._after(best))
        for region, (classes, _) in zip(self.regions, made, strict=True):
            region.classes = classes
        self.matrices = np.stack([matrix for _, matrix in made])
        self.chosen = Postprocess(self.chosen.background, (*self.chosen.steps, best))

    def _after(self, step: Step) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Class map and confusion matrix of each region after one more step."""
        alone = Postprocess(self.chosen.background, (step,))
        for region, matrix in zip(self.regions, self.matrices, strict=True):
            if not (region.classes == step.class_index).any():
                yield region.classes, matrix
                continue
            classes = region.classes.copy()
            alone.apply(classes)
            yield classes, confusion(region.label, classes, len(matrix))


def _predicted(
    model: SemanticModel, data: PreparedData, tile: int, precision: Precision
) -> tuple[list[_Region], dict[int, list[int]], bool]:
    """Validation regions, areas of the true components of each class, and whether all regions are whole pictures."""
    sizes = {row.item: (row.height, row.width) for row in data.items.itertuples()}
    regions, whole = list[_Region](), True
    areas: dict[int, list[int]] = {index: [] for index in data.foreground}
    for region in data.regions[data.regions["split"] == "validation"].sort_values("id").itertuples():
        patch = data.read_input(region.id)
        classes = predict_patch(model, patch, tile, min(64, tile // 4), precision).argmax(0).astype(np.uint8)
        label, classes = (
            np.where(patch.valid, values, np.uint8(IGNORE)) for values in (patch.label, classes)
        )
        regions.append(_Region(label, classes))
        whole &= sizes[region.item] == patch.label.shape
        for index in data.foreground:
            areas[index] += np.bincount(components(label, [index]).ravel())[1:].tolist()
    return regions, areas, whole
