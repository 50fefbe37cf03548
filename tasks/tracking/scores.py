"""Scores of an evaluation as metrics of an MLflow run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from segcore.metrics import METRICS
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
    known = [
        name
        for name, metric in METRICS.items()
        if all((folder / f"{table}.parquet").is_file() for table in metric.tables)
    ]
    if all(any(key.startswith(f"test/{name}.") for key in logged) for name in known):
        return
    # needs pandas
    from tasks.evaluation_scores import evaluation_scores

    found = evaluation_scores(folder, foreground)
    run.log_step({key: value for name, value in found.items() if (key := flat_key(name)) not in logged})
