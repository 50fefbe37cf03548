"""Scores of a finished evaluation, from its tables."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from segcore.files import read_json
from segcore.metrics.scores import scores
from tasks.project import stage_name


def evaluation_scores(folder: Path, foreground: Sequence[int]) -> dict[str, float]:
    """Scores on the test regions by score key; empty if there is no evaluation.

    Args:
        folder: of the evaluation, such as evaluations/unet-0.
        foreground: indices of the foreground classes.

    Raises:
        DataError: there is a table of objects, and no readable summary.json.
    """
    counts, objects, surfaces = (folder / f"{name}.parquet" for name in ("counts", "objects", "surfaces"))
    if not counts.is_file():
        return {}
    table, least = None, 0.0
    if objects.is_file():
        remedy = f"run `dvc repro --force {stage_name('evaluate', folder.name)}`"
        table = pd.read_parquet(objects)
        least = read_json(folder / "summary.json", remedy)["objects"]["score"]
    of_volumes = pd.read_parquet(surfaces) if surfaces.is_file() else None
    return scores(pd.read_parquet(counts), foreground, table, least, of_volumes)
