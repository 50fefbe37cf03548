"""Scores of evaluation tables by the definitions of publications, with intervals, from the pipeline's own counts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from segcore.comparison.statistics import interval
from segcore.tables.counts import as_arrays

Weights = np.ndarray  # (B, I): how often each image counts in each resample
DRAWS = 2000


@dataclass(frozen=True)
class Counted:
    """Pixels of one run: each (I, K), images in rows."""

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    clusters: np.ndarray  # (I,) index of the image's cluster
    classes: list[str]


Measure = Callable[[Counted, Weights, list[int]], np.ndarray]  # the last: foreground classes; returns (B,)


def read(table: Path) -> Counted:
    """Counts of an evaluation's counts.parquet.

    Raises:
        DataError: the table is not whole.
    """
    found = as_arrays(pd.read_parquet(table))
    clusters = np.unique(found.clusters.astype(str), return_inverse=True)[1]
    tp, fp, fn = (found.counts[name].astype(float) for name in ("tp", "fp", "fn"))
    return Counted(tp, fp, fn, clusters, found.classes)


def _share(part: np.ndarray, whole: np.ndarray, otherwise: float = 1.0) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), otherwise)


def _iou(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    return _share(tp, tp + fp + fn)


def _dice(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    return _share(2 * tp, 2 * tp + fp + fn)


def _mean(values: np.ndarray, weights: Weights) -> np.ndarray:
    """(I,) averaged over images, once a resample."""
    averaged: np.ndarray = weights @ values / weights.sum(1)
    return averaged


def pooled_iou(c: Counted, w: Weights, foreground: list[int]) -> np.ndarray:
    """Of the pixels of all images together, mean over foreground classes: the leaderboard's headline."""
    mean: np.ndarray = _iou(w @ c.tp, w @ c.fp, w @ c.fn)[:, foreground].mean(1)
    return mean


def pooled_dice(c: Counted, w: Weights, foreground: list[int]) -> np.ndarray:
    """As `pooled_iou`, but Dice, which is F1."""
    mean: np.ndarray = _dice(w @ c.tp, w @ c.fp, w @ c.fn)[:, foreground].mean(1)
    return mean


def image_iou(c: Counted, w: Weights, foreground: list[int]) -> np.ndarray:
    """Mean over images of each image's mean over foreground classes."""
    return _mean(_iou(c.tp, c.fp, c.fn)[:, foreground].mean(1), w)


def patient_dice(c: Counted, w: Weights, foreground: list[int]) -> np.ndarray:
    """Mean over patients (clusters) of the mean over foreground classes, all planes of a patient together."""
    member = (np.arange(c.clusters.max() + 1)[:, None] == c.clusters).astype(float)  # (C, I)
    each = _dice(member @ c.tp, member @ c.fp, member @ c.fn)[:, foreground].mean(1)
    first = np.array([np.flatnonzero(row)[0] for row in member])  # images of a cluster weigh alike
    return _mean(each, w[:, first])


def weighted_f1(c: Counted, w: Weights, foreground: list[int]) -> np.ndarray:
    """2 P R / (P + R) of P and R averaged over images, both classes of each weighted by their true pixels."""
    true = c.tp + c.fn
    share = true / true.sum(1, keepdims=True)
    precision = _mean((share * _share(c.tp, c.tp + c.fp, 0.0)).sum(1), w)
    recall = _mean((share * _share(c.tp, true, 0.0)).sum(1), w)
    return 2 * precision * recall / (precision + recall)


def weighted_iou(c: Counted, w: Weights, foreground: list[int]) -> np.ndarray:
    """IoU averaged over images, both classes of each weighted by their true pixels."""
    true = c.tp + c.fn
    return _mean((true / true.sum(1, keepdims=True) * _iou(c.tp, c.fp, c.fn)).sum(1), w)


def image_class_iou(c: Counted, w: Weights, foreground: list[int]) -> np.ndarray:
    """Mean over images of the plain mean over all classes."""
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
    """Mean over seeds, its interval, and each seed's own score.

    Clusters and, crossed with them, seeds are drawn with replacement, as `segcore.comparison.statistics.bootstrap`
    does.

    Args:
        runs: one a seed, on the same images in the same order.
    """
    one = np.ones((1, len(runs[0].clusters)))
    own = [float(measure(run, one, foreground)[0]) for run in runs]
    rng = np.random.default_rng(0)
    count = int(runs[0].clusters.max()) + 1
    weights = rng.multinomial(count, np.full(count, 1 / count), size=DRAWS).astype(float)[:, runs[0].clusters]
    seeds = rng.multinomial(len(runs), np.full(len(runs), 1 / len(runs)), size=DRAWS) / len(runs)
    drawn = sum(seeds[:, i] * measure(run, weights, foreground) for i, run in enumerate(runs))
    low, high = interval(np.asarray(drawn), confidence)
    return float(np.mean(own)), low, high, own
