"""The table of metrics: one row per metric, which parameters, leaderboard, charts, gate and tracking read.

Import-light (NumPy only): params.yaml is checked against it. Scores of evaluation tables: `segcore.metrics.scores`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from segcore.metrics import pixel
from segcore.metrics.pixel import Counts

__all__ = [
    "EMPTY_POLICY",
    "EMPTY_RATE",
    "METRICS",
    "Metric",
    "class_metrics",
    "score_title",
    "table",
    "unit_of",
]

EMPTY_POLICY = (
    "A class absent from truth and prediction scores 1.0 (agreement on absence), pooled and per image."
)
# Its own key beside the metrics' ones: it counts images, not pixels.
EMPTY_RATE = "empty_image_false_positive_rate"


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: its key in params.yaml and the first part of its score keys.
        title: in the middle of a sentence, such as "boundary F1".
        function: counts, each `(..., K)`, to values `(..., K)`, or `(...)` without `per_class`.
        unit: "%" for values in [0, 1], which are shown times 100; any other is printed after the value.
        higher_is_better: False for distances and errors.
        tables: evaluation tables that it needs; "counts" is the only one today.
        per_class: whether there is a value per class, and so foreground and all-class means.
    """

    name: str
    title: str
    function: Callable[[Counts], np.ndarray]
    unit: str = "%"
    higher_is_better: bool = True
    tables: tuple[str, ...] = ("counts",)
    per_class: bool = True

    @property
    def heading(self) -> str:
        """The title at the head of a column or axis."""
        return self.title[0].upper() + self.title[1:]

    @property
    def sign(self) -> int:
        """1, or -1 where lower is better: a difference times it is a gain."""
        return 1 if self.higher_is_better else -1

    @property
    def direction(self) -> str:
        """In words."""
        return "higher is better" if self.higher_is_better else "lower is better"


_ROWS = (
    Metric("iou", "IoU", pixel.iou),
    Metric("dice", "Dice (F1)", pixel.dice),
    Metric("precision", "precision", pixel.precision),
    Metric("recall", "recall", pixel.recall),
    Metric("boundary_f1", "boundary F1", pixel.boundary_f1),
    Metric("pixel_accuracy", "pixel accuracy", pixel.pixel_accuracy, per_class=False),
)
METRICS = {metric.name: metric for metric in _ROWS}


def class_metrics() -> dict[str, Metric]:
    """Metrics with a foreground mean, by which architectures can be ranked (`compare.metric`)."""
    return {name: metric for name, metric in METRICS.items() if metric.per_class}


def score_title(key: str) -> str:
    """A score key in words: `iou/dataset/building` -> `IoU, building (pooled pixels)`."""
    if key == EMPTY_RATE:
        return "False-positive rate on images without foreground"
    name, aggregate, *target = key.split("/")
    means = {"foreground_mean": "mean of the foreground classes", "all_mean": "mean with background"}
    title = METRICS[name].heading if name in METRICS else name.replace("_", " ").capitalize()
    target_title = f", {means.get(target[0], target[0])}" if target else ""
    return title + target_title + (" (pooled pixels)" if aggregate == "dataset" else " (mean of images)")


def unit_of(key: str) -> str:
    """The unit of a score key: that of its metric, "%" for the empty-image rate."""
    name = key.partition("/")[0]
    return METRICS[name].unit if name in METRICS else "%"


def table() -> list[dict[str, str]]:
    """One row per metric, for the documentation: name, title, unit, direction, tables and definition."""
    return [
        {
            "name": metric.name,
            "title": metric.heading,
            "unit": metric.unit,
            "direction": metric.direction,
            "tables": ", ".join(metric.tables),
            "definition": (metric.function.__doc__ or "").strip().split("\n")[0],
        }
        for metric in METRICS.values()
    ]
