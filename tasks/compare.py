"""Compare all evaluations: confidence intervals, paired tests, ranks and verdict.

`python -m tasks compare` reads params.yaml, data/prepared and evaluations/<architecture>-<seed>, and writes
comparison/{comparison.json, leaderboard.csv, metrics.json}.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from segcore import params
from segcore.comparison import annotators
from segcore.comparison.compare import Contestant, compare
from segcore.comparison.folds import pooled, rounds
from segcore.comparison.leaderboard import leaderboard, leaderboard_text
from segcore.comparison.objects import VOLUME_NOTE
from segcore.comparison.progress import validation_score
from segcore.comparison.results import AnnotatorsSummary, Comparison
from segcore.constants import IGNORE
from segcore.data.annotators import majority
from segcore.data.prepared import PreparedData, test_regions
from segcore.errors import DataError, StageError
from segcore.files import atomic_folder, read_json
from segcore.names import is_ensemble
from segcore.objects.components import components
from segcore.objects.found import from_numbers
from segcore.objects.pairs import pairs
from segcore.params import Params
from segcore.tables.counts import count, counts_table, require_all
from segcore.tables.objects import objects_table, require_images
from segcore.tables.surfaces import Surfaces
from tasks.console import refuse_as_script, run
from tasks.project import COMPARISON, PARAMS, PREPARED, evaluation_folder, model_folder, run_name, stage_name


def read_model(
    root: Path, architecture: str, seeds: Sequence[int], regions: list[str], folds: int | None = None
) -> Contestant:
    """An architecture's evaluations, one per seed, or that of an ensemble, from the project in `root`.

    Those of a round of folds are pooled.

    Raises:
        StageError: an evaluation is missing.
        DataError: an evaluation lacks a test region, or has a region that is not in the test split.
    """
    tables, summaries, objects, surfaces, least = [], [], [], [], []
    for seeds_of_round in rounds(seeds, folds):
        parts = [_read(root, architecture, seed) for seed in seeds_of_round]
        table = pooled([part.counts for part in parts])
        require_all(table, regions)
        tables.append(table)
        summaries += [part.summary for part in parts]
        # an evaluation of an earlier version may have none
        if of_objects := [part.objects for part in parts if part.objects is not None]:
            objects.append(pooled(of_objects))
            require_images(objects[-1], regions)
        if of_surfaces := [part.surfaces for part in parts if part.surfaces is not None]:
            surfaces.append(pooled(of_surfaces))
        scores = ((part.summary.get("objects", {}).get("score", 0.0), part.counts["item"]) for part in parts)
        least.append({item: score for score, items in scores for item in items})
    return Contestant(
        architecture,
        summaries[0]["title"],
        "model",
        tables,
        summaries,
        objects if len(objects) == len(tables) else [],
        surfaces if len(surfaces) == len(tables) else [],
        least=least if folds else (),
    )


class _Part(NamedTuple):
    """The evaluation of a training; None: it has no objects or surfaces."""

    counts: pd.DataFrame
    summary: dict[str, Any]
    objects: pd.DataFrame | None
    surfaces: pd.DataFrame | None


def _read(root: Path, architecture: str, seed: int) -> _Part:
    name = run_name(architecture, seed)
    path = partial(_file_of, evaluation_folder(name, root), architecture, seed)
    counts = pd.read_parquet(path("counts.parquet"))
    stage = stage_name("evaluate", name)
    remedy = f"restore it with `dvc checkout {stage}`, or run `dvc repro --force {stage}`"
    summary = read_json(path("summary.json"), remedy)
    objects = pd.read_parquet(path("objects.parquet")) if "objects" in summary else None
    surfaces = pd.read_parquet(path("surfaces.parquet")) if "surfaces" in summary else None
    return _Part(counts, summary, objects, surfaces)


def _file_of(folder: Path, architecture: str, seed: int, name: str) -> Path:
    """A file of an evaluation.

    Raises:
        StageError: it is missing.
    """
    if not (folder / name).exists():
        raise StageError(
            f"{folder}: no {name}, the evaluation of {architecture} with seed {seed}",
            f"run `dvc repro {stage_name('evaluate', folder.name)}` first, or remove it from params.yaml",
        )
    return folder / name


def _histories(root: Path, architecture: str, seeds: list[int]) -> list[pd.DataFrame]:
    """history.csv of each training; none where a bundle is not here, as in a folder with evaluations only."""
    files = [model_folder(run_name(architecture, seed), root) / "history.csv" for seed in seeds]
    return [_history(file) for file in files] if all(file.exists() for file in files) else []


def _history(file: Path) -> pd.DataFrame:
    """A history.csv.

    Raises:
        DataError: it is damaged.
    """
    try:
        history = pd.read_csv(file)
        return history[["step", validation_score(history)]].astype(float)
    except (ValueError, KeyError, StopIteration) as error:
        stage = stage_name("train", file.parent.name)
        raise DataError(
            f"{file}: is damaged: no table of steps and validation scores",
            f"restore it with `dvc checkout {stage}`",
        ) from error


class _Masks:
    """Scores masks of the test regions against the same labels as the models, and the components of these masks.

    Args:
        prepared: prepared data.
        boundary_tolerance: distance in pixels up to which boundary pixels match.
        with_objects: whether objects are compared; an attribute too.
        surface_tolerance: distance in mm up to which surfaces of annotators match; None: they are not compared.
    """

    def __init__(
        self,
        prepared: PreparedData,
        boundary_tolerance: int,
        with_objects: bool,
        surface_tolerance: float | None = None,
    ) -> None:
        self._prepared, self._tolerance, self.with_objects = prepared, boundary_tolerance, with_objects
        self._surface_tolerance = surface_tolerance
        self._of_item = dict(list(prepared.objects.groupby("item"))) if with_objects else {}

    def annotator(self, name: str) -> Contestant:
        """Another annotator.

        Pixels that this annotator left unlabelled are not scored: no class can be assumed for them.
        """
        title = name.replace("-", " ").replace("_", " ").capitalize()
        return self._contestant(
            name,
            title,
            "human",
            lambda region, _: self._prepared.read_baseline(name, region),
            self._others(name),
        )

    def _others(self, name: str) -> Callable[[str], np.ndarray] | None:
        """Labels by which one of several annotators is scored: the majority of the others; None: the truth."""
        data = self._prepared
        others = [one for one in data.annotators if one != name]
        if not others:
            return None
        return lambda region: majority([data.read_baseline(o, region) for o in others], len(data.classes))

    def pair(self, a: str, b: str) -> pd.DataFrame:
        """Evaluation table of one of several annotators against another."""
        data = self._prepared
        one = self._contestant(
            a, a, "human", lambda region, _: data.read_baseline(a, region), lambda r: data.read_baseline(b, r)
        )
        return one.tables[0]

    def majority(self, annotator: str) -> pd.DataFrame:
        """Evaluation table of the majority of all annotators against one of them."""
        data = self._prepared
        one = self._contestant(
            annotators.MAJORITY,
            annotators.MAJORITY,
            "human",
            lambda region, _: data.read(region).label,
            lambda region: data.read_baseline(annotator, region),
        )
        return one.tables[0]

    def limit(self) -> Contestant:
        """Perfect masks, whose components are the most that a network of classes can reach by components."""
        return self._contestant(
            "components-of-truth", "Perfect mask, components", "limit", lambda _, label: label
        )

    def _contestant(
        self,
        name: str,
        title: str,
        kind: str,
        mask_of: Callable[[str, np.ndarray], np.ndarray],
        label_of: Callable[[str], np.ndarray] | None = None,
    ) -> Contestant:
        """A contestant whose (H, W) classes of a region `mask_of` returns, from its id and its true classes.

        `label_of` returns other labels than the true classes to score it by.
        """
        images, objects, tolerance = [], [], self._surface_tolerance if kind == "human" else None
        surfaces = None if tolerance is None else Surfaces(self._prepared, tolerance)
        for region, cluster in test_regions(self._prepared)[["id", "cluster"]].astype(str).to_numpy():
            label = self._prepared.read(region).label if label_of is None else label_of(region)
            mask = mask_of(region, label)
            label = np.where(mask == IGNORE, np.uint8(IGNORE), label)
            images.append((region, cluster, count(mask, label, len(self._prepared.classes), self._tolerance)))
            if surfaces is not None:
                surfaces.add(region, mask, label)
            if self.with_objects:
                objects.append(self._objects(region, cluster, mask, label))
        tables = [counts_table(images, self._prepared.classes)]
        of_objects = [objects_table(objects)] if self.with_objects else []
        of_volumes = None if surfaces is None else surfaces.table()
        of_surfaces = [] if of_volumes is None else [of_volumes]
        return Contestant(name, title, kind, tables, (), of_objects, of_surfaces)

    def _objects(self, region: str, cluster: str, mask: np.ndarray, label: np.ndarray) -> pd.DataFrame:
        """Rows of the object table of a region; the score of every component is 1."""
        prepared = self._prepared
        numbers = components(mask, prepared.foreground)
        flat = numbers.ravel()
        first = np.unique(flat, return_index=True)[1][int((flat == 0).any()) :]
        found = from_numbers(numbers, mask.ravel()[first], np.ones(len(first)))
        index = self._of_item.get(prepared.region(region)["item"], prepared.objects.iloc[:0])
        compared = pairs(prepared.read_instances(region), label, index, found, self._tolerance)
        scored = int((label != IGNORE).sum())
        image = pd.DataFrame({"pixels": [scored], "ignored_pixels": [label.size - scored]})
        parts = {
            "image": image,
            "truth": compared.truths,
            "prediction": compared.predictions,
            "pair": compared.pairs,
        }
        return objects_table(
            rows.assign(kind=kind, item=region, cluster=cluster) for kind, rows in parts.items()
        )


def build(root: Path, p: Params) -> Comparison:
    """Compare the evaluations of the project in `root`.

    Raises:
        StageError: an evaluation is missing.
        DataError: an evaluation is incomplete, or there are no prepared data.
    """
    prepared = PreparedData(root / PREPARED)
    regions = test_regions(prepared)["id"].tolist()
    models = [
        replace(
            read_model(root, name, p.seeds, regions, prepared.folds),
            histories=_histories(root, name, p.seeds),
        )
        for name in p.architectures
    ]
    models += [read_model(root, name, p.seeds[:1], regions) for name in p.ensembles]
    tolerance = p.evaluate.surface_tolerance if all(model.surfaces for model in models) else None
    with_objects = all(model.objects for model in models)
    masks = _Masks(prepared, p.evaluate.boundary_tolerance, with_objects, tolerance)
    humans = [masks.annotator(name) for name in prepared.baselines]
    # the components of true components are the truth
    limits = [masks.limit()] if masks.with_objects and prepared.truth_of_objects == "given" else []
    cluster_kind = "block" if (prepared.regions["id"] != prepared.regions["item"]).any() else "group"
    comparison = compare([*models, *limits, *humans], p, cluster_kind, prepared.folds)
    if prepared.annotators:
        comparison = replace(comparison, annotators=_annotators(root, p, prepared, masks, comparison))
    if comparison.objects is not None and _has_volumes(prepared):
        return replace(comparison, notes=[*comparison.notes, VOLUME_NOTE])
    return comparison


def _annotators(
    root: Path, p: Params, prepared: PreparedData, masks: _Masks, comparison: Comparison
) -> AnnotatorsSummary:
    """The agreement of the annotators, and the scores of each model against each of them."""
    pairs = {pair: masks.pair(*pair) for pair in annotators.pair_names(prepared.annotators)}
    models = {annotators.MAJORITY: [{name: masks.majority(name) for name in prepared.annotators}]}
    for row in comparison.models:
        name = row.architecture
        seeds, folds = (p.seeds[:1], None) if is_ensemble(name) else (p.seeds, prepared.folds)
        tables = [
            pooled([_against_annotators(root, name, seed) for seed in seeds_of_round])
            for seeds_of_round in rounds(seeds, folds)
        ]
        models[name] = [
            {one: table[table["annotator"] == one] for one in prepared.annotators} for table in tables
        ]
    return annotators.summary(pairs, models, p)


def _against_annotators(root: Path, architecture: str, seed: int) -> pd.DataFrame:
    folder = evaluation_folder(run_name(architecture, seed), root)
    return pd.read_parquet(_file_of(folder, architecture, seed, "annotators.parquet"))


def _has_volumes(prepared: PreparedData) -> bool:
    """Whether a test region is a plane of several."""
    items = prepared.items.loc[test_regions(prepared)["item"]]
    return bool((items["depth"] > 1).any())


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
