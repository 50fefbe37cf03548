"""Metrics of objects as functions of sums per class.

A class that is absent from truth and prediction scores 1.0, and 0.0 in errors, pooled and per image; a class without
truth that is predicted scores 0.0, and the number of predictions in errors of counts. The sums are those of
`segcore.metrics.object_sums`; "found" objects are pairs of a true and a predicted object of one class with an IoU above
.5.
"""

from collections.abc import Callable, Mapping

import numpy as np

# sums by name, each (..., K)
Sums = Mapping[str, np.ndarray]
Function = Callable[[Sums], np.ndarray]

# IoU in per cent of all metrics with several thresholds
THRESHOLDS = tuple(range(50, 100, 5))
SIZES = ("small", "medium", "large")


def _fraction(part: np.ndarray, whole: np.ndarray, otherwise: np.ndarray | float) -> np.ndarray:
    """`part / whole` in float64, `otherwise` where the whole is 0."""
    whole = np.asarray(whole, dtype=np.float64)
    return np.where(whole > 0, np.asarray(part) / np.where(whole > 0, whole, 1.0), otherwise)


def predicted(sums: Sums) -> np.ndarray:
    """Number of predicted objects that are right or wrong."""
    return np.asarray(sums["tp_50"] + sums["fp_50"])


def true(sums: Sums) -> np.ndarray:
    """Number of true objects that must be found."""
    return np.asarray(sums["tp_50"] + sums["fn_50"])


def pq(sums: Sums) -> np.ndarray:
    """Panoptic quality `sum of IoU / (TP + FP/2 + FN/2)` of found objects, IoU > .5 (Kirillov et al. 2019)."""
    whole = sums["tp_50"] + (sums["fp_50"] + sums["fn_50"]) / 2
    return _fraction(sums["iou"], whole, 1.0)


def sq(sums: Sums) -> np.ndarray:
    """Segmentation quality: mean IoU of found objects, IoU > .5 (Kirillov et al. 2019); 0 if none is found."""
    return _fraction(sums["iou"], sums["tp_50"], (sums["fp_50"] + sums["fn_50"]) == 0)


def rq(sums: Sums) -> np.ndarray:
    """Recognition quality: F1 of objects at IoU > .5 (Kirillov et al. 2019)."""
    return _f1(sums, 50)


def _f1(sums: Sums, percent: int) -> np.ndarray:
    tp, fp, fn = (sums[f"{name}_{percent}"] for name in ("tp", "fp", "fn"))
    return _fraction(2 * tp, 2 * tp + fp + fn, 1.0)


def f1(percent: int) -> Function:
    """F1 of objects at an IoU in per cent."""

    def function(sums: Sums) -> np.ndarray:
        return _f1(sums, percent)

    return _described(function, f"F1 of objects `2TP / (2TP + FP + FN)`, IoU > .{percent}")


def precision(percent: int) -> Function:
    """Precision of objects at an IoU in per cent."""

    def function(sums: Sums) -> np.ndarray:
        tp, fp, fn = (sums[f"{name}_{percent}"] for name in ("tp", "fp", "fn"))
        return _fraction(tp, tp + fp, fn == 0)

    return _described(function, f"`TP / (TP + FP)` of predicted objects, IoU > .{percent}")


def recall(percent: int) -> Function:
    """Recall of objects at an IoU in per cent."""

    def function(sums: Sums) -> np.ndarray:
        tp, fp, fn = (sums[f"{name}_{percent}"] for name in ("tp", "fp", "fn"))
        return _fraction(tp, tp + fn, fp == 0)

    return _described(function, f"`TP / (TP + FN)` of true objects, IoU > .{percent}")


def recall_of(size: str) -> Function:
    """Recall of the true objects of one size."""

    def function(sums: Sums) -> np.ndarray:
        agrees = (true(sums) > 0) | (predicted(sums) == 0)
        return _fraction(sums[f"tp_{size}"], sums[f"true_{size}"], agrees)

    third = {"small": "smallest", "medium": "middle", "large": "largest"}[size]
    return _described(
        function, f"Share of true objects that are found, IoU > .5: the {third} third of the test set by area"
    )


