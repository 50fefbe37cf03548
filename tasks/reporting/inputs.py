"""Inputs of the report, read and checked once; code version, data version and machine."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from PIL import Image

from segcore.comparison.folds import pooled, rounds
from segcore.comparison.results import Comparison, read_comparison
from segcore.constants import IGNORE
from segcore.cpu import processor
from segcore.errors import StageError
from segcore.files import cached_json, read_json
from segcore.latency import threads_text
from segcore.names import is_ensemble
from segcore.params import Params
from segcore.plots.gallery import Case, image_iou, pick_cases, pixel_iou
from segcore.plots.overlays import brightened
from segcore.plots.pictures import to_rgb
from tasks.costs import combined, read_cost
from tasks.project import (
    INGESTED,
    comparison_file,
    evaluation_folder,
    model_folder,
    run_name,
    stage_name,
)
from tasks.reporting.age import state_of
from tasks.reporting.calibration import pooled_calibration
from tasks.versioning import git
from tasks.versioning.reproduction import lacking, outdated, uses_remote
from tasks.versioning.stages import data_version


@dataclass(frozen=True)
class TrainedRun:
    """Results of one architecture trained with one seed; `objects` is None for data without objects.

    `predictions` are folders: one, or one per fold where the results of a round of folds are pooled (`pooled_runs`).
    `settings` are the network's keywords as in model.json; empty where the bundle is not here.
    """

    architecture: str
    seed: int
    summary: Mapping[str, Any]
    calibration: Mapping[str, Any]
    confusion: pd.DataFrame
    counts: pd.DataFrame
    history: pd.DataFrame
    cost: dict[str, Any] | None
    predictions: Sequence[Path]
    objects: pd.DataFrame | None
    settings: Mapping[str, Any]

    @property
    def predicted(self) -> dict[str, Path]:
        """Files of the kept predictions by region."""
        return {path.stem: path for folder in self.predictions for path in folder.glob("*.png")}

    @property
    def name(self) -> str:
        """Name of its folders."""
        return run_name(self.architecture, self.seed)


@dataclass(frozen=True)
class Inputs:
    """Inputs of the report; `prepared` has the interface of segcore.data.prepared.PreparedData."""

    params: Params
    comparison: Comparison
    runs: list[TrainedRun]
    prepared: Any
    catalog: pd.DataFrame | None
    facts: Mapping[str, Any]

    @property
    def titles(self) -> dict[str, str]:
        """Architecture -> printed name, in leaderboard order."""
        return {row.architecture: row.title for row in self.comparison.models}

    @property
    def column_titles(self) -> dict[str, str]:
        """Printed names of all rows of the leaderboard, including human annotators."""
        return self.comparison.titles

    @cached_property
    def first_runs(self) -> dict[str, TrainedRun]:
        """Run of the first seed of each architecture, in leaderboard order; with folds, the first round, pooled."""
        first = rounds(self.comparison.seeds, self.comparison.folds)[0]
        return {
            name: pooled_runs([run for run in self.runs if run.architecture == name and run.seed in first])
            for name in self.titles
        }

    @property
    def trainings(self) -> list[TrainedRun]:
        """Runs that have a learning curve: all but ensembles, which are not trained."""
        return [run for run in self.runs if not is_ensemble(run.architecture)]

    @property
    def costs(self) -> dict[str, dict[str, Any] | None]:
        """Costs of each architecture: as of `tasks.costs.combined`; None if no seed was measured."""
        return combined({n: [r.cost for r in self.runs if r.architecture == n] for n in self.titles})


def _require(path: Path, stage: str) -> Path:
    if not path.exists():
        raise StageError(f"{path}: is missing; the report needs it", f"run `dvc repro {stage}` first")
    return path


def _json(path: Path, stage: str) -> Any:
    return read_json(
        _require(path, stage), f"restore it with `dvc checkout {stage}`, or run `dvc repro --force {stage}`"
    )


def _read_run(root: Path, architecture: str, seed: int) -> TrainedRun:
    name = run_name(architecture, seed)
    folder, stage = evaluation_folder(name, root), stage_name("evaluate", name)
    history = _require(model_folder(name, root) / "history.csv", stage_name("train", name))
    summary = _json(folder / "summary.json", stage)
    objects = pd.read_parquet(_require(folder / "objects.parquet", stage)) if "objects" in summary else None
    return TrainedRun(
        architecture=architecture,
        seed=seed,
        summary=summary,
        calibration=_json(folder / "calibration.json", stage),
        confusion=pd.read_csv(_require(folder / "confusion.csv", stage), index_col="truth"),
        counts=pd.read_parquet(_require(folder / "counts.parquet", stage)),
        history=pd.read_csv(history),
        cost=read_cost(root, name),
        predictions=[folder / "predictions"],
        objects=objects,
        settings=_model(root, name).get("settings", {}),
    )


def pooled_runs(runs: Sequence[TrainedRun]) -> TrainedRun:
    """The results of a round of folds as those of one run on all test images; a single run stays as it is.

    Network, history and costs are those of the first.
    """
    first = runs[0]
    if len(runs) == 1:
        return first
    tables = [run.objects for run in runs if run.objects is not None]
    summary = dict(first.summary)
    if tables:
        scores = {item: run.summary["objects"]["score"] for run in runs for item in run.counts["item"]}
        summary["objects"] = {**first.summary["objects"], "score": scores}
    return replace(
        first,
        summary=summary,
        calibration=pooled_calibration([run.calibration for run in runs]),
        confusion=sum((run.confusion for run in runs[1:]), first.confusion),
        counts=pooled([run.counts for run in runs]),
        predictions=[folder for run in runs for folder in run.predictions],
        objects=pooled(tables) if tables else None,
    )


def read_inputs(root: Path, params: Params, prepared: Any) -> Inputs:
    """Read the outputs of the earlier stages in the project folder `root`.

    Raises:
        StageError: a stage's output is missing; the remedy names the stage.
    """
    comparison = read_comparison(_require(root / comparison_file(), "compare"))
    names = [row.architecture for row in comparison.models]
    catalog = root / INGESTED / "catalog.parquet"
    revision, dirty = git.state(root)
    weights = {
        run_name(name, seed): _weights(root, run_name(name, seed))
        for name in names
        for seed in _seeds(name, comparison)
    }
    return Inputs(
        params=params,
        comparison=comparison,
        runs=[_read_run(root, name, seed) for name in names for seed in _seeds(name, comparison)],
        prepared=prepared,
        catalog=pd.read_parquet(catalog) if catalog.exists() else None,
        facts={
            "code": {"revision": revision, "dirty": dirty},
            "data": data_version(root),
            "machine": machine_facts(),
            "outdated": outdated(params, root),
            "lacking": lacking(params, root),
            "remote": uses_remote(params, root),
            "weights": {name: sha for name, sha in weights.items() if sha},
            "state": state_of(root, params.data.name),
            "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        },
    )


def _seeds(name: str, comparison: Comparison) -> list[int]:
    """Seeds of an architecture; of an ensemble, which has none, the first alone."""
    return comparison.seeds[:1] if is_ensemble(name) else comparison.seeds


def _weights(root: Path, name: str) -> str | None:
    """The sha256 of a bundle's weights; None where the bundle is not here."""
    return _model(root, name).get("weights_sha256")


