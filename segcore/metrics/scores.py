"""Scores of evaluation tables, by score key.

Score keys: "<metric>/<aggregate>/<class name | foreground_mean | all_mean>". The aggregate `dataset` pools
the pixels of all images, and so favours large objects (arXiv 2310.19252); `image` is the mean of images.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from segcore.metrics import EMPTY_RATE, METRICS
from segcore.metrics.pixel import Counts
from segcore.tables.counts import as_arrays


def keyed(
    counts: Counts, aggregate: str, classes: Sequence[str], foreground: Sequence[int]
) -> dict[str, np.ndarray]:
    """Every score of counts `(..., K)`, each `(...)`, by score key.

    Counts summed over images give the `dataset` scores; counts of single images give the values whose means
    are the `image` scores. `foreground` contains the class indices of foreground_mean.
    """
    result = {}
    for name, metric in METRICS.items():
        values = metric.function(counts)
        if not metric.per_class:
            result[f"{name}/{aggregate}"] = values
            continue
        for index, class_name in enumerate(classes):
            result[f"{name}/{aggregate}/{class_name}"] = values[..., index]
        result[f"{name}/{aggregate}/foreground_mean"] = values[..., list(foreground)].mean(-1)
        result[f"{name}/{aggregate}/all_mean"] = values.mean(-1)
    return result


def empty_images(counts: Counts, foreground: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Masks `(I,)` bool of the images without true foreground, and of those among them with predicted foreground."""
    true, predicted = counts["tp"] + counts["fn"], counts["tp"] + counts["fp"]
    empty = true[..., list(foreground)].sum(-1) == 0
    return empty, empty & (predicted[..., list(foreground)].sum(-1) > 0)


def scores(table: pd.DataFrame, foreground: Sequence[int]) -> dict[str, float]:
    """Every score of an evaluation table by its score key, each in [0, 1].

    "empty_image_false_positive_rate", the fraction of images without foreground for which some is predicted, is
    included only if there are such images.

    Raises:
        DataError: the table is incomplete, see `as_arrays`.
    """
    evaluation = as_arrays(table)
    counts, classes = evaluation.counts, evaluation.classes
    pooled = {name: values.sum(0) for name, values in counts.items()}
    result = keyed(pooled, "dataset", classes, foreground)
    result |= {key: values.mean() for key, values in keyed(counts, "image", classes, foreground).items()}
    empty, hallucinated = empty_images(counts, foreground)
    if empty.any():
        result[EMPTY_RATE] = hallucinated.sum() / empty.sum()
    return {key: float(value) for key, value in result.items()}
