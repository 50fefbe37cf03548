"""The table of metrics, one row per metric: read by parameters, leaderboard, charts, gate and tracking.

Import-light (NumPy only), because params.yaml is checked against it. `segcore.metrics.scores` computes the scores of
evaluation tables.
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
# A score key besides those of the metrics, because it counts images and not pixels.
EMPTY_RATE = "empty_image_false_positive_rate"


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: key in params.yaml and first part of the score keys.
        title: printed name within a sentence, such as "boundary F1".
        function: takes counts, each `(..., K)`, and returns values `(..., K)`, or `(...)` without `per_class`.
        unit: "%" for values in [0, 1], which are printed times 100; any other unit is printed after the value.
        higher_is_better: False for distances and errors.
        tables: evaluation tables that it needs; "counts" is the only one so far.
        per_class: whether there is one value per class, and therefore means of the foreground and of all classes.
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
        """The title as the heading of a column or axis."""
        return self.title[0].upper() + self.title[1:]

    @property
    def sign(self) -> int:
        """1, or -1 where lower is better; a difference multiplied by it is a gain."""
        return 1 if self.higher_is_better else -1

    @property
    def direction(self) -> str:
        """Which direction is better, as text."""
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
    """Printed name of a score key: `iou/dataset/building` -> `IoU, building (pooled pixels)`."""
    if key == EMPTY_RATE:
        return "False-positive rate on images without foreground"
    name, aggregate, *target = key.split("/", 2)
    means = {"foreground_mean": "mean of the foreground classes", "all_mean": "mean with background"}
    title = METRICS[name].heading if name in METRICS else name.replace("_", " ").capitalize()
    target_title = f", {means.get(target[0], target[0])}" if target else ""
    return title + target_title + (" (pooled pixels)" if aggregate == "dataset" else " (mean of images)")


def unit_of(key: str) -> str:
    """Unit of a score key: that of its metric; "%" for the empty-image rate."""
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
