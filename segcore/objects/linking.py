"""Objects of the planes of a volume become objects of the volume."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segcore.objects.canvas import SceneObjects, bands
from segcore.objects.groups import groups_of

# IoU above which objects of neighbouring planes are one
_LEAST_IOU = 0.25


@dataclass(frozen=True)
class VolumeObjects:
    """Objects of a volume, numbered from 1 in the order of their first voxels.

    Attributes:
        numbers: (D, H, W) uint32: number of each voxel's object, 0 where there is none.
        classes: (N,) uint8 class index of each object.
        scores: (N,) float32, mean over its voxels.
        areas: (N,) int64 voxels.
    """

    numbers: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    areas: np.ndarray

    def __len__(self) -> int:
        return len(self.classes)


def linked(
    planes: Sequence[SceneObjects], numbers: np.ndarray, min_area: int = 0, score: float = 0.0
) -> VolumeObjects:
    """Link objects of one class of neighbouring planes whose IoU is above 1/4 and the highest for both of them.

    Args:
        planes: objects of each plane.
        numbers: (D, H, W) uint32, their maps of numbers, which become those of the volume.
        min_area: least number of voxels.
        score: least score.
    """
    starts = np.cumsum([0, *(len(plane) for plane in planes)])
    count = int(starts[-1])
    pairs = [_pairs(planes[z], planes[z + 1]) + starts[z : z + 2] for z in range(len(planes) - 1)]
    ends = np.concatenate([*pairs, np.zeros((0, 2), np.int64)]).T
    groups = groups_of(ends[0], ends[1], count)
    areas, classes, scores = (
        np.concatenate([getattr(plane, name) for plane in planes]) for name in ("areas", "classes", "scores")
    )
    voxels = np.bincount(groups, areas).astype(np.int64)
    means = np.bincount(groups, areas * scores.astype(np.float64)) / np.maximum(voxels, 1)
    means = means.astype(np.float32)
    # objects of planes are in the order of first voxels
    first = np.unique(groups, return_index=True)[1]
    kept = np.flatnonzero((voxels >= max(min_area, 1)) & (means >= np.float32(score)))
    kept = kept[np.argsort(first[kept])]
    new = np.zeros(len(first) + 1, np.uint32)
    new[kept + 1] = np.arange(1, len(kept) + 1)
    for z in range(len(planes)):
        names = np.concatenate([[0], new[groups[starts[z] : starts[z + 1]] + 1]]).astype(np.uint32)
        for rows in bands(numbers[z].shape):
            numbers[z][rows] = names[numbers[z][rows]]
    return VolumeObjects(numbers, classes[first[kept]], means[kept], voxels[kept])


def _pairs(above: SceneObjects, below: SceneObjects) -> np.ndarray:
    """(n, 2) indices of the objects of two planes that belong together."""
    both = (above.numbers > 0) & (below.numbers > 0)
    a, b = above.numbers[both].astype(np.int64) - 1, below.numbers[both].astype(np.int64) - 1
    keys, shared = np.unique(a * len(below) + b, return_counts=True)
    a, b = keys // max(len(below), 1), keys % max(len(below), 1)
    iou = shared / (above.areas[a] + below.areas[b] - shared)
    is_one = (above.classes[a] == below.classes[b]) & (iou > _LEAST_IOU)
    a, b, iou = a[is_one], b[is_one], iou[is_one]
    best_of_a, best_of_b = _best(a, iou, len(above)), _best(b, iou, len(below))
    index = np.arange(len(a))
    mutual = (best_of_a[a] == index) & (best_of_b[b] == index)
    return np.stack([a[mutual], b[mutual]], axis=1)


def _best(of: np.ndarray, iou: np.ndarray, count: int) -> np.ndarray:
    """(count,) index of the pair of highest IoU of each object, of equal ones the first; -1: none."""
    best = np.full(count, -1)
    # later assignments win
    order = np.lexsort((-np.arange(len(of)), iou))
    best[of[order]] = order
    return best
