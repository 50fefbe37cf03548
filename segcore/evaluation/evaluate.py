"""Evaluation of a model on the test regions."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from segcore.data.prepared import LabelledImage, PreparedData, test_regions
from segcore.evaluation.objects import ObjectCounts
from segcore.evaluation.predicted import Predicted, by_objects, by_pixels
from segcore.inference.calibration import Calibration
from segcore.inference.device import Precision
from segcore.inference.objects import windows_of
from segcore.inference.postprocess import Postprocess
from segcore.inference.tta import with_flips
from segcore.models.base.instance import InstanceModel
from segcore.models.base.model import SegmentationModel
from segcore.models.base.semantic import SemanticModel
from segcore.objects.find import FindSettings
from segcore.objects.found import Objects
from segcore.params import Evaluate
from segcore.tables.counts import confusion, count, counts_table, require_all
from segcore.tables.slices import add_words
from segcore.tables.surfaces import Surfaces


@dataclass(frozen=True)
class Evaluated:
    """Result of an evaluation.

    Attributes:
        counts: the evaluation table.
        confusion: (K, K) int64 pixels, rows truth, columns prediction.
        calibration: curve and error, see `Calibration.result`; with a temperature also "after_temperature", the same
            after temperature scaling and the "temperature".
        objects: the object table; None where no objects were asked for.
        surfaces: the surface table; None where no region is a plane of a volume with a spacing, or regions were chosen.
    """

    counts: pd.DataFrame
    confusion: np.ndarray
    calibration: dict[str, Any]
    objects: pd.DataFrame | None = None
    surfaces: pd.DataFrame | None = None

    def write(self, folder: Path) -> None:
        """Write counts.parquet, objects.parquet and surfaces.parquet, where there are such, and calibration.json."""
        for name, table in (("counts", self.counts), ("objects", self.objects), ("surfaces", self.surfaces)):
            if table is not None:
                table.to_parquet(folder / f"{name}.parquet", index=False)
        (folder / "calibration.json").write_text(json.dumps(self.calibration, indent=2) + "\n")


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
    temperature: float | None = None,
    regions: pd.DataFrame | None = None,
    postprocess: Postprocess | None = None,
) -> Evaluated:
    """Predict every test region at full resolution and compare it with its original labels.

    Args:
        model: model of a bundle, on its device.
        data: prepared data with the test regions.
        settings: of `fitted`; tile, overlap, flips, tolerances of boundaries and surfaces, and whether objects are
            compared.
        precision: "fp32" or "bf16".
        keep: called with each region's id, (H, W) uint8 prediction, and objects in the order of their numbers in the
            object table.
        progress: wraps the list of regions, such as `tqdm`.
        objects: how objects are found, whatever their score; None: they are not. An instance network needs it, because
            its class map has the objects of the operating score.
        temperature: of a semantic network; None: its model.json has none.
        regions: rows of the region table that are predicted; None: all test regions.
        postprocess: of a semantic network's class maps. Objects and calibration are of the network's own classes.

    Raises:
        DataError: a region has no counts, or a volume lacks planes.
        ParamsError: flips with an instance network.
    """
    all_regions = regions is None
    regions = test_regions(data) if regions is None else regions
    classes = len(data.classes)
    model = with_flips(model, settings.flips)
    images, matrix = [], np.zeros((classes, classes), dtype=np.int64)
    calibration, scaled = Calibration(), Calibration()
    with_objects = objects is not None and settings.objects != "none" and data.instances
    counts = ObjectCounts(data, settings.boundary_tolerance) if with_objects else None
    # surfaces are of whole volumes, of which a choice of regions may lack planes
    surfaces = Surfaces(data, settings.surface_tolerance) if all_regions else None
    for region in progress(list(regions.itertuples())):
        patch = data.read_input(region.id)
        predicted = _predicted(model, patch, settings, precision, data.foreground, objects, temperature)
        prediction = predicted.classes
        calibration.add(predicted.confidence, prediction, patch.label)
        if predicted.calibrated is not None:
            scaled.add(predicted.calibrated, prediction, patch.label)
        if postprocess is not None:
            prediction = postprocess.applied(prediction, patch.valid)
        images.append(
            (region.id, region.cluster, count(prediction, patch.label, classes, settings.boundary_tolerance))
        )
        matrix += confusion(prediction, patch.label, classes)
        found = None
        if counts is not None and predicted.objects is not None:
            found = counts.add(region.id, patch, predicted.objects)
        if surfaces is not None:
            surfaces.add(region.id, prediction, patch.label)
        keep(region.id, prediction, found)
    table = add_words(counts_table(images, data.classes), regions, data.items)
    require_all(table, regions["id"])
    curve = calibration.result()
    if temperature is not None:
        curve["after_temperature"] = {"temperature": temperature, **scaled.result()}
    objects_found = counts.table(regions) if counts else None
    return Evaluated(table, matrix, curve, objects_found, surfaces.table() if surfaces else None)


def fitted(settings: Evaluate, model: SegmentationModel, description: Mapping[str, Any]) -> Evaluate:
    """Settings with the tile and overlap in which a bundle's model predicts; its model.json is `description`.

    Raises:
        ModelError: as of `segcore.inference.objects.windows_of`.
    """
    tile, overlap = windows_of(model, description, settings.tile, settings.overlap)
    return settings.model_copy(update={"tile": tile, "overlap": overlap})


def _predicted(
    model: SegmentationModel,
    patch: LabelledImage,
    settings: Evaluate,
    precision: Precision,
    foreground: Sequence[int],
    finding: FindSettings | None,
    temperature: float | None,
) -> Predicted:
    if isinstance(model, InstanceModel):
        assert finding is not None
        return by_objects(model, patch, settings, precision, finding.score)
    assert isinstance(model, SemanticModel)
    return by_pixels(model, patch, settings, precision, foreground, finding, temperature)


def save_prediction(path: Path, prediction: np.ndarray, colors: list[list[int]]) -> None:
    """Write (H, W) class indices as a palette PNG in the classes' colours."""
    picture = Image.fromarray(prediction, mode="P")
    picture.putpalette([value for color in colors for value in color])
    picture.save(path)
