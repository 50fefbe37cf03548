"""True and predicted objects of a validation region, matched by the policy of the object table."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from segcore.constants import IGNORE, IGNORED_SHARE, REQUIRED_SHARE
from segcore.data.object_numbers import by_first_pixel
from segcore.data.prepared import LabelledImage, PreparedData
from segcore.inference.objects import overlap_for

# scores that are compared on the validation split
SCORES = [round(0.05 * step, 2) for step in range(1, 20)]
# IoU above which objects match; at most one true and one predicted object of a pair can have it
_MATCH = 0.5
# quantile of the longer sides of training objects
_SIDE = 0.95
# of neighbouring windows in pixels
_OVERLAP = 64


@dataclass(frozen=True)
class TrueObjects:
    """True objects of a region: (H, W) numbers from 1 on scored pixels, and (N,) scored pixels, class, requirement."""

    numbers: np.ndarray
    areas: np.ndarray
    classes: np.ndarray
    required: np.ndarray

    def rows(self) -> pd.DataFrame:
        """A row per object that is required."""
        return pd.DataFrame({"class_index": self.classes[self.required]})


def true_objects(patch: LabelledImage, data: PreparedData, item: str) -> TrueObjects:
    """True objects of a region of an item; required are those with more than half of their area in it.

    Args:
        patch: the region, with object numbers.
        data: prepared data, with the index of objects.
        item: that has the region.
    """
    assert patch.instances is not None
    return _numbered(patch.instances, patch.label != IGNORE, data.objects[data.objects["item"] == item])


def _numbered(instances: np.ndarray, scored: np.ndarray, index: pd.DataFrame) -> TrueObjects:
    numbers, old = by_first_pixel(np.where(scored, instances, 0), index["id"].to_numpy())
    known = index.set_index("id").loc[old]
    areas = np.bincount(numbers[numbers > 0], minlength=len(old) + 1)[1:]
    required = areas > REQUIRED_SHARE * known["area"].to_numpy()
    return TrueObjects(numbers, areas, known["class_index"].to_numpy(np.int64), required)


def matched(
    truth: TrueObjects, numbers: np.ndarray, classes: np.ndarray, scored: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which predicted objects (N,) count, which of them match a true object of their class, and the IoU of those.

    Args:
        truth: true objects.
        numbers: (H, W) predicted objects, from 1 without gaps.
        classes: (N,) of the predicted objects.
        scored: (H, W) bool, pixels that are not ignored.
    """
    inside, count = numbers > 0, len(classes)
    full = np.bincount(numbers[inside], minlength=count + 1)[1:]
    areas = np.bincount(numbers[inside & scored], minlength=count + 1)[1:]
    kept = full - areas <= IGNORED_SHARE * full
    both = inside & (truth.numbers > 0)
    keys, shared = np.unique(
        (truth.numbers[both].astype(np.int64) - 1) * count + numbers[both] - 1, return_counts=True
    )
    true, predicted = np.divmod(keys, max(count, 1))
    iou = shared / (truth.areas[true] + areas[predicted] - shared)
    found = (iou > _MATCH) & (truth.classes[true] == classes[predicted])
    hit, of_hit = np.zeros(count, bool), np.zeros(count)
    of_required = found & truth.required[true]
    hit[predicted[of_required]] = True
    of_hit[predicted[of_required]] = iou[of_required]
    kept[predicted[found & ~truth.required[true]]] = False
    return kept, hit & kept, of_hit


def usual_side(data: PreparedData) -> float:
    """Quantile of the longer box sides of the objects of training regions, in pixels; 0 if there are none."""
    training = data.regions.loc[data.regions["split"] == "train", "id"]
    objects = data.objects[data.objects["region"].isin(training)]
    sides = objects[["height", "width"]].max(axis=1)
    return round(float(sides.quantile(_SIDE)), 6) if len(sides) else 0.0


def window_overlap(data: PreparedData, tile: int) -> int:
    """Overlap in pixels of the windows of an instance network, by the rule of the evaluation.

    Args:
        data: prepared data.
        tile: side of the windows.
    """
    return overlap_for(usual_side(data), _OVERLAP, tile)
