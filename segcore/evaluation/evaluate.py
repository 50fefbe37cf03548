"""Evaluation of a model on the test regions."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from segcore.data.prepared import PreparedData, test_regions
from segcore.evaluation.calibration import Calibration
from segcore.inference.tiling import predict_patch
from segcore.inference.tta import with_flips
from segcore.models.base.model import SegmentationModel
from segcore.params import Evaluate
from segcore.tables.counts import confusion, count, counts_table, require_all
from segcore.tables.slices import add_words


@dataclass(frozen=True)
class Evaluated:
    """Result of an evaluation.

    Attributes:
        counts: the evaluation table.
        confusion: (K, K) int64 pixels, rows truth, columns prediction.
        calibration: curve and error, see `Calibration.result`.
    """

    counts: pd.DataFrame
    confusion: np.ndarray
    calibration: dict[str, Any]


def evaluate(
    model: SegmentationModel,
    data: PreparedData,
    settings: Evaluate,
    precision: str,
    keep: Callable[[str, np.ndarray], None] = lambda region, prediction: None,
    progress: Callable[[list[Any]], Iterable[Any]] = iter,
) -> Evaluated:
    """Predict every test region at full resolution and compare it with its original labels.

    Args:
        model: model of a bundle, on its device.
        data: prepared data with the test regions.
        settings: tile, overlap, flips and boundary tolerance.
        precision: "fp32" or "bf16".
        keep: called with each region's id and (H, W) uint8 prediction.
        progress: wraps the list of regions, such as `tqdm`.

    Raises:
        DataError: a region has no counts.
    """
    regions = test_regions(data)
    classes = len(data.classes)
    model = with_flips(model, settings.flips)
    images, matrix, calibration = [], np.zeros((classes, classes), dtype=np.int64), Calibration()
    for region in progress(list(regions.itertuples())):
        patch = data.read_input(region.id)
        probabilities = predict_patch(model, patch, settings.tile, settings.overlap, precision)
        prediction = probabilities.argmax(axis=0).astype(np.uint8)
        images.append(
            (region.id, region.cluster, count(prediction, patch.label, classes, settings.boundary_tolerance))
        )
        matrix += confusion(prediction, patch.label, classes)
        calibration.update(probabilities, patch.label)
        keep(region.id, prediction)
    table = add_words(counts_table(images, data.classes), regions, data.items)
    require_all(table, regions["id"])
    return Evaluated(table, matrix, calibration.result())


def save_prediction(path: Path, prediction: np.ndarray, colors: list[list[int]]) -> None:
    """Write (H, W) class indices as a palette PNG in the classes' colours."""
    picture = Image.fromarray(prediction, mode="P")
    picture.putpalette([value for color in colors for value in color])
    picture.save(path)
