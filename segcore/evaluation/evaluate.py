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
from segcore.evaluation.objects import ObjectCounts
from segcore.inference.tiling import predict_with_touching
from segcore.inference.tta import with_flips
from segcore.models.base.model import SegmentationModel
from segcore.models.base.semantic import SemanticModel
from segcore.objects.find import FindSettings
from segcore.objects.found import Objects
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
        objects: the object table; None where no objects were asked for.
    """

    counts: pd.DataFrame
    confusion: np.ndarray
    calibration: dict[str, Any]
    objects: pd.DataFrame | None = None


def _keep_nothing(region: str, prediction: np.ndarray, objects: Objects | None) -> None:
    pass


def evaluate(
    model: SegmentationModel,
    data: PreparedData,
    settings: Evaluate,
    precision: str,
    keep: Callable[[str, np.ndarray, Objects | None], None] = _keep_nothing,
    progress: Callable[[list[Any]], Iterable[Any]] = iter,
    objects: FindSettings | None = None,
) -> Evaluated:
    """Predict every test region at full resolution and compare it with its original labels.

    Args:
        model: model of a bundle, on its device.
        data: prepared data with the test regions.
        settings: tile, overlap, flips and boundary tolerance.
        precision: "fp32" or "bf16".
        keep: called with each region's id, (H, W) uint8 prediction, and objects in the order of their numbers in the
            object table.
        progress: wraps the list of regions, such as `tqdm`.
        objects: how objects are found, whatever their score; None: they are not.

    Raises:
        DataError: a region has no counts.
    """
    regions = test_regions(data)
    classes = len(data.classes)
    model = with_flips(model, settings.flips)
    assert isinstance(model, SemanticModel)
    images, matrix, calibration = [], np.zeros((classes, classes), dtype=np.int64), Calibration()
    counts = ObjectCounts(data, objects, settings.boundary_tolerance) if objects else None
    for region in progress(list(regions.itertuples())):
        patch = data.read_input(region.id)
        probabilities, touching = predict_with_touching(
            model, patch, settings.tile, settings.overlap, precision
        )
        prediction = probabilities.argmax(axis=0).astype(np.uint8)
        images.append(
            (region.id, region.cluster, count(prediction, patch.label, classes, settings.boundary_tolerance))
        )
        matrix += confusion(prediction, patch.label, classes)
        calibration.update(probabilities, patch.label)
        found = counts.add(region.id, patch, probabilities, prediction, touching) if counts else None
        keep(region.id, prediction, found)
    table = add_words(counts_table(images, data.classes), regions, data.items)
    require_all(table, regions["id"])
    return Evaluated(table, matrix, calibration.result(), counts.table(regions) if counts else None)


def save_prediction(path: Path, prediction: np.ndarray, colors: list[list[int]]) -> None:
    """Write (H, W) class indices as a palette PNG in the classes' colours."""
    picture = Image.fromarray(prediction, mode="P")
    picture.putpalette([value for color in colors for value in color])
    picture.save(path)
