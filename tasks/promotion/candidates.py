"""Candidates of the gate: challengers and champion, scored on the same test regions."""

import copy
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from segcore.cache import CODE, Cache, code_digest
from segcore.data.prepared import PreparedData, test_regions
from segcore.errors import ModelError, StageError
from segcore.files import atomic_write, cached_json, sha256
from segcore.ingest.catalog import FIRST
from segcore.models.base.bundle import Hashes, load_description, read_bundle
from segcore.promotion.drift import expected_calibration_error
from segcore.tables.counts import require_all
from segcore.tables.objects import require_images
from tasks import console
from tasks.bundles import read_history
from tasks.project import CHAMPIONS, evaluation_folder, model_folder, run_name, stage_name
from tasks.promotion.context import PromotionContext
from tasks.tracking.registry import Registry

_FILES = ("model.json", "model.safetensors")


@dataclass(frozen=True)
class Model:
    """A bundle and its evaluation on all present test regions.

    Attributes:
        folder: the bundle's folder.
        description: content of model.json.
        counts: evaluation table.
        validation: best score on the validation split, in [0, 1]: `measure`.
        calibrations: calibration curve of each batch; empty for challengers.
        objects: object table; None where the data have no objects, or `evaluate.objects` is none.
        both_kinds: whether networks of both kinds are compared.
        surfaces: surface table; None where the data have no volumes with a spacing.
    """

    folder: Path
    description: Mapping[str, Any]
    counts: pd.DataFrame
    validation: float
    calibrations: Mapping[str, Mapping[str, Any]]
    objects: pd.DataFrame | None = None
    both_kinds: bool = False
    surfaces: pd.DataFrame | None = None

    @property
    def measure(self) -> str:
        """What `validation` is: foreground IoU, PQ of an instance network, or F1 of objects of both kinds."""
        if self.both_kinds:
            return "F1 of objects"
        return "PQ" if self.kind == "instance" else "IoU"

    @property
    def architecture(self) -> str:
        """Name, such as `unet`."""
        return str(self.description["architecture"])

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return int(self.description["seed"])

    @property
    def title(self) -> str:
        """Title, such as `U-Net`."""
        return str(self.description["title"])

    @property
    def kind(self) -> str:
        """Kind of the network: "semantic" or "instance"."""
        return str(self.description.get("kind", "semantic"))

    @property
    def weights(self) -> str:
        """The sha256 of the weights."""
        return str(self.description["weights_sha256"])

    @property
    def size_mb(self) -> float:
        """Size of the files that prediction needs, in MiB."""
        return sum((self.folder / name).stat().st_size for name in _FILES) / 2**20


def validation_score(folder: Path) -> float:
    """Best score on the validation split, in [0, 1], from history.csv in a bundle's folder; NaN without any.

    It is the foreground IoU, or PQ of an instance network.

    Raises:
        StageError: history.csv is missing.
    """
    path = folder / "history.csv"
    if not path.exists():
        raise StageError(
            f"{path}: is missing, and the best seed is chosen by its validation scores",
            f"run `make run` first, or `dvc repro {stage_name('evaluate', folder.name)}` for this model alone",
        )
    history = pd.read_csv(read_history(folder))
    return float(history["val_pq" if "val_pq" in history else "val_iou"].max())


def _rank(folder: Path) -> float:
    """Validation score for the choice of a seed; a failed training, which has none, comes last."""
    score = validation_score(folder)
    return score if math.isfinite(score) else -math.inf


def challengers(context: PromotionContext) -> list[Model]:
    """For each architecture, the seed with the best validation score, and each ensemble.

    Test scores do not influence the choice.

    Raises:
        StageError: a bundle, its history or its evaluation is missing.
        DataError: the test regions of an evaluation differ from the present ones.
    """
    p, root, chosen = context.params, context.root, []
    for architecture in [*p.architectures, *p.ensembles]:
        folders = [model_folder(run_name(architecture, seed), root) for seed in p.seeds]
        # the first seed where several have the same score
        best = max(folders, key=_rank)
        path = evaluation_folder(best.name, root) / "counts.parquet"
        if not path.exists():
            raise StageError(
                f"{path}: is missing", f"run `dvc repro {stage_name('evaluate', best.name)}` first"
            )
        counts, objects, surfaces = _tables(path.parent, context.data)
        one = Model(best, load_description(best), counts, validation_score(best), {}, objects)
        chosen.append(replace(one, surfaces=surfaces))
    return comparable(chosen, p.evaluate.objects)