def _model(root: Path, name: str) -> dict[str, Any]:
    """Content of a bundle's model.json; empty where the bundle is not here."""
    return cached_json(model_folder(name, root) / "model.json") or {}


def machine_facts() -> dict[str, str]:
    """Facts about this machine that affect speed and numbers; neither its name nor a path."""
    # imported late: it takes a second that most tests of the page do not need
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cores, threads = psutil.cpu_count(logical=False), psutil.cpu_count()
    return {
        "Processor": f"{processor()}, {cores or threads} cores, {threads_text(threads or 1)}",
        "Memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "Graphics": ", ".join(gpus) or "none",
        "PyTorch": torch.__version__,
        "Python": platform.python_version(),
        "System": f"{platform.system()} {platform.machine()}",
    }


def _prediction(run: TrainedRun, item: str) -> np.ndarray:
    with Image.open(run.predicted[item]) as picture:
        return np.array(picture)


def gallery_cases(inputs: Inputs) -> list[Case]:
    """Best, typical and worst test images with foreground, by mean IoU of the architectures.

    Human annotators of the same images are shown next to the architectures, but do not affect the choice.
    """
    runs = inputs.first_runs
    scores = {name: image_iou(run.counts, inputs.params.data.foreground) for name, run in runs.items()}
    kept = [set(run.predicted) for run in runs.values()]
    mean = pd.DataFrame(scores).mean(axis=1)
    mean = mean[mean.index.isin(set.intersection(*kept))]
    cases = []
    for kind, item in pick_cases(mean, inputs.params.report.cases):
        patch = inputs.prepared.read(item)
        predictions = {name: _prediction(run, item) for name, run in runs.items()}
        iou = {name: float(scores[name][item]) for name in runs}
        for name in [name for name in inputs.prepared.baselines if name in inputs.column_titles]:
            labels = inputs.prepared.read_baseline(name, item)
            # as the comparison counts unlabelled pixels
            predictions[name] = np.where(labels == IGNORE, 0, labels)
            iou[name] = pixel_iou(patch.label, predictions[name], patch.valid, inputs.params.data.foreground)
        # dark images are brightened as in the gallery of objects; pages of data without objects stay as they were
        image = patch.image
        if inputs.comparison.objects is not None:
            image = brightened(to_rgb(image, patch.valid), patch.valid)
        cases.append(Case(item, kind, image, patch.label, patch.valid, predictions, iou))
    return cases
