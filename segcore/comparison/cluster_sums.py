"""Scores of one or several runs as functions of weights of clusters of images.

Pixel scores, and scores of counted objects, are computed from sums over clusters: a product of weights and sums.
Average precision is computed from weighted predictions, scores of surfaces from sums over clusters too. All are exact.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from segcore.errors import DataError
from segcore.metrics import EMPTY_RATE, is_of_surfaces
from segcore.metrics.matching import LeastScore
from segcore.metrics.object_sums import ObjectRun
from segcore.metrics.pooled import Pooled
from segcore.metrics.scores import empty_images, keyed, object_image_means
from segcore.metrics.volumes import VolumeRun, surface_scores, volume_run
from segcore.tables.counts import COUNTS, as_arrays
from segcore.tables.surfaces import of_images


@dataclass(frozen=True)
class ClusterSums:
    """One run (an architecture and a seed) as sums over each cluster's images.

    Attributes:
        clusters: C names, sorted.
        items: names of all images.
        classes: K names.
        foreground: indices of the foreground classes.
        sums: counts `(C, K)` by COUNTS; image scores `(C,)` by score key; numbers of images `(C,)`: "images", "empty"
            (without true foreground) and "hallucinated" (empty, with predicted foreground).
        cluster_of: (I,) index of each image's cluster, in the order of `items`.
        objects: true and predicted objects; None where the data have none.
        surfaces: surfaces of volumes; None where no image is of a volume with a spacing.
    """

    clusters: tuple[str, ...]
    items: tuple[str, ...]
    classes: tuple[str, ...]
    foreground: tuple[int, ...]
    sums: dict[str, np.ndarray]
    cluster_of: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    objects: ObjectRun | None = None
    surfaces: VolumeRun | None = None


def cluster_sums(
    table: pd.DataFrame,
    foreground: Sequence[int],
    object_table: pd.DataFrame | None = None,
    score: LeastScore = 0.0,
    limits: tuple[float, float] | None = None,
    surface_table: pd.DataFrame | None = None,
) -> ClusterSums:
    """Sum an evaluation table over clusters; `foreground` contains class indices.

    Args:
        table: evaluation table (segcore.tables.counts).
        foreground: class indices.
        object_table: object table (segcore.tables.objects) of the same images; None or empty: no scores of objects.
        score: least score of a predicted object, or one per image.
        limits: areas that divide small, medium and large objects; by default of thirds of the true ones in the table.
        surface_table: surface table (segcore.tables.surfaces); volumes of other images are left out. None or none of
            these images: no scores of surfaces.

    Raises:
        DataError: a table is incomplete.
    """
    evaluation = as_arrays(table)
    empty, hallucinated = empty_images(evaluation.counts, foreground)
    values = {name: evaluation.counts[name] for name in COUNTS}
    values |= keyed(evaluation.counts, "image", evaluation.classes, foreground)
    values |= {"images": np.ones(len(empty)), "empty": empty, "hallucinated": hallucinated}
    names, index = np.unique(evaluation.clusters.astype(str), return_inverse=True)
    # (C, I): which images belong to a cluster
    member = (np.arange(len(names))[:, None] == index).astype(np.float64)
    items = evaluation.items.tolist()
    run = None
    if object_table is not None and len(object_table):
        run = ObjectRun(object_table, items, len(evaluation.classes), score, limits)
    volumes = None if surface_table is None else of_images(surface_table, items)
    surfaces = None
    if volumes is not None and len(volumes):
        surfaces = volume_run(volumes, names.tolist(), len(evaluation.classes))
    return ClusterSums(
        tuple(names.tolist()),
        tuple(items),
        tuple(evaluation.classes),
        tuple(foreground),
        {name: member @ value for name, value in values.items()},
        index,
        run,
        surfaces,
    )


def _metrics_of(keys: Collection[str] | None, aggregate: str) -> set[str] | None:
    """Names of the metrics of score keys of one aggregate; None: all."""
    if keys is None:
        return None
    return {key.partition("/")[0] for key in keys if key.split("/")[1:2] == [aggregate]}


def _pixel_scores(
    sums: Mapping[str, np.ndarray], like: ClusterSums, keys: Collection[str] | None
) -> dict[str, np.ndarray]:
    """Every score of sums `(...)` or `(..., K)`, by score key; the empty-image rate is NaN without an empty image."""
    counts = {name: sums[name] for name in COUNTS}
    only = _metrics_of(keys, "dataset")
    result = keyed(counts, "dataset", like.classes, like.foreground, only=only)
    images = np.maximum(sums["images"], 1)
    result |= {key: values / images for key, values in sums.items() if "/image" in key}
    if like.sums["empty"].any():
        rate = sums["hallucinated"] / np.maximum(sums["empty"], 1)
        result[EMPTY_RATE] = np.where(sums["empty"] > 0, rate, np.nan)
    return result


def _object_scores(
    runs: Sequence[ClusterSums], weights: Sequence[np.ndarray], keys: Collection[str] | None
) -> dict[str, np.ndarray]:
    """Every score of objects of the weighted clusters of all runs, by score key; empty if a run has no objects."""
    like, all_objects = runs[0], [run.objects for run in runs if run.objects is not None]
    if len(all_objects) < len(runs):
        return {}
    pooled = Pooled(all_objects, like.cluster_of, len(like.clusters), weights)
    only = _metrics_of(keys, "dataset")
    result = keyed(pooled, "dataset", like.classes, like.foreground, "objects", only)
    only = _metrics_of(keys, "image")
    return result | object_image_means(pooled, like.classes, like.foreground, only)


def _surface_scores(
    runs: Sequence[ClusterSums], weights: Sequence[np.ndarray], keys: Collection[str] | None
) -> dict[str, np.ndarray]:
    """Every score of surfaces of the weighted clusters of all runs, by score key; empty if a run has no surfaces."""
    like, all_sums = runs[0], [run.surfaces.sums for run in runs if run.surfaces is not None]
    if len(all_sums) < len(runs):
        return {}
    total = {
        name: np.sum([each @ sums[name] for sums, each in zip(all_sums, weights, strict=True)], axis=0)
        for name in all_sums[0]
    }
    whole = {name: np.sum([sums[name].sum(0) for sums in all_sums], axis=0) for name in total}
    only = None if keys is None else {key.partition("/")[0] for key in keys}
    return surface_scores(total, like.classes, like.foreground, only, whole)


def informative(run: ClusterSums, key: str) -> int:
    """Number of clusters that an interval of a score is of: all, or for a metric of surfaces those with its class.

    For the mean of several classes, the number of the class that most clusters have.

    Args:
        run: sums over clusters.
        key: a score key.
    """
    if run.surfaces is None or not is_of_surfaces(key):
        return len(run.clusters)
    _, aggregate, target = key.split("/", 2)
    indices = list(run.foreground) if target == "foreground_mean" else [run.classes.index(target)]
    sums = run.surfaces.sums
    has_truth = sums["true"][:, indices].any(0)
    counted = (sums[f"counted/{aggregate}"][:, indices] > 0).sum(0)
    if not has_truth.any():
        return len(run.clusters)
    # clusters that do not have a class without truth show that it is rarely predicted
    return int(np.where(has_truth | (counted == 0), counted, len(run.clusters)).max())


def weighted_scores(
    runs: Sequence[ClusterSums], weights: Sequence[np.ndarray], keys: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """Scores of test sets that are made of weighted clusters of one or several runs.

    Args:
        runs: on the same images.
        weights: of each run's clusters, (B, C), not negative.
        keys: score keys; None: all. Other metrics are not computed.

    Returns:
        score key -> `(B,)`; the empty-image rate is NaN without an empty image.
    """
    total: dict[str, np.ndarray] = {}
    for run, each in zip(runs, weights, strict=True):
        for name, values in run.sums.items():
            total[name] = total[name] + each @ values if name in total else each @ values
    return _scores(total, runs, weights, keys)


def _scores(
    total: Mapping[str, np.ndarray],
    runs: Sequence[ClusterSums],
    weights: Sequence[np.ndarray],
    keys: Collection[str] | None,
) -> dict[str, np.ndarray]:
    """Scores of weighted clusters, whose pixel counts sum to `total`."""
    result = _pixel_scores(total, runs[0], keys) | _object_scores(runs, weights, keys)
    result |= _surface_scores(runs, weights, keys)
    return result if keys is None else {key: result[key] for key in keys}


def run_scores(run: ClusterSums, keys: Collection[str] | None = None) -> dict[str, float]:
    """Scores of one run on the whole test set, equal to those of `segcore.metrics.scores.scores`.

    Args:
        run: sums over clusters.
        keys: score keys; None: all.
    """
    total = {name: values.sum(0)[None] for name, values in run.sums.items()}
    scores = _scores(total, [run], [np.ones((1, len(run.clusters)))], keys)
    return {key: float(values[0]) for key, values in scores.items()}


def seed_scores(runs: Sequence[ClusterSums], keys: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Scores of each seed's run, `(S,)`, by score key; `keys` as in `weighted_scores`."""
    each = [run_scores(run, keys) for run in runs]
    return {key: np.array([scores[key] for scores in each]) for key in each[0]}


def require_same(runs: Sequence[ClusterSums]) -> None:
    """Check that all runs were scored on the same images.

    Raises:
        DataError: images, clusters or classes differ.
    """
    first = runs[0]
    if len({run.surfaces.volumes for run in runs if run.surfaces is not None}) > 1:
        raise DataError(
            "evaluations differ in the volumes whose surfaces they compare",
            "evaluate all architectures and seeds on the same prepared data",
        )
    for run in runs[1:]:
        if (run.items, run.clusters, run.classes) != (first.items, first.clusters, first.classes):
            raise DataError(
                f"evaluations differ in their test images: {len(first.items)} in {len(first.clusters)} "
                f"clusters against {len(run.items)} in {len(run.clusters)}",
                "evaluate all architectures and seeds on the same prepared data",
            )