def comparable(models: Sequence[Model], method: str) -> list[Model]:
    """Models with validation scores of one measure: F1 of objects if there are networks of both kinds.

    Args:
        models: with the scores by which their steps were chosen.
        method: how objects are found in predictions of semantic networks, as of `evaluate.objects`.
    """
    if len({model.kind for model in models}) < 2:
        return list(models)
    return [
        replace(model, validation=_object_f1(model.description, method), both_kinds=True) for model in models
    ]


def _object_f1(description: Mapping[str, Any], method: str) -> float:
    """F1 of objects on the validation split, from model.json; NaN if it was not measured."""
    objects = description.get("objects", {})
    found = objects.get("network") or objects.get("components" if method == "none" else method, {})
    return float(found.get("f1", math.nan))


def _tables(
    folder: Path, data: PreparedData
) -> tuple[pd.DataFrame, pd.DataFrame | None, pd.DataFrame | None]:
    """Evaluation, object and surface table of an evaluation; None where it has no objects or surfaces.

    Raises:
        DataError: the test regions differ from the present ones.
    """
    ids = test_regions(data)["id"]
    counts = pd.read_parquet(folder / "counts.parquet")
    require_all(counts, ids)
    objects, surfaces = (
        pd.read_parquet(path) if (path := folder / f"{name}.parquet").exists() else None
        for name in ("objects", "surfaces")
    )
    if objects is not None:
        require_images(objects, ids)
    return counts, objects, surfaces


def operating_score(context: PromotionContext, model: Model) -> tuple[float, str]:
    """Least score of a predicted object that counts, and a note if none was chosen on the validation split.

    The score is 0 where the data have no objects.
    """
    # imported here, since a rollback needs neither
    from segcore.evaluation.objects import default_score_text, find_settings

    finding = find_settings(dict(model.description), context.params.evaluate.objects, context.data)
    return finding.score if finding else 0.0, default_score_text(model.description, finding)


def fetch_champion(registry: Registry, version: int, root: Path = Path()) -> Path:
    """Verified bundle of a registered version, downloaded to work/ unless it is there.

    Raises:
        ModelError: as `Registry.fetch`.
    """
    return registry.fetch(version, root / CHAMPIONS / str(version))


def champion(context: PromotionContext, version: int) -> Model:
    """A registered version, evaluated on the present test regions; bundle and evaluation are cached.

    Raises:
        ModelError: its bundle cannot be downloaded, is damaged, or differs from the registered one.
        StageError: its classes or bands differ from those of the data.
    """
    data, folder = context.data, fetch_champion(context.registry, version, context.root)
    description = load_description(folder)
    for what, of_champion, of_data in (
        ("classes", description["classes"], data.classes),
        ("channels", description["in_channels"], data.channels),
    ):
        if of_champion != of_data:
            raise StageError(
                f"champion version {version}: its {what} ({of_champion}) differ from those of the data ({of_data})",
                "set another data.name in params.yaml for the new task; it then has a separate registered model",
            )
    counts, objects, surfaces, calibrations = _evaluated(context, folder, description)
    validation = validation_score(folder) if (folder / "history.csv").exists() else 0.0
    # it decides nothing where there is a champion
    validation = validation if math.isfinite(validation) else 0.0
    return Model(folder, description, counts, validation, calibrations, objects, surfaces=surfaces)


