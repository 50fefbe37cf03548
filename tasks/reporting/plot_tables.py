"""Tables for `dvc plots`: learning curves, confusion and calibration of all architectures, one CSV file each.

dvc.yaml names them under `plots`; how they are drawn is described in .dvc/plots.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from segcore.comparison.progress import validation_score
from segcore.files import atomic_folder
from tasks.reporting.inputs import Inputs

# of a semantic network; others are named beside the network
_USUAL_SCORE = "val_iou"


def write_plot_tables(inputs: Inputs, folder: Path) -> None:
    """Write learning.csv, confusion.csv and calibration.csv to a folder, which is replaced."""
    tables = {
        "learning": learning_table(inputs),
        "confusion": confusion_table(inputs),
        "calibration": calibration_table(inputs),
    }
    with atomic_folder(folder) as part:
        for name, table in tables.items():
            table.to_csv(part / f"{name}.csv", index=False, lineterminator="\n")


def learning_table(inputs: Inputs) -> pd.DataFrame:
    """Per network and validated step: score and loss on the validation split, training loss; means of the seeds."""
    parts = []
    for run in inputs.trainings:
        score = validation_score(run.history)
        title = inputs.titles[run.architecture]
        network = title if score == _USUAL_SCORE else f"{title} ({score.removeprefix('val_').upper()})"
        history = run.history.dropna(subset=[score])
        columns = {
            "step": "step",
            score: "score",
            "val_loss": "validation_loss",
            "train_loss": "training_loss",
        }
        parts.append(history[list(columns)].rename(columns=columns).assign(network=network))
    return pd.concat(parts).groupby(["network", "step"], sort=False, as_index=False).mean()


def confusion_table(inputs: Inputs) -> pd.DataFrame:
    """Per network, true and predicted class: pixels of all seeds, and their share of the true class, 0 to 1."""
    parts = []
    for architecture, title in inputs.titles.items():
        matrices = [run.confusion for run in inputs.runs if run.architecture == architecture]
        total = sum(matrix.to_numpy() for matrix in matrices)
        shares = total / np.maximum(total.sum(axis=1, keepdims=True), 1)
        classes = list(matrices[0].columns)
        parts += [
            (title, truth, predicted, total[i, j], shares[i, j])
            for i, truth in enumerate(classes)
            for j, predicted in enumerate(classes)
        ]
    return pd.DataFrame(parts, columns=["network", "truth", "predicted", "pixels", "share"])


def calibration_table(inputs: Inputs) -> pd.DataFrame:
    """Per network and bin of confidence: mean confidence, accuracy and pixels; of the first seed, as in the report."""
    parts = []
    for architecture, run in inputs.first_runs.items():
        table = pd.DataFrame({key: run.calibration[key] for key in ("confidence", "accuracy", "count")})
        parts.append(table[table["count"] > 0].assign(network=inputs.titles[architecture]))
    # last, so that a network has the same colour in all plots
    perfect = {"network": "perfect calibration", "confidence": [0.0, 1.0], "accuracy": [0.0, 1.0]}
    parts.append(pd.DataFrame(perfect))
    joined = pd.concat(parts).rename(columns={"count": "pixels"})
    return joined[["network", "confidence", "accuracy", "pixels"]].astype({"pixels": "Int64"})
