"""Pictures of an evaluated run for MLflow; file names and cases are the same for all runs, for comparison in its UI."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from segcore.comparison.results import Score
from segcore.data.prepared import PreparedData
from segcore.files import read_json
from segcore.names import is_ensemble
from segcore.plots import charts, gallery, object_charts, object_gallery, style
from segcore.plots.calibration import calibration_curves
from segcore.plots.object_status import EvaluatedObjects

_CASES = 4


@dataclass(frozen=True)
class Pictures:
    """PNG files of an evaluated run.

    Attributes:
        charts: learning, calibration, confusion, and of objects.
        gallery: image, truth and errors of up to four test regions, the same ones for every run.
        objects: image, true objects and what became of them; empty where the data have no objects.
    """

    charts: list[Path] = field(default_factory=list)
    gallery: list[Path] = field(default_factory=list)
    objects: list[Path] = field(default_factory=list)


def write_pictures(
    data: PreparedData,
    model: Path,
    evaluation: Path,
    architecture: str,
    title: str,
    folder: Path,
    scores: Mapping[str, float],
) -> Pictures:
    """Charts and gallery of a run as PNG files.

    Args:
        data: prepared data.
        model: folder of the bundle.
        evaluation: folder of its evaluation.
        architecture: its name, such as `unet`.
        title: the architecture's title in figures, such as `U-Net`.
        folder: receives the files.
        scores: by score key, of which those of objects are drawn.
    """
    run, titles = model.name, {architecture: title}
    source, pictures = evaluation, Pictures()
    remedy = f"run the step evaluate of {run} again"
    calibration = read_json(source / "calibration.json", remedy)
    figures = {
        "calibration": calibration_curves({architecture: calibration}, titles),
        "confusion": charts.confusion_matrices(
            {architecture: pd.read_csv(source / "confusion.csv", index_col="truth")}, titles
        ),
    }
    if not is_ensemble(architecture):
        history = pd.read_csv(model / "history.csv")
        figures = {"learning": charts.learning_curves({run: history}, titles), **figures}
    pictures.gallery.extend(_cases(data, source, architecture, titles, folder))
    operating = read_json(source / "summary.json", remedy).get("objects")
    if operating is not None:
        table = pd.read_parquet(source / "objects.parquet")
        objects = {architecture: EvaluatedObjects(table, operating["score"], [source / "predictions"])}
        figures |= _object_figures(objects, scores, titles)
        pictures.objects.extend(_object_cases(data, objects, titles, folder))
    for name, figure in figures.items():
        pictures.charts.append(folder / f"{name}.png")
        style.save_png(figure, pictures.charts[-1])
    return pictures


def _cases(
    data: PreparedData, source: Path, architecture: str, titles: Mapping[str, str], folder: Path
) -> Iterator[Path]:
    scores = gallery.image_iou(pd.read_parquet(source / "counts.parquet"), data.foreground)
    predicted = sorted(path.stem for path in (source / "predictions").glob("*.png"))
    for index, region in enumerate([name for name in predicted if name in scores.index][:_CASES]):
        patch = data.read(region)
        with Image.open(source / "predictions" / f"{region}.png") as picture:
            prediction = np.array(picture)
        predictions, iou = {architecture: prediction}, {architecture: float(scores[region])}
        case = gallery.Case(region, "test", patch.image, patch.label, patch.valid, predictions, iou)
        path = folder / f"case_{index}.png"
        style.save_png(gallery.gallery_image(case, data.colors, data.foreground, titles), path)
        yield path


def _object_figures(
    objects: Mapping[str, EvaluatedObjects], scores: Mapping[str, float], titles: Mapping[str, str]
) -> dict[str, Figure]:
    of_run = {
        name: {key: Score(value, None, None, None) for key, value in scores.items()} for name in objects
    }
    sizes = object_charts.recall_by_size(objects, titles)
    return {
        "object_f1": object_charts.f1_by_threshold(of_run, titles),
        "object_counts": object_charts.counts_by_cluster(objects, titles),
        **({"object_sizes": sizes} if sizes else {}),
    }


def _object_cases(
    data: PreparedData, objects: Mapping[str, EvaluatedObjects], titles: Mapping[str, str], folder: Path
) -> Iterator[Path]:
    (run,) = objects.values()
    for index, region in enumerate(sorted(run.kept & set(run.f1.index))[:_CASES]):
        case = object_gallery.object_case(data, region, "test", objects)
        path = folder / f"objects_{index}.png"
        style.save_png(object_gallery.object_gallery_image(case, titles), path)
        yield path