def _evaluated(
    context: PromotionContext, folder: Path, description: dict[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame | None, pd.DataFrame | None, dict[str, Any]]:
    """The tables of all test regions and calibration curves by batch, cached by weights, data, settings and code."""
    # imported here, since a rollback needs no torch
    from segcore.evaluation.evaluate import evaluate, fitted
    from segcore.evaluation.objects import find_settings
    from segcore.inference.device import choose_precision, default_device
    from segcore.inference.postprocess import Postprocess
    from segcore.models.base.factory import architectures_of, defaults

    p, data = context.params, context.data
    architecture = description["architecture"]
    parts = architectures_of(architecture, description.get("settings", {}))
    try:
        for architecture in parts:
            defaults(architecture)
    except ModelError as error:
        raise ModelError(
            f"the champion cannot be compared: {error.what}",
            f"restore segcore/models/{architecture}.py with git, or give another champion the alias in MLflow's UI and "
            "run `make registry OPTIONS=--accept`",
        ) from error
    precision = choose_precision(description["parameters"]["precision"], default_device())
    postprocess = Postprocess.of(description)
    code = code_digest(*CODE["ingest"], *CODE["evaluate"], *(f"models/{part}.py" for part in parts))
    facts = [
        description["weights_sha256"],
        context.data_hash,
        p.evaluate.model_dump_json(),
        precision,
        *([repr(postprocess)] if postprocess.steps else []),
    ]
    cache = Cache(folder / "evaluation", *facts, code, sha256(__file__))
    # written last, so the entry is complete if this file exists
    curves_file = cache.folder / "calibration.json"
    curves: dict[str, Any] | None = cached_json(curves_file)
    if curves is None:
        expected = Hashes(weights=description["weights_sha256"])
        model = read_bundle(folder, expected).model(default_device())
        finding = find_settings(description, p.evaluate.objects, data)
        settings = fitted(p.evaluate, model, description)
        tables, objects, surfaces, curves = [], [], [], {}
        for batch, part in _by_batch(data):
            named = "data.source" if batch == FIRST else f"batch {batch}"
            progress = _bar(f"champion, {named}")
            evaluation = evaluate(
                model,
                part,
                settings,
                precision,
                progress=progress,
                objects=finding,
                postprocess=postprocess,
            )
            tables.append(evaluation.counts)
            objects += [] if evaluation.objects is None else [evaluation.objects]
            surfaces += [] if evaluation.surfaces is None else [evaluation.surfaces]
            curves[batch] = evaluation.calibration
        cache.start()
        for table, frames in (("counts", tables), ("objects", objects), ("surfaces", surfaces)):
            if frames:
                with atomic_write(cache.folder / f"{table}.parquet") as temporary:
                    pd.concat(frames, ignore_index=True).to_parquet(temporary, index=False)
        with atomic_write(curves_file) as temporary:
            temporary.write_text(json.dumps(curves) + "\n")
    return *_tables(cache.folder, data), curves


def _bar(label: str) -> Callable[[list[Any]], Iterable[Any]]:
    return lambda rows: console.progress(rows, label)


def batches(data: PreparedData) -> pd.Series:
    """Batch of each test region, by the region's id."""
    regions = test_regions(data)
    return pd.Series(
        regions["item"].map(data.items["batch"]).astype(str).to_numpy(), regions["id"].to_numpy()
    )


def _by_batch(data: PreparedData) -> list[tuple[str, PreparedData]]:
    """For each batch, its name and the data restricted to its test regions."""
    regions, batch_of = test_regions(data), batches(data)
    parts = []
    for batch in sorted(batch_of.unique()):
        part = copy.copy(data)
        part.regions = regions[regions["id"].map(batch_of) == batch]
        parts.append((str(batch), part))
    return parts


def split(
    counts: pd.DataFrame, data: PreparedData, new_batches: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Divide an evaluation table into (frozen test set, new batches).

    If all test regions are of the new batches, there is no earlier data, and all of them are the frozen test set.
    """
    new = counts["item"].map(batches(data)).isin(new_batches)
    if new.all():
        return counts, counts.iloc[:0]
    return counts[~new], counts[new]


def calibration_errors(model: Model, new_batches: Sequence[str]) -> dict[str, float | None]:
    """Expected calibration error in [0, 1] on the frozen test set and the new batches; None without pixels."""
    curves = model.calibrations
    before = [curve for name, curve in curves.items() if name not in new_batches]
    new = [curve for name, curve in curves.items() if name in new_batches and before]
    return {
        "frozen": expected_calibration_error(before or curves.values()),
        "new": expected_calibration_error(new),
    }
