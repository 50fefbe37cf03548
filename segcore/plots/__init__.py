"""Charts and pictures of the report, also logged to the tracker."""

from segcore.plots.charts import (
    accuracy_cost,
    calibration_curves,
    class_bars,
    confusion_matrices,
    learning_curves,
    metric_bars,
)
from segcore.plots.gallery import Case, case_pictures, gallery_image, image_iou, pick_cases
from segcore.plots.style import save_png, svg

__all__ = [
    "Case",
    "accuracy_cost",
    "calibration_curves",
    "case_pictures",
    "class_bars",
    "confusion_matrices",
    "gallery_image",
    "image_iou",
    "learning_curves",
    "metric_bars",
    "pick_cases",
    "save_png",
    "svg",
]
