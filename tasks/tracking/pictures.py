"""Pictures of an evaluated run for MLflow; file names and cases are the same for all runs, for comparison in its UI."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from segcore.data.prepared import PreparedData
from segcore.files import read_json
from segcore.plots import charts, gallery, style
from tasks.project import run_name

_CASES = 4


def write_pictures(
    data: PreparedData,
    models: Path,
    evaluations: Path,
    architecture: str,
    seed: int,
    title: str,
    folder: Path,
) -> tuple[list[Path], list[Path]]:
    """Charts and gallery of a run as PNG files in `folder`.

    Args:
        data: prepared data.
        models: folder of bundles.
        evaluations: folder of evaluations.
        architecture: its name, such as `unet`.
        seed: seed of the training.
        title: the architecture's title in figures, such as `U-Net`.
        folder: receives the files.

    Returns:
        Paths of the charts (learning, calibration, confusion), and of the gallery: image, truth and errors of up to
        four test regions, the same ones for every run.
    """
    run, titles = run_name(architecture, seed), {architecture: title}
    source = evaluations / run
    calibration = read_json(source / "calibration.json", f"run the step evaluate of {run} again")
    figures = {
        "learning": charts.learning_curves({run: pd.read_csv(models / run / "history.csv")}, titles),
        "calibration": charts.calibration_curves({architecture: calibration}, titles),
        "confusion": charts.confusion_matrices(
            {architecture: pd.read_csv(source / "confusion.csv", index_col="truth")}, titles
        ),
    }
    scores = gallery.image_iou(pd.read_parquet(source / "counts.parquet"), data.foreground)
    predicted = sorted(path.stem for path in (source / "predictions").glob("*.png"))
    cases = []
    for index, region in enumerate([name for name in predicted if name in scores.index][:_CASES]):
        patch = data.read(region)
        with Image.open(source / "predictions" / f"{region}.png") as picture:
            prediction = np.array(picture)
        predictions, iou = {architecture: prediction}, {architecture: float(scores[region])}
        case = gallery.Case(region, "test", patch.image, patch.label, patch.valid, predictions, iou)
        path = folder / f"case_{index}.png"
        style.save_png(gallery.gallery_image(case, data.colors, data.foreground, titles), path)
        cases.append(path)
    files = []
    for name, figure in figures.items():
        files.append(folder / f"{name}.png")
        style.save_png(figure, files[-1])
    return files, cases
