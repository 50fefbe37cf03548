"""Pictures of one evaluated run for the tracker: the same file names and cases for every run, so that they line up."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from segcore.data.prepared import PreparedData
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
        models, evaluations: folders of bundles and of evaluations.
        title: the architecture's printed name.

    Returns:
        Charts (learning, calibration, confusion), and the gallery: image, truth and errors of the same test regions
        whatever the run.
    """
    run, titles = run_name(architecture, seed), {architecture: title}
    source = evaluations / run
    calibration = json.loads((source / "calibration.json").read_text())
    drawn = {
        "learning": charts.learning_curves({run: pd.read_csv(models / run / "history.csv")}, titles),
        "calibration": charts.calibration_curves({architecture: calibration}, titles),
        "confusion": charts.confusion_matrices(
            {architecture: pd.read_csv(source / "confusion.csv", index_col="truth")}, titles
        ),
    }
    scores = gallery.image_iou(pd.read_parquet(source / "counts.parquet"), data.foreground)
    kept = sorted(path.stem for path in (source / "predictions").glob("*.png"))
    cases = []
    for index, region in enumerate([name for name in kept if name in scores.index][:_CASES]):
        patch = data.read(region)
        with Image.open(source / "predictions" / f"{region}.png") as picture:
            prediction = np.array(picture)
        found, iou = {architecture: prediction}, {architecture: float(scores[region])}
        case = gallery.Case(region, "test", patch.image, patch.label, patch.valid, found, iou)
        path = folder / f"case_{index}.png"
        style.save_png(gallery.gallery_image(case, data.colors, data.foreground, titles), path)
        cases.append(path)
    files = []
    for name, figure in drawn.items():
        files.append(folder / f"{name}.png")
        style.save_png(figure, files[-1])
    return files, cases
