"""The table of metrics, one row per metric: read by parameters, leaderboard, charts, gate and tracking.

Import-light (NumPy only), because params.yaml is checked against it. `segcore.metrics.scores` computes the scores of
evaluation tables.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from segcore.metrics import objects, pixel, surfaces

__all__ = [
    "EMPTY_POLICY",
    "EMPTY_POLICY_WITH_OBJECTS",
    "EMPTY_RATE",
    "METRICS",
    "OBJECT_POLICY",
    "SURFACE_POLICY",
    "Metric",
    "class_metrics",
    "is_of_objects",
    "is_of_surfaces",
    "score_title",
    "table",
    "unit_of",
]

EMPTY_POLICY = (
    "A class absent from truth and prediction scores 1.0 (agreement on absence), pooled and per image."
)
# where errors of objects are printed too
EMPTY_POLICY_WITH_OBJECTS = (
    "A class absent from truth and prediction scores 1.0 (agreement on absence), and 0.0 in errors, pooled and per "
    "image."
)
OBJECT_POLICY = (
    "A predicted object is right if its IoU with a true object of its class is above .5 (COCO's average precision: at "
    "least); IoU is of valid pixels. An object in truth or prediction has one partner at most; where several are "
    "possible, the prediction of the highest score is first. A prediction with more than half of its pixels ignored is "
    "neither right nor wrong; a true object with at most half of its area in the scored region may be found or not. "
    "A class absent from truth and prediction scores 1.0, and 0.0 in errors; one without truth that is predicted "
    "scores 0.0, and its count error and bias are the number of predictions. An image without both scores the same, "
    "and adds nothing to pooled scores. Means of images leave out images without true objects in count error, count "
    "bias, merged and split objects, those without true objects of a size in the recall of this size, and those with "
    "true objects in false objects; where no image is left, they are the pooled score. Average precision counts "
    "predictions of every score and without a limit (AP as COCO: 100 per image and class); the other metrics count "
    "predictions of at least the operating score."
)
SURFACE_POLICY = (
    "The surface of a class is its voxels with a face neighbour outside it, and distances are in mm, by the affine "
    "of the volume (as MONAI and Metrics Reloaded). Scores of the dataset are means of groups, of which each is the "
    "mean of its volumes. A class that is in only one of truth and prediction has the diagonal of the volume as "
    "distance, and no voxel within the tolerance; a volume with a class in neither does not count for it. Voxels that "
    "are not scored belong to no surface."
)
# A score key besides those of the metrics, because it counts images and not pixels.
EMPTY_RATE = "empty_image_false_positive_rate"


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: key in params.yaml and first part of the score keys.
        title: printed name within a sentence, such as "boundary F1".
        function: takes counts or sums by name, each `(..., K)`, and returns values `(..., K)`, or `(...)` without
            `per_class`.
        unit: "%" for values in [0, 1], which are printed times 100; any other unit is printed after the value.
        higher_is_better: False for distances and errors.
        tables: the evaluation table that it needs: "counts", "objects" where the data have objects, or "surfaces" where
            they have volumes with a spacing.
        per_class: whether there is one value per class, and therefore means of the foreground and, except for objects,
            of all classes.
        is_signed: whether 0 is best, so that values are ranked and compared by their distance from 0.
        is_bounded: whether all values are in [0, 1].
        images: name of a sum of objects per image and class; means of images are of those where it is above 0, and
            without any the pooled score. Empty: of all images.
    """

    name: str
    title: str
    function: Callable[[Any], np.ndarray]
    unit: str = "%"
    higher_is_better: bool = True
    tables: tuple[str, ...] = ("counts",)
    per_class: bool = True
    is_signed: bool = False
    is_bounded: bool = True
    images: str = ""

    @property
    def of_objects(self) -> bool:
        """Whether it is computed from the object table."""
        return "objects" in self.tables

    @property
    def of_surfaces(self) -> bool:
        """Whether it is computed from the surface table."""
        return "surfaces" in self.tables

    @property
    def of_foreground(self) -> bool:
        """Whether it is one of the foreground classes only."""
        return self.of_objects or self.of_surfaces

    def compared(self, value: Any) -> Any:
        """What ranks and differences are of: the value, or its distance from 0 if 0 is best."""
        return abs(value) if self.is_signed else value

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Mean of classes, the last axis; of distances from 0 if 0 is best, since errors of opposite sign cancel.

        That of one class is its value.
        """
        several = values.shape[-1] > 1
        return np.asarray((self.compared(values) if several else values).mean(-1))

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
        if self.is_signed:
            return "closer to 0 is better"
        return "higher is better" if self.higher_is_better else "lower is better"


def _objects(name: str, title: str, function: Callable[[Any], np.ndarray], **rest: Any) -> Metric:
    return Metric(name, title, function, tables=("objects",), **rest)


def _surfaces(name: str, title: str, function: Callable[[Any], np.ndarray], **rest: Any) -> Metric:
    return Metric(name, title, function, tables=("surfaces",), **rest)


def _at_thresholds(
    name: str, title: str, family: Callable[[int], Callable[[Any], np.ndarray]]
) -> list[Metric]:
    """One metric per IoU threshold."""
    return [_objects(f"{name}_{t}", f"{title}@.{t}", family(t)) for t in objects.THRESHOLDS]


_ROWS = (
    Metric("iou", "IoU", pixel.iou),
    Metric("dice", "Dice (F1)", pixel.dice),
    Metric("precision", "precision", pixel.precision),
    Metric("recall", "recall", pixel.recall),
    Metric("boundary_f1", "boundary F1", pixel.boundary_f1),
    Metric("pixel_accuracy", "pixel accuracy", pixel.pixel_accuracy, per_class=False),
    _objects("pq", "PQ", objects.pq),
    _objects("sq", "SQ", objects.sq),
    _objects("rq", "RQ", objects.rq),
    *_at_thresholds("f1", "object F1", objects.f1),
    *_at_thresholds("object_precision", "object precision", objects.precision),
    *_at_thresholds("object_recall", "object recall", objects.recall),
    _objects("ap", "AP", objects.ap),
    _objects("ap_50", "AP@.50", objects.ap_50),
    _objects("ap_75", "AP@.75", objects.ap_75),
    _objects("ap_coco", "AP as COCO", objects.ap_coco),
    _objects("ap_dsb", "AP (DSB)", objects.ap_dsb),
    _objects("aji", "AJI", objects.aji),
    _objects(
        "count_error", "count error", objects.count_error,
        higher_is_better=False, is_bounded=False, images="true",
    ),
    _objects(
        "count_bias", "count bias", objects.count_bias,
        higher_is_better=False, is_signed=True, is_bounded=False, images="true",
    ),
    _objects(
        "count_error_area", "count error per area", objects.count_error_area,
        unit="objects/Mpx", higher_is_better=False, is_bounded=False,
    ),
    _objects("merged", "merged objects", objects.merged, higher_is_better=False, images="true"),
    _objects("split", "split objects", objects.split, higher_is_better=False, images="true"),
    *(
        _objects(f"recall_{s}", f"recall of {s} objects", objects.recall_of(s), images=f"true_{s}")
        for s in objects.SIZES
    ),
    _objects("object_boundary_f1", "boundary F1 of found objects", objects.object_boundary_f1),
    _objects(
        "false_objects", "false objects on empty images", objects.false_objects,
        unit="objects/image", higher_is_better=False, is_bounded=False, images="empty",
    ),
    _surfaces("hd95", "HD95", surfaces.hd95, unit="mm", higher_is_better=False, is_bounded=False),
    _surfaces("nsd", "NSD", surfaces.nsd),
    _surfaces("assd", "ASSD", surfaces.assd, unit="mm", higher_is_better=False, is_bounded=False),
)  # fmt: skip
METRICS = {metric.name: metric for metric in _ROWS}


def class_metrics(table: str | None = None) -> dict[str, Metric]:
    """Metrics with a foreground mean, by which architectures can be ranked (`compare.metric`).

    Args:
        table: "counts", "objects" or "surfaces" for those of one evaluation table.
    """
    return {
        name: metric
        for name, metric in METRICS.items()
        if metric.per_class and table in (None, *metric.tables)
    }


def score_title(key: str) -> str:
    """Printed name of a score key: `iou/dataset/building` -> `IoU, building (pooled pixels)`."""
    if key == EMPTY_RATE:
        return "False-positive rate on images without foreground"
    name, aggregate, *target = key.split("/", 2)
    means = {"foreground_mean": "mean of the foreground classes", "all_mean": "mean with background"}
    title = METRICS[name].heading if name in METRICS else name.replace("_", " ").capitalize()
    target_title = f", {means.get(target[0], target[0])}" if target else ""
    if is_of_surfaces(key):
        return (
            title + target_title + (" (mean of groups)" if aggregate == "dataset" else " (mean of volumes)")
        )
    pooled = " (pooled objects)" if name in METRICS and METRICS[name].of_objects else " (pooled pixels)"
    return title + target_title + (pooled if aggregate == "dataset" else " (mean of images)")


def is_of_objects(key: str) -> bool:
    """Whether a score key is that of a metric of objects."""
    metric = METRICS.get(key.partition("/")[0])
    return metric is not None and metric.of_objects


def is_of_surfaces(key: str) -> bool:
    """Whether a score key is that of a metric of surfaces."""
    metric = METRICS.get(key.partition("/")[0])
    return metric is not None and metric.of_surfaces


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