def ap(sums: Sums) -> np.ndarray:
    """Average precision of COCO (Lin et al. 2014), mean over IoU .5 to .95, without a limit of detections."""
    return np.asarray(np.mean([sums[f"ap_{percent}"] for percent in THRESHOLDS], axis=0))


def ap_50(sums: Sums) -> np.ndarray:
    """Average precision of COCO (Lin et al. 2014) at IoU >= .5, without a limit of detections."""
    return np.asarray(sums["ap_50"])


def ap_75(sums: Sums) -> np.ndarray:
    """Average precision of COCO (Lin et al. 2014) at IoU >= .75, without a limit of detections."""
    return np.asarray(sums["ap_75"])


def ap_coco(sums: Sums) -> np.ndarray:
    """Average precision as COCO prints it (Lin et al. 2014): at most 100 detections per image and class."""
    return np.asarray(np.mean([sums[f"ap_coco_{percent}"] for percent in THRESHOLDS], axis=0))


def ap_dsb(sums: Sums) -> np.ndarray:
    """`TP / (TP + FP + FN)` of objects, mean over IoU > .5 to > .95 (Data Science Bowl 2018, Caicedo et al. 2019)."""
    values = []
    for percent in THRESHOLDS:
        tp, fp, fn = (sums[f"{name}_{percent}"] for name in ("tp", "fp", "fn"))
        values.append(_fraction(tp, tp + fp + fn, 1.0))
    return np.asarray(np.mean(values, axis=0))


def aji(sums: Sums) -> np.ndarray:
    """Aggregated Jaccard index of true objects with their best predictions, and unused ones (Kumar et al. 2017)."""
    return _fraction(sums["aji_intersection"], sums["aji_union"], 1.0)


def count_error(sums: Sums) -> np.ndarray:
    """Absolute error of the number of objects per image, summed over images, over the true number (at least 1)."""
    return np.asarray(sums["count_gap"] / np.maximum(true(sums), 1))


def count_bias(sums: Sums) -> np.ndarray:
    """`(predicted - true) / true` number of objects, the divisor at least 1; mean of classes: of distances from 0."""
    return np.asarray((predicted(sums) - true(sums)) / np.maximum(true(sums), 1))


def count_error_area(sums: Sums) -> np.ndarray:
    """Absolute error of the number of objects per image, summed over images, per million scored pixels."""
    return _fraction(1e6 * sums["count_gap"], sums["pixels"], 0.0)


def merged(sums: Sums) -> np.ndarray:
    """Share of true objects that are merged: more than half of each of several is in one predicted object."""
    return _fraction(sums["merged"], true(sums), 0.0)


def split(sums: Sums) -> np.ndarray:
    """Share of true objects that are divided: several predicted objects have more than half of their area in one."""
    return _fraction(sums["split"], true(sums), 0.0)


def object_boundary_f1(sums: Sums) -> np.ndarray:
    """F1 of boundary pixels of found objects, IoU > .5, matched within `evaluate.boundary_tolerance`; 0 if none is."""
    p = _fraction(sums["boundary_prediction_matched"], sums["boundary_prediction"], 0.0)
    r = _fraction(sums["boundary_truth_matched"], sums["boundary_truth"], 0.0)
    values = 2 * p * r / np.where(p + r > 0, p + r, 1.0)
    # objects without a boundary, such as one that fills its region, or no object found
    nothing = (sums["boundary_prediction"] + sums["boundary_truth"]) == 0
    right = (sums["tp_50"] > 0) | ((sums["fp_50"] + sums["fn_50"]) == 0)
    return np.asarray(np.where(nothing, right, values))


def false_objects(sums: Sums) -> np.ndarray:
    """Predicted objects per image without a true one of the class; 0 without such images."""
    return _fraction(sums["false"], sums["empty"], 0.0)


def _described(function: Function, text: str) -> Function:
    function.__doc__ = text + "."
    return function
