"""Metrics of label maps as functions of pixel counts.

A class that is absent from truth and prediction scores 1.0 (agreement on absence), in every metric, pooled
or per image: a perfect prediction scores exactly 1, nothing is NaN, and predicting an absent class lowers the
score. Any other division by 0 (the precision of a class that is present but never predicted) scores 0.
"""

from collections.abc import Mapping

import numpy as np

# columns of segcore.tables.counts, each (..., K)
Counts = Mapping[str, np.ndarray]


def _fraction(part: np.ndarray, whole: np.ndarray, otherwise: np.ndarray | float) -> np.ndarray:
    """`part / whole` of counts in float64, `otherwise` where the whole is 0."""
    whole = np.asarray(whole, dtype=np.float64)
    return np.where(whole > 0, np.asarray(part) / np.maximum(whole, 1), otherwise)


def iou(counts: Counts) -> np.ndarray:
    """Intersection over union (Jaccard) `TP / (TP + FP + FN)`, of counts of any shape, in [0, 1]."""
    return _fraction(counts["tp"], counts["tp"] + counts["fp"] + counts["fn"], 1.0)


def dice(counts: Counts) -> np.ndarray:
    """Dice (F1) `2TP / (2TP + FP + FN)`, of counts of any shape, in [0, 1]."""
    return _fraction(2 * counts["tp"], 2 * counts["tp"] + counts["fp"] + counts["fn"], 1.0)


def precision(counts: Counts) -> np.ndarray:
    """`TP / (TP + FP)`, of counts of any shape, in [0, 1]; 0 for a class present but never predicted."""
    return _fraction(counts["tp"], counts["tp"] + counts["fp"], counts["fn"] == 0)


def recall(counts: Counts) -> np.ndarray:
    """`TP / (TP + FN)`, of counts of any shape, in [0, 1]; 0 for a class absent but predicted."""
    return _fraction(counts["tp"], counts["tp"] + counts["fn"], counts["fp"] == 0)


def boundary_f1(counts: Counts) -> np.ndarray:
    """F1 of boundary pixels matched within the tolerance, of counts of any shape, in [0, 1].

    Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC 2013. Where neither
    truth nor prediction has a boundary (a class that covers all or nothing) it is 1 if the areas agree and 0 if not.
    """
    p = _fraction(counts["boundary_predicted_matched"], counts["boundary_predicted"], 0.0)
    r = _fraction(counts["boundary_true_matched"], counts["boundary_true"], 0.0)
    f1 = 2 * p * r / np.where(p + r > 0, p + r, 1.0)
    none = (counts["boundary_predicted"] + counts["boundary_true"]) == 0
    values: np.ndarray = np.where(none, (counts["fp"] + counts["fn"]) == 0, f1)
    return values


def pixel_accuracy(counts: Counts) -> np.ndarray:
    """Fraction of valid pixels with the right class, of counts `(..., K)`: `(...)`, in [0, 1]."""
    return _fraction(counts["tp"].sum(-1), counts["pixels"][..., 0], 1.0)
