"""Compare all evaluations: confidence intervals, paired tests, ranks and verdict.

`python -m tasks compare` reads params.yaml, data/prepared and evaluations/<architecture>-<seed>, and writes
comparison/{comparison.json, leaderboard.csv, metrics.json}.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from segcore import params
from segcore.comparison.compare import Contestant, compare
from segcore.comparison.leaderboard import leaderboard, leaderboard_text
from segcore.comparison.results import Comparison
from segcore.constants import IGNORE
from segcore.data.prepared import PreparedData
from segcore.errors import StageError
from segcore.files import atomic_folder, read_json
from segcore.params import Params
from segcore.tables.counts import count, counts_table, require_all
from tasks.console import refuse_as_script, run
from tasks.project import COMPARISON, EVALUATIONS, PARAMS, PREPARED, run_name, stage_name


def read_model(folder: Path, architecture: str, seeds: list[int], test_regions: list[str]) -> Contestant:
    """An architecture's evaluations, one per seed, from `folder`/<architecture>-<seed>.

    Raises:
        StageError: an evaluation is missing.
        DataError: an evaluation lacks a test region, or has a region that is not in the test split.
    """
    tables, summaries = [], []
    for seed in seeds:
        name = run_name(architecture, seed)
        try:
            table = pd.read_parquet(folder / name / "counts.parquet")
            stage = stage_name("evaluate", name)
            remedy = f"restore it with `dvc checkout {stage}`, or run `dvc repro --force {stage}`"
            summaries.append(read_json(folder / name / "summary.json", remedy))
        except FileNotFoundError as error:
            missing = Path(error.filename or folder / name)
            raise StageError(
                f"{folder / name}: no {missing.name}, the evaluation of {architecture} with seed {seed}",
                f"run `dvc repro {stage_name('evaluate', name)}` first, or remove it from params.yaml",
            ) from error
        require_all(table, test_regions)
        tables.append(table)
    return Contestant(architecture, summaries[0]["title"], "model", tables, summaries)


def score_baseline(
    prepared: PreparedData, name: str, test: pd.DataFrame, boundary_tolerance: int
) -> Contestant:
    """Score another annotator of the test regions against the same labels as the models.

    Pixels that this annotator left unlabelled are not scored: no class can be assumed for them.
    """
    images = []
    for region, cluster in test[["id", "cluster"]].astype(str).to_numpy():
        other, label = prepared.read_baseline(name, region), prepared.read(region).label
        label = np.where(other == IGNORE, np.uint8(IGNORE), label)
        images.append((region, cluster, count(other, label, len(prepared.classes), boundary_tolerance)))
    title = name.replace("-", " ").replace("_", " ").capitalize()
    return Contestant(name, title, "human", [counts_table(images, prepared.classes)])


def build(root: Path, p: Params) -> Comparison:
    """Compare the evaluations of the project in `root`.

    Raises:
        StageError: an evaluation is missing.
        DataError: an evaluation is incomplete, or there are no prepared data.
    """
    prepared = PreparedData(root / PREPARED)
    test = prepared.regions[prepared.regions["split"] == "test"]
    models = [read_model(root / EVALUATIONS, name, p.seeds, test["id"].tolist()) for name in p.architectures]
    humans = [
        score_baseline(prepared, name, test, p.evaluate.boundary_tolerance) for name in prepared.baselines
    ]
    cluster_kind = "block" if (prepared.regions["id"] != prepared.regions["item"]).any() else "group"
    return compare([*models, *humans], p, cluster_kind)


def write(comparison: Comparison, folder: Path) -> None:
    """Write comparison.json, leaderboard.csv (one row per contestant) and metrics.json (for DVC), all or none."""
    metrics = {
        row.architecture: {key: score.estimate for key, score in row.scores.items()}
        for row in comparison.models
    }
    with atomic_folder(folder) as target:
        for name, content in (("comparison.json", comparison.to_json()), ("metrics.json", metrics)):
            text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
            (target / name).write_text(text + "\n", encoding="utf-8")
        table = pd.DataFrame(leaderboard(comparison).records(intervals=True)).astype({"rank": "Int64"})
        table.to_csv(target / "leaderboard.csv", index=False, lineterminator="\n")


def _compare_here(_: argparse.Namespace) -> None:
    """Compare the architectures and seeds of params.yaml in the current folder."""
    root = Path()
    comparison = build(root, params.load(root / PARAMS))
    write(comparison, root / COMPARISON)
    print(leaderboard_text(comparison))


def main() -> None:
    """Command line."""
    run(_compare_here, argparse.ArgumentParser(prog="python -m tasks compare", description=__doc__))


refuse_as_script(__name__)
