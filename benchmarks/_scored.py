"""Scores as defined in publications, with intervals, calculated from the counts of the pipeline's evaluations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from segcore.comparison.statistics import interval
from segcore.tables.counts import as_arrays

# (B, I): how often each image counts in each resample
Weights = np.ndarray
DRAWS = 2000


@dataclass(frozen=True)
class Counted:
    """Pixel counts of one run: tp, fp and fn are (I, K) for I images and K classes."""

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    # (I,) index of the image's cluster
    clusters: np.ndarray
    classes: list[str]


# counts, weights and foreground classes; returns (B,)
Measure = Callable[[Counted, Weights, list[int]], np.ndarray]


def read(table: Path) -> Counted:
    """Counts of an evaluation's counts.parquet.

    Raises:
        DataError: the table is incomplete.
    """
    table_counts = as_arrays(pd.read_parquet(table))
    clusters = np.unique(table_counts.clusters.astype(str), return_inverse=True)[1]
    tp, fp, fn = (table_counts.counts[name].astype(float) for name in ("tp", "fp", "fn"))
    return Counted(tp, fp, fn, clusters, table_counts.classes)


def _ratio(part: np.ndarray, whole: np.ndarray, otherwise: float = 1.0) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), otherwise)


def _iou(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    return _ratio(tp, tp + fp + fn)


def _dice(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    return _ratio(2 * tp, 2 * tp + fp + fn)


def _mean(values: np.ndarray, weights: Weights) -> np.ndarray:
    """Mean of (I,) over images, (B,) for the resamples."""
    averaged: np.ndarray = weights @ values / weights.sum(1)
    return averaged


def pooled_iou(c: Counted, w: Weights, foreground: list[int]) -> np.ndarray:
    """IoU of the pooled pixels of all images, mean over foreground classes: the main score of the leaderboard."""
    mean: np.ndarray = _iou(w @ c.tp, w @ c.fp, w @ c.fn)[:, foreground].mean(1)
    return mean


def pooled_dice(c: Counted, w: Weights, foreground: list[int]) -> np.ndarray:
    """As `pooled_iou`, but Dice (F1)."""
    mean: np.ndarray = _dice(w @ c.tp, w @ c.fp, w @ c.fn)[:, foreground].mean(1)
    return mean


def image_iou(c: Counted, w: Weights, foreground: list[int]) -> np.ndarray:
    """Mean over images of the mean IoU over foreground classes."""
    return _mean(_iou(c.tp, c.fp, c.fn)[:, foreground].mean(1), w)


def patient_dice(c: Counted, w: Weights, foreground: list[int]) -> np.ndarray:
    """Mean over patients (clusters) of the mean Dice over foreground classes, with all planes of a patient pooled."""
    # (C, I)
    member = (np.arange(c.clusters.max() + 1)[:, None] == c.clusters).astype(float)
    each = _dice(member @ c.tp, member @ c.fp, member @ c.fn)[:, foreground].mean(1)
    # all images of a cluster have the same weight
    first = np.array([np.flatnonzero(row)[0] for row in member])
    return _mean(each, w[:, first])


def weighted_f1(c: Counted, w: Weights, foreground: list[int]) -> np.ndarray:
    """2 P R / (P + R), with P and R averaged over images, and in each image over classes weighted by true pixels."""
    true = c.tp + c.fn
    weights = true / true.sum(1, keepdims=True)
    precision = _mean((weights * _ratio(c.tp, c.tp + c.fp, 0.0)).sum(1), w)
    recall = _mean((weights * _ratio(c.tp, true, 0.0)).sum(1), w)
    return 2 * precision * recall / (precision + recall)


def weighted_iou(c: Counted, w: Weights, foreground: list[int]) -> np.ndarray:
    """IoU averaged over images, and in each image over classes weighted by true pixels."""
    true = c.tp + c.fn
    return _mean((true / true.sum(1, keepdims=True) * _iou(c.tp, c.fp, c.fn)).sum(1), w)


def image_class_iou(c: Counted, w: Weights, foreground: list[int]) -> np.ndarray:
    """Mean over images of the unweighted mean IoU over all classes."""
    return _mean(_iou(c.tp, c.fp, c.fn).mean(1), w)


MEASURES: dict[str, Measure] = {
    f.__name__: f
    for f in (
        pooled_iou, pooled_dice, image_iou, patient_dice, weighted_f1, weighted_iou, image_class_iou,
    )
}  # fmt: skip


def estimate(
    runs: Sequence[Counted], measure: Measure, foreground: list[int], confidence: float = 0.95
) -> tuple[float, float, float, list[float]]:
    """Mean over seeds, the two ends of its interval, and the score of each seed.

    Clusters and, independently, seeds are drawn with replacement, as in `segcore.comparison.statistics.bootstrap`.

    Args:
        runs: one per seed, on the same images in the same order.
        measure: one of MEASURES.
        foreground: indices of the foreground classes.
        confidence: of the interval, in 0..1.
    """
    one = np.ones((1, len(runs[0].clusters)))
    by_seed = [float(measure(run, one, foreground)[0]) for run in runs]
    rng = np.random.default_rng(0)
    count = int(runs[0].clusters.max()) + 1
    weights = rng.multinomial(count, np.full(count, 1 / count), size=DRAWS).astype(float)[:, runs[0].clusters]
    seeds = rng.multinomial(len(runs), np.full(len(runs), 1 / len(runs)), size=DRAWS) / len(runs)
    drawn = sum(seeds[:, i] * measure(run, weights, foreground) for i, run in enumerate(runs))
    low, high = interval(np.asarray(drawn), confidence)
    return float(np.mean(by_seed)), low, high, by_seed
