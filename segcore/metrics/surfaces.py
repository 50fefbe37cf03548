"""Metrics of surfaces of volumes as functions of sums per class, in mm or as a share of surface voxels.

The sums are those of `segcore.tables.surfaces`, each of any shape. A class without a surface in truth and prediction
has a distance of 0 and a share of 1.
"""

from collections.abc import Mapping

import numpy as np

# sums by name, each (..., K)
Sums = Mapping[str, np.ndarray]


def voxels(sums: Sums) -> np.ndarray:
    """Number of voxels of both surfaces."""
    return np.asarray(sums["true"] + sums["predicted"])


def hd95(sums: Sums) -> np.ndarray:
    """95th percentile of distances between the surfaces in mm, the larger of both directions (Hausdorff distance)."""
    return np.asarray(np.maximum(sums["true_p95"], sums["predicted_p95"]))


def nsd(sums: Sums) -> np.ndarray:
    """Share of both surfaces within `evaluate.surface_tolerance` of the other one (Nikolov et al. 2021)."""
    within, both = sums["true_within"] + sums["predicted_within"], voxels(sums)
    return np.asarray(np.where(both > 0, within / np.maximum(both, 1), 1.0))


def assd(sums: Sums) -> np.ndarray:
    """Average symmetric surface distance in mm: mean distance of all voxels of both surfaces from the other one."""
    distance = sums["true_distance"] + sums["predicted_distance"]
    return np.asarray(distance / np.maximum(voxels(sums), 1))
