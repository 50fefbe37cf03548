"""Scores of an evaluation as metrics of an MLflow run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from segcore.files import read_json
from segcore.metrics import METRICS
from tasks.project import stage_name
from tasks.tracking.tracker import Run


def flat_key(score: str) -> str:
    """`cost/latency_ms` unchanged, else `test/iou.dataset.building`: MLflow's UI shows one chart section per folder."""
    return score if score.startswith("cost/") else "test/" + score.replace("/", ".")


def log_lacking_scores(
    run: Run, logged: Mapping[str, float], foreground: Sequence[int], folder: Path
) -> None:
    """Log scores that a run lacks: when only metrics are added, DVC restores an evaluation without running it.

    Args:
        run: run of the training.
        logged: its metrics.
        foreground: indices of the foreground classes.
        folder: of the evaluation.
    """
    counts, objects, surfaces = (folder / f"{name}.parquet" for name in ("counts", "objects", "surfaces"))
    known = [
        name
        for name, metric in METRICS.items()
        if all((folder / f"{table}.parquet").is_file() for table in metric.tables)
    ]
    complete = all(any(key.startswith(f"test/{name}.") for key in logged) for name in known)
    if complete or not counts.is_file():
        return
    import pandas as pd

    from segcore.metrics.scores import scores

    table, score = None, 0.0
    if objects.is_file():
        remedy = f"run `dvc repro --force {stage_name('evaluate', folder.name)}`"
        table = pd.read_parquet(objects)
        score = read_json(folder / "summary.json", remedy)["objects"]["score"]
    of_volumes = pd.read_parquet(surfaces) if surfaces.is_file() else None
    found = scores(pd.read_parquet(counts), foreground, table, score, of_volumes)
    run.log_step({key: value for name, value in found.items() if (key := flat_key(name)) not in logged})
