"""Scores of evaluation tables, by score key.

Score keys: "<metric>/<aggregate>/<class name | foreground_mean | all_mean>". The aggregate `dataset` pools
the pixels or objects of all images, and so favours large objects (arXiv 2310.19252); `image` is the mean of images,
for some metrics of objects only of images with such objects (`Metric.images`). Metrics of objects and surfaces are of
the foreground classes only; those of surfaces are means of groups (`dataset`) or of volumes (`image`).
"""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from segcore.metrics import EMPTY_RATE, METRICS
from segcore.metrics.object_sums import ObjectRun
from segcore.metrics.pixel import Counts
from segcore.metrics.pooled import Pooled
from segcore.metrics.volumes import surface_scores, volume_run
from segcore.tables.counts import as_arrays


def keyed(
    counts: Counts,
    aggregate: str,
    classes: Sequence[str],
    foreground: Sequence[int],
    table: str = "counts",
    only: Collection[str] | None = None,
) -> dict[str, np.ndarray]:
    """Every score of counts `(..., K)`, each `(...)`, by score key.

    Counts summed over images give the `dataset` scores; counts of pixels of single images give the values whose means
    are the `image` scores. `foreground` contains the class indices of foreground_mean.

    Args:
        counts: pixel counts, or sums of objects.
        aggregate: "dataset" or "image".
        classes: K names.
        foreground: class indices.
        table: "counts" or "objects".
        only: names of metrics; None: all of the table.
    """
    result = {}
    for name, metric in METRICS.items():
        if table not in metric.tables or (only is not None and name not in only):
            continue
        values = metric.function(counts)
        if not metric.per_class:
            result[f"{name}/{aggregate}"] = values
            continue
        for index in foreground if metric.of_objects else range(len(classes)):
            result[f"{name}/{aggregate}/{classes[index]}"] = values[..., index]
        result[f"{name}/{aggregate}/foreground_mean"] = metric.mean(values[..., list(foreground)])
        if not metric.of_objects:
            result[f"{name}/{aggregate}/all_mean"] = values.mean(-1)
    return result


def object_image_means(
    pooled: Pooled, classes: Sequence[str], foreground: Sequence[int], only: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """Every `image` score of objects of the weighted images, `(B,)` each, by score key.

    Args:
        pooled: runs with weights of their clusters.
        classes: K names.
        foreground: class indices.
        only: names of metrics; None: all of objects.
    """
    result = {}
    for name, metric in METRICS.items():
        if not metric.of_objects or (only is not None and name not in only):
            continue
        means = pooled.image_mean(metric.function, metric.images)
        for index in foreground:
            result[f"{name}/image/{classes[index]}"] = means[:, index]
        result[f"{name}/image/foreground_mean"] = metric.mean(means[:, list(foreground)])
    return result


def empty_images(counts: Counts, foreground: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Masks `(I,)` bool of the images without true foreground, and of those among them with predicted foreground."""
    true, predicted = counts["tp"] + counts["fn"], counts["tp"] + counts["fp"]
    empty = true[..., list(foreground)].sum(-1) == 0
    return empty, empty & (predicted[..., list(foreground)].sum(-1) > 0)


def scores(
    table: pd.DataFrame,
    foreground: Sequence[int],
    objects: pd.DataFrame | None = None,
    score: float = 0.0,
    surfaces: pd.DataFrame | None = None,
) -> dict[str, float]:
    """Every score of an evaluation by its score key; those with the unit "%" are in [0, 1], except errors of counts.

    "empty_image_false_positive_rate", the fraction of images without foreground for which some is predicted, is
    included only if there are such images.

    Args:
        table: evaluation table (segcore.tables.counts).
        foreground: class indices.
        objects: object table (segcore.tables.objects); None or empty: no scores of objects.
        score: least score of a predicted object; average precision counts all.
        surfaces: surface table (segcore.tables.surfaces); None or empty: no scores of surfaces.

    Raises:
        DataError: a table is incomplete, see `as_arrays`.
    """
    evaluation = as_arrays(table)
    counts, classes = evaluation.counts, evaluation.classes
    pooled = {name: values.sum(0) for name, values in counts.items()}
    result = keyed(pooled, "dataset", classes, foreground)
    result |= {key: values.mean() for key, values in keyed(counts, "image", classes, foreground).items()}
    empty, hallucinated = empty_images(counts, foreground)
    if empty.any():
        result[EMPTY_RATE] = hallucinated.sum() / empty.sum()
    if objects is not None and len(objects):
        run = ObjectRun(objects, evaluation.items.tolist(), len(classes), score)
        # all images are one cluster
        all_images = Pooled([run], np.zeros(len(evaluation.items), int), 1, [np.ones((1, 1))])
        result |= {
            key: values[0]
            for key, values in keyed(all_images, "dataset", classes, foreground, "objects").items()
        }
        images = object_image_means(all_images, classes, foreground)
        result |= {key: values[0] for key, values in images.items()}
    if surfaces is not None and len(surfaces):
        clusters = sorted(set(surfaces["cluster"].astype(str)))
        sums = volume_run(surfaces, clusters, len(classes)).sums
        result |= surface_scores({name: each.sum(0) for name, each in sums.items()}, classes, foreground)
    return {key: float(value) for key, value in result.items()}
