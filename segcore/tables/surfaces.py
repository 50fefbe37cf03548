"""The surface table: distances in mm between true and predicted surfaces, one row per volume and foreground class.

The surface of a class is its voxels with a face neighbour outside it; those at the edge of the volume are part of it.
So do MONAI, and Metrics Reloaded (Maier-Hein et al. 2024, Nature Methods 21:195). Distances are Euclidean between
centres of voxels, also where axes are not at right angles, as of CT with a tilted gantry. Voxels that are not scored
(IGNORE) belong to no surface, nor does a voxel that has no other neighbour outside its class.

A class that is in only one of truth and prediction has at each voxel of its surface the largest possible distance, the
diagonal of the volume, and no voxel within the tolerance.
"""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial import KDTree

from segcore.constants import IGNORE
from segcore.errors import DataError

# sums of a class in a volume; mm where they are distances
SUMS = (
    "true",  # voxels of the true surface
    "predicted",  # voxels of the predicted surface
    "true_distance",  # sum of distances of the true surface from the predicted one
    "predicted_distance",  # the reverse
    "true_p95",  # 95th percentile of distances of the true surface from the predicted one; 0 without voxels
    "predicted_p95",  # the reverse
    "true_within",  # voxels of the true surface at most the tolerance from the predicted one
    "predicted_within",  # the reverse
)
COLUMNS = ("volume", "item", "cluster", "class_index", "class_name", *SUMS)

# Spacings come from affines in float32, so that a distance of exactly the tolerance may be computed as more.
_ROUNDING = 1e-4


def surface_sums(
    prediction: np.ndarray,
    label: np.ndarray,
    foreground: Sequence[int],
    steps: np.ndarray,
    tolerance: float,
) -> np.ndarray:
    """Sums of one volume.

    Args:
        prediction: (D, H, W) uint8 class indices; any value where the label is IGNORE.
        label: (D, H, W) uint8 class indices with IGNORE.
        foreground: class indices.
        steps: (3, 3) in mm: from a plane to the next, from a row to the next, and from a column to the next.
        tolerance: distance in mm up to which a voxel is within the tolerance.

    Returns:
        One row per class of `foreground`, columns SUMS, float64.
    """
    # along an axis of one voxel every voxel would be at the edge
    axes = [axis for axis, size in enumerate(label.shape) if size > 1] or [0]
    shape, steps = [label.shape[axis] for axis in axes], steps[axes]
    valid = (label != IGNORE).reshape(shape)
    true = label.reshape(shape)
    predicted = np.where(valid, prediction.reshape(shape), np.uint8(IGNORE))
    boxes = [_boxes(classes, max(foreground) + 1) for classes in (true, predicted)]
    # the longest of all
    corners = np.array(list(product((-1, 1), repeat=len(axes)))) * shape
    diagonal = float(np.linalg.norm(corners @ steps, axis=1).max())
    table = np.zeros((len(foreground), len(SUMS)))
    for row, index in zip(table, foreground, strict=True):
        box = _enclosing([one for each in boxes if (one := each[index]) is not None], shape)
        if box is None:
            continue
        of_truth, of_prediction = _distances(
            _surface(true[box] == index, valid[box]),
            _surface(predicted[box] == index, valid[box]),
            steps,
            diagonal,
        )
        # a class that is in only one of them matches nowhere, also in a volume smaller than the tolerance
        limit = -1.0 if min(len(of_truth), len(of_prediction)) == 0 else tolerance + _ROUNDING
        for start, distances in enumerate((of_truth, of_prediction)):
            if len(distances):
                row[start::2] = (
                    len(distances), distances.sum(), np.percentile(distances, 95), (distances <= limit).sum()
                )  # fmt: skip
    return table


def _boxes(classes: np.ndarray, number: int) -> list[tuple[slice, ...] | None]:
    """Bounding box of each class below `number`; None for absent ones."""
    # class 0 would be no object, and IGNORE is above all classes
    return list(ndimage.find_objects(classes.astype(np.int16) + 1, max_label=number))


def _enclosing(boxes: Sequence[tuple[slice, ...]], shape: Sequence[int]) -> tuple[slice, ...] | None:
    """Box around boxes with one voxel more at each side, where neighbours may not be scored; None without any."""
    if not boxes:
        return None
    return tuple(
        slice(max(min(s.start for s in along) - 1, 0), min(max(s.stop for s in along) + 1, size))
        for along, size in zip(zip(*boxes, strict=True), shape, strict=True)
    )


