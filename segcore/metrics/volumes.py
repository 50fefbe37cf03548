"""Scores of surfaces as means of groups of volumes, and of volumes.

Volumes of one group (a patient) are averaged first, so that a patient with many volumes counts as much as one with a
single volume. A volume counts for a class that has a surface in truth or prediction.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from segcore.metrics import METRICS
from segcore.metrics.surfaces import voxels
from segcore.tables.surfaces import SUMS

# aggregate of a score key -> whether volumes of one cluster are averaged first
_AGGREGATES = {"dataset": True, "image": False}


@dataclass(frozen=True)
class VolumeRun:
    """One run as sums over the volumes of each cluster.

    Attributes:
        volumes: names, sorted.
        sums: each (C, K): "<metric>/<aggregate>", sums of scores; "counted/<aggregate>", the number of their summands;
            "true", the number of volumes with a true surface; "missed", the number of volumes with a surface in only
            one of truth and prediction.
    """

    volumes: tuple[str, ...]
    sums: dict[str, np.ndarray]


def volume_run(table: pd.DataFrame, clusters: Sequence[str], classes: int) -> VolumeRun:
    """Sum a surface table over clusters.

    Args:
        table: surface table (segcore.tables.surfaces) with at least one row.
        clusters: C names; all of the table are among them.
        classes: K.
    """
    volumes, place = np.unique(table["volume"].astype(str), return_inverse=True)
    cluster_of = np.zeros(len(volumes), int)
    cluster_of[place] = [clusters.index(cluster) for cluster in table["cluster"].astype(str)]
    of_volume = {name: np.zeros((len(volumes), classes)) for name in SUMS}
    for name, values in of_volume.items():
        values[place, table["class_index"]] = table[name]
    # (C, V): which volumes belong to a cluster
    member = (np.arange(len(clusters))[:, None] == cluster_of).astype(np.float64)
    counted = voxels(of_volume) > 0
    number = member @ counted
    sums = {
        "true": member @ (of_volume["true"] > 0),
        "missed": member @ ((of_volume["true"] > 0) != (of_volume["predicted"] > 0)),
    }
    for aggregate, by_cluster in _AGGREGATES.items():
        divisor = np.maximum(number, 1) if by_cluster else 1
        sums[f"counted/{aggregate}"] = (number > 0).astype(np.float64) if by_cluster else number
        for name, metric in METRICS.items():
            if metric.of_surfaces:
                values = np.where(counted, metric.function(of_volume), 0.0)
                sums[f"{name}/{aggregate}"] = (member @ values) / divisor
    return VolumeRun(tuple(volumes.tolist()), sums)


def surface_scores(
    sums: Mapping[str, np.ndarray],
    classes: Sequence[str],
    foreground: Sequence[int],
    only: Collection[str] | None = None,
    whole: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Every score of surfaces, each (...), by score key.

    A class that no volume counts for is absent everywhere: 0 mm and 100 %. Resampled clusters without a class that
    others have say nothing about it: its score is that of all clusters.

    Args:
        sums: of `VolumeRun`, weighted and summed over clusters, each (..., K).
        classes: K names.
        foreground: class indices.
        only: names of metrics; None: all of surfaces.
        whole: the sums over all clusters, each (K,), of which `sums` are resampled; None: `sums` are of all.
    """
    result = {}
    for name, metric in METRICS.items():
        if not metric.of_surfaces or (only is not None and name not in only):
            continue
        for aggregate in _AGGREGATES:
            number = sums[f"counted/{aggregate}"]
            mean = sums[f"{name}/{aggregate}"] / np.where(number > 0, number, 1.0)
            absent = np.asarray(float(metric.higher_is_better))
            if whole is not None:
                of_all = whole[f"{name}/{aggregate}"] / np.maximum(whole[f"counted/{aggregate}"], 1)
                absent = np.where(whole["true"] > 0, of_all, absent)
            values = np.where(number > 0, mean, absent)
            for index in foreground:
                result[f"{name}/{aggregate}/{classes[index]}"] = values[..., index]
            result[f"{name}/{aggregate}/foreground_mean"] = metric.mean(values[..., list(foreground)])
    return result
