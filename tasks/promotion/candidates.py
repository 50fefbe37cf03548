"""What the gate is given: challengers and champion, scored on the same test regions and measured on this machine."""

import copy
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from segcore.cache import CODE, Cache, code_digest
from segcore.data.prepared import PreparedData, test_regions
from segcore.errors import StageError
from segcore.files import atomic_write, sha256
from segcore.gate_rules import Costs
from segcore.models.base.bundle import load_bundle, load_description
from segcore.promotion.drift import expected_calibration_error
from segcore.tables.counts import require_all
from tasks import console
from tasks.measure import measure
from tasks.project import CHAMPIONS, EVALUATIONS, GATE_COSTS, MODELS, run_name, stage_name
from tasks.promotion.context import PromotionContext
from tasks.tracking.registry import Registry

_FILES = ("model.json", "model.safetensors")


@dataclass(frozen=True)
class Model:
    """A bundle with its evaluation table of all present test regions."""

    folder: Path
    description: Mapping[str, Any]
    counts: pd.DataFrame
    validation: float
    calibrations: Mapping[str, Mapping[str, Any]]  # by batch; empty for challengers

    @property
    def architecture(self) -> str:
        return str(self.description["architecture"])

    @property
    def seed(self) -> int:
        return int(self.description["seed"])

    @property
    def title(self) -> str:
        return str(self.description["title"])

    @property
    def weights(self) -> str:
        return str(self.description["weights_sha256"])

    @property
    def size_mb(self) -> float:
        """Of the files that prediction needs."""
        return sum((self.folder / name).stat().st_size for name in _FILES) / 2**20


def validation_score(folder: Path) -> float:
    """Best foreground IoU on the validation split, in [0, 1], of history.csv beside a bundle.

    Raises:
        StageError: there is no history.
    """
    path = folder / "history.csv"
    if not path.exists():
        raise StageError(
            f"{path}: is missing, and says how a seed did on validation",
            f"run `dvc repro {stage_name('train', folder.name)}`",
        )
    return float(pd.read_csv(path)["val_iou"].max())


def challengers(context: PromotionContext) -> list[Model]:
    """Of each architecture the seed of the best validation score: the test set has no say in the choice.

    Raises:
        StageError: a bundle, its history or its evaluation is missing.
        DataError: an evaluation is of other test regions.
    """
    p, root, chosen = context.params, context.root, []
    for architecture in p.architectures:
        folders = [root / MODELS / run_name(architecture, seed) for seed in p.seeds]
        best = max(folders, key=validation_score)  # the first of equals
        path = root / EVALUATIONS / best.name / "counts.parquet"
        if not path.exists():
            raise StageError(
                f"{path}: is missing", f"run `dvc repro {stage_name('evaluate', best.name)}` first"
            )
        counts = pd.read_parquet(path)
        require_all(counts, test_regions(context.data)["id"])
        chosen.append(Model(best, load_description(best), counts, validation_score(best), {}))
    return chosen


def fetch_champion(registry: Registry, version: int, root: Path = Path()) -> Path:
    """The bundle of a registered version, verified; fetched where it is not here yet.

    Raises:
        ModelError, StageError: as `Registry.fetch`.
    """
    return registry.fetch(version, root / CHAMPIONS / str(version))


def champion(context: PromotionContext, version: int) -> Model:
    """A registered version, fetched, verified and evaluated on the present test regions; all of it is kept.

    Raises:
        ModelError: its bundle is damaged, or not the one that was registered.
        StageError: it cannot be fetched, or knows other classes or bands than the data.
    """
    data, folder = context.data, fetch_champion(context.registry, version, context.root)
    description = load_description(folder)
    for what, own, asked in (
        ("classes", description["classes"], data.classes),
        ("number of channels", description["in_channels"], data.channels),
    ):
        if own != asked:
            raise StageError(
                f"champion version {version}: its {what} ({own}) differ from those of the data ({asked})",
                "give the new task a data.name of its own in params.yaml, which begins a registry of its own",
            )
    counts, calibrations = _evaluated(context, folder, description)
    history = folder / "history.csv"
    return Model(
        folder, description, counts, validation_score(folder) if history.exists() else 0.0, calibrations
    )


