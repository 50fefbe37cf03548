"""Tables of an evaluation, and its scores from them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from segcore.files import read_json
from segcore.metrics.scores import scores
from tasks.project import stage_name

if TYPE_CHECKING:
    from segcore.evaluation.evaluate import Evaluated


def write_tables(folder: Path, result: "Evaluated") -> None:
    """Write counts, objects, surfaces and calibration of an evaluation into its folder; objects only if it has them."""
    for name in ("counts", "objects", "surfaces"):
        table = getattr(result, name)
        if table is not None:
            table.to_parquet(folder / f"{name}.parquet", index=False)
    (folder / "calibration.json").write_text(json.dumps(result.calibration, indent=2) + "\n")


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