def _surface(mask: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Voxels (N, axes) of the mask with a face neighbour outside it that is scored or beyond the volume."""
    return np.argwhere(mask & ~ndimage.binary_erosion(mask | ~valid))


def _distances(
    true: np.ndarray, predicted: np.ndarray, steps: np.ndarray, diagonal: float
) -> tuple[np.ndarray, np.ndarray]:
    """Distance in mm of each voxel of a surface from the other one; the diagonal if that has no voxel."""
    if not (len(true) and len(predicted)):
        return np.full(len(true), diagonal), np.full(len(predicted), diagonal)
    return _nearest(true, predicted, steps), _nearest(predicted, true, steps)


def _nearest(voxels: np.ndarray, others: np.ndarray, steps: np.ndarray) -> np.ndarray:
    # Distances are computed again from differences of indices, so that they do not depend on the place in the volume.
    nearest = KDTree(others @ steps, leafsize=32).query(voxels @ steps)[1]
    return np.asarray(np.linalg.norm((voxels - others[nearest]) @ steps, axis=1))


class Surfaces:
    """Collects the planes of each volume, and compares its surfaces once it is complete.

    Pictures, volumes without a spacing in mm, and those that are divided into blocks have no surfaces.

    Args:
        data: prepared data (segcore.data.prepared.PreparedData).
        tolerance: distance in mm up to which a voxel is within the tolerance.
    """

    def __init__(self, data: Any, tolerance: float) -> None:
        self._data, self._tolerance = data, tolerance
        self._planes: dict[str, dict[int, tuple[str, np.ndarray, np.ndarray]]] = {}
        self._rows: list[pd.DataFrame] = []

    def add(self, region: str, prediction: np.ndarray, label: np.ndarray) -> None:
        """Add a region: (H, W) uint8 class indices, with IGNORE in the label; others than planes are left out."""
        place = self._data.volume_of(region)
        if place is None or label.shape != (place[2].height, place[2].width):
            return
        volume, plane, info = place
        planes = self._planes.setdefault(volume, {})
        planes[plane] = (region, prediction, label)
        if len(planes) == info.depth:
            self._rows.append(self._compared(volume, planes, info))
            self._planes[volume] = {}

    def table(self) -> pd.DataFrame | None:
        """The surface table; None where no region is a plane of a volume with a spacing.

        Raises:
            DataError: a volume lacks planes.
        """
        incomplete = sorted(volume for volume, planes in self._planes.items() if planes)
        if incomplete:
            raise DataError(
                f"{len(incomplete)} volumes lack planes, so that their surfaces cannot be compared: "
                f"{', '.join(incomplete[:5])}",
                "run the step prepare again",
            )
        return pd.concat(self._rows, ignore_index=True) if self._rows else None

    def _compared(
        self, volume: str, planes: dict[int, tuple[str, np.ndarray, np.ndarray]], info: Any
    ) -> pd.DataFrame:
        data, foreground = self._data, list(self._data.foreground)
        regions, predictions, labels = zip(*(planes[number] for number in range(info.depth)), strict=True)
        # the plane by which a set of images contains this volume, or not
        scored = [region for region, label in zip(regions, labels, strict=True) if (label != IGNORE).any()]
        item = str(next(iter(scored), regions[0]))
        steps = np.reshape(info.canonical, (4, 4))[:3, :3].T
        sums = surface_sums(np.stack(predictions), np.stack(labels), foreground, steps, self._tolerance)
        names = {
            "volume": volume,
            "item": item,
            "cluster": str(data.region(item)["cluster"]),
            "class_index": foreground,
            "class_name": [data.classes[index] for index in foreground],
        }
        return pd.DataFrame(names).join(pd.DataFrame(sums, columns=list(SUMS)))


def of_images(table: pd.DataFrame, items: Iterable[str]) -> pd.DataFrame:
    """Rows of the volumes of these images."""
    return table[table["item"].isin(set(items))]


def true_classes(table: pd.DataFrame, items: Iterable[str]) -> set[int]:
    """Classes with a true surface in the volumes of these images."""
    rows = of_images(table, items)
    return set(rows.loc[rows["true"] > 0, "class_index"])