def _evaluated(
    context: PromotionContext, folder: Path, description: dict[str, Any]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Counts of all test regions, calibration curves by batch; computed once for the same data, settings and code."""
    from segcore.evaluation.evaluate import evaluate  # torch, which a rollback does not wait for
    from segcore.inference.device import choose_precision, default_device
    from segcore.models.base.factory import defaults

    p, data = context.params, context.data
    architecture = description["architecture"]
    # raises a ModelError where the champion's architecture is no longer there
    defaults(architecture)
    precision = choose_precision(description["parameters"]["precision"], default_device())
    code = code_digest(*CODE["ingest"], *CODE["evaluate"], f"models/{architecture}.py")
    facts = [
        description["weights_sha256"],
        context.data_hash,
        p.evaluate.model_dump_json(),
        precision,
    ]
    cache = Cache(folder / "evaluation", *facts, code, sha256(__file__))
    # written last
    curves_file = cache.folder / "calibration.json"
    if not curves_file.exists():
        model = load_bundle(folder, default_device(), description)
        tables, curves = [], {}
        for batch, part in _by_batch(data):
            found = evaluate(model, part, p.evaluate, precision, progress=_bar(f"champion, batch {batch}"))
            tables.append(found.counts)
            curves[batch] = found.calibration
        cache.start()
        with atomic_write(cache.folder / "counts.parquet") as written:
            pd.concat(tables, ignore_index=True).to_parquet(written, index=False)
        with atomic_write(curves_file) as written:
            written.write_text(json.dumps(curves) + "\n")
    counts = pd.read_parquet(cache.folder / "counts.parquet")
    require_all(counts, test_regions(data)["id"])
    return counts, json.loads(curves_file.read_text())


def _bar(label: str) -> Callable[[list[Any]], Iterable[Any]]:
    return lambda rows: console.progress(rows, label)


def batches(data: PreparedData) -> pd.Series:
    """Batch of each test region, by the region's id."""
    regions = test_regions(data)
    return pd.Series(
        regions["item"].map(data.items["batch"]).astype(str).to_numpy(), regions["id"].to_numpy()
    )


def _by_batch(data: PreparedData) -> list[tuple[str, PreparedData]]:
    """The data with the test regions of one batch alone, for each batch."""
    regions, of = test_regions(data), batches(data)
    parts = []
    for batch in sorted(of.unique()):
        part = copy.copy(data)
        part.regions = regions[regions["id"].map(of) == batch]
        parts.append((str(batch), part))
    return parts


def split(counts: pd.DataFrame, data: PreparedData, batch: str | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(frozen test set, new batch) of an evaluation table.

    Where no test region is of another batch, there is nothing from before: all of them are the frozen test set.
    """
    new = counts["item"].map(batches(data)) == batch
    if batch is None or new.all():
        return counts, counts.iloc[:0]
    return counts[~new], counts[new]


def calibration_errors(model: Model, batch: str | None) -> dict[str, float | None]:
    """Expected calibration error in [0, 1] on the frozen test set and on the new batch; None without pixels."""
    curves = model.calibrations
    before = [curve for name, curve in curves.items() if name != batch]
    new = [curve for name, curve in curves.items() if name == batch and before]
    return {
        "frozen": expected_calibration_error(before or curves.values()),
        "new": expected_calibration_error(new),
    }


def costs(context: PromotionContext, models: Sequence[Model]) -> list[Costs]:
    """Latency, memory and size of each bundle; measured once for the same bundles, tile, code and machine.

    Memory is measured for each alone, latency in turns. Other programs that compute meanwhile make both worse.
    """
    import torch

    from segcore.inference.device import default_device

    p, root = context.params, context.root
    machine = f"{default_device()} {torch.get_num_threads()}"
    how = (p.evaluate.tile, p.evaluate.flips)
    code = code_digest(*CODE["speed"], *(f"models/{m.architecture}.py" for m in models))
    cache = Cache(root / GATE_COSTS, json.dumps(how), machine, code, *(m.weights for m in models))
    path = cache.folder / "costs.json"
    if not path.exists():
        alone = [measure([m.folder], *how)[0] for m in console.progress(list(models), "measure memory")]
        print("promote: measuring latency, the models in turn", flush=True)
        timed = measure([m.folder for m in models], *how) if len(models) > 1 else alone
        found = [t | {"peak_memory_mb": a["peak_memory_mb"]} for t, a in zip(timed, alone, strict=True)]
        cache.start()
        with atomic_write(path) as part:
            part.write_text(json.dumps(found, indent=2) + "\n")
    measured = json.loads(path.read_text())
    return [
        Costs(f["latency_ms"], f["peak_memory_mb"], m.size_mb) for f, m in zip(measured, models, strict=True)
    ]
