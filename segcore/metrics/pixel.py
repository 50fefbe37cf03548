"""Scores of predicted label maps, all derived from counts of one row for each image and class.

A class that is absent from truth and prediction scores 1.0 (agreement on absence), in every metric, pooled
or per image: a perfect prediction scores exactly 1, nothing is NaN, and a hallucination lowers the score.
Any other division by 0 (the precision of a class that is present and never predicted) scores 0.

Score keys: "<metric>/<aggregate>/<class name | foreground_mean | all_mean>". The aggregate `dataset` pools
the pixels of all images, and so favours large objects (arXiv 2310.19252); `image` is the mean of images.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from segcore.tables.counts import Counts, as_arrays

EMPTY_POLICY = (
    "A class absent from truth and prediction scores 1.0 (agreement on absence), pooled and per image."
)
EMPTY_RATE = "empty_image_false_positive_rate"


def _share(part: np.ndarray, whole: np.ndarray, otherwise: np.ndarray | float) -> np.ndarray:
    """`part / whole` of counts in float64, `otherwise` where the whole is 0."""
    whole = np.asarray(whole, dtype=np.float64)
    return np.where(whole > 0, np.asarray(part) / np.maximum(whole, 1), otherwise)


def iou(counts: Counts) -> np.ndarray:
    """Intersection over union (Jaccard) `TP / (TP + FP + FN)`, of counts of any shape, in [0, 1]."""
    return _share(counts["tp"], counts["tp"] + counts["fp"] + counts["fn"], 1.0)


def dice(counts: Counts) -> np.ndarray:
    """Dice (F1) `2TP / (2TP + FP + FN)`, of counts of any shape, in [0, 1]."""
    return _share(2 * counts["tp"], 2 * counts["tp"] + counts["fp"] + counts["fn"], 1.0)


def precision(counts: Counts) -> np.ndarray:
    """`TP / (TP + FP)`, of counts of any shape, in [0, 1]; 0 for a class present but never predicted."""
    return _share(counts["tp"], counts["tp"] + counts["fp"], counts["fn"] == 0)


def recall(counts: Counts) -> np.ndarray:
    """`TP / (TP + FN)`, of counts of any shape, in [0, 1]; 0 for a class that is absent and predicted."""
    return _share(counts["tp"], counts["tp"] + counts["fn"], counts["fp"] == 0)


def boundary_f1(counts: Counts) -> np.ndarray:
    """F1 of boundary pixels found within the tolerance, of counts of any shape, in [0, 1].

    Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC 2013. Where neither
    side has a boundary (a class that covers all or nothing) it is 1 if the areas agree and 0 if not.
    """
    p = _share(counts["boundary_predicted_matched"], counts["boundary_predicted"], 0.0)
    r = _share(counts["boundary_true_matched"], counts["boundary_true"], 0.0)
    f1 = 2 * p * r / np.where(p + r > 0, p + r, 1.0)
    none = (counts["boundary_predicted"] + counts["boundary_true"]) == 0
    return np.where(none, (counts["fp"] + counts["fn"]) == 0, f1)


def pixel_accuracy(counts: Counts) -> np.ndarray:
    """Share of valid pixels whose class is right, of counts `(..., K)`: `(...)`, in [0, 1]."""
    return _share(counts["tp"].sum(-1), counts["pixels"][..., 0], 1.0)


METRICS = {"iou": iou, "dice": dice, "precision": precision, "recall": recall, "boundary_f1": boundary_f1}


def keyed(
    counts: Counts, aggregate: str, classes: Sequence[str], foreground: Sequence[int]
) -> dict[str, np.ndarray]:
    """Every score of counts `(..., K)`, each `(...)`, under its score key.

    Counts summed over images give the `dataset` scores; counts of single images give the values whose mean
    are the `image` scores. `foreground` holds the class indices of foreground_mean.
    """
    result = {}
    for name, metric in METRICS.items():
        values = metric(counts)
        for index, class_name in enumerate(classes):
            result[f"{name}/{aggregate}/{class_name}"] = values[..., index]
        result[f"{name}/{aggregate}/foreground_mean"] = values[..., list(foreground)].mean(-1)
        result[f"{name}/{aggregate}/all_mean"] = values.mean(-1)
    result[f"pixel_accuracy/{aggregate}"] = pixel_accuracy(counts)
    return result


def empty_images(counts: Counts, foreground: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Images `(I,)` bool without true foreground, and those of them on which some is predicted."""
    true, predicted = counts["tp"] + counts["fn"], counts["tp"] + counts["fp"]
    empty = true[..., list(foreground)].sum(-1) == 0
    return empty, empty & (predicted[..., list(foreground)].sum(-1) > 0)


def scores(table: pd.DataFrame, foreground: Sequence[int]) -> dict[str, float]:
    """Every score of an evaluation table by its score key, each in [0, 1].

    "empty_image_false_positive_rate", the share of images without foreground on which any is predicted, is
    there only if such images are.

    Raises:
        DataError: the table is not whole, see `as_arrays`.
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
