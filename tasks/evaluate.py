"""Score one trained model on the test regions at full resolution.

`python -m tasks evaluate unet 0` reads models/unet-0/ and data/prepared/ and writes evaluations/unet-0/. Latency and
memory depend on the machine and are written to work/costs/, so that dvc.lock is the same everywhere.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd

from segcore import params
from segcore.data.prepared import PreparedData, of_seed, test_regions
from segcore.errors import DataError
from segcore.files import atomic_folder, digest
from segcore.metrics.scores import scores
from segcore.models.base.bundle import Bundle
from segcore.models.base.description import values_of
from segcore.names import is_ensemble
from segcore.params import Evaluate, Params
from segcore.prediction.writers.nifti import stack_predictions, write_prediction
from segcore.tables.counts import count, counts_table
from tasks import console
from tasks.bundles import read_local
from tasks.costs import cost_file, merge_cost
from tasks.evaluate_exported import evaluate_exported
from tasks.exported import EAGER, add_runtime
from tasks.measure import measure
from tasks.project import PREPARED, evaluation_folder, model_folder, run_name, stage_name
from tasks.tracking import runs
from tasks.tracking.tracker import Tracker

if TYPE_CHECKING:
    # torch takes seconds to import; --help and errors in the arguments must not wait for it
    from segcore.evaluation.evaluate import Evaluated
    from segcore.objects.find import FindSettings
    from segcore.objects.found import Objects

# timed passes over the tile, for memory; latency is measured for the report, all architectures in turn
_ROUNDS = 1
# entries of model.json that are used
_REQUIRED = (
    *("title", "seed", "parameters.precision", "parameters.batch"),
    *("training.steps", "training.best_step", "training.nondeterministic"),
)


def measure_cost(architecture: str, seed: int, settings: Evaluate, root: Path = Path()) -> dict[str, Any]:
    """Measure a bundle's latency and memory on this machine, and write them to work/costs/.

    Measured in a fresh process: in this one, peak memory would include earlier work and depend on forking.

    Raises:
        StageError: the bundle could not be loaded or run.
    """
    folder = model_folder(run_name(architecture, seed), root)
    (cost,) = measure([folder], settings.tile, settings.overlap, settings.flips, _ROUNDS)
    merge_cost(root, folder.name, cost)
    return cost


def _summary(bundle: Bundle, settings: Evaluate, finding: "FindSettings | None") -> dict[str, Any]:
    from segcore.evaluation.complexity import complexity
    from segcore.inference.tta import passes

    d, model, flips = bundle.description, bundle.model(), settings.flips
    cost = complexity(model)
    # summaries of semantic networks have the entries of earlier versions
    own: dict[str, Any] = {}
    if model.kind == "instance" and finding is not None:
        own = {"kind": model.kind, "tile": settings.tile, "overlap": settings.overlap}
        # from which on an object's pixels are of its class
        own |= {"score": finding.score, "macs_with": cost.fixed}
    if is_ensemble(d["architecture"]):
        own |= {"members": [member["run"] for member in d["settings"]["members"]]}
    return {
        "architecture": d["architecture"],
        "title": d["title"],
        "seed": d["seed"],
        **({"fold": d["fold"]} if "fold" in d else {}),
        "parameters": cost.parameters,
        "macs": cost.macs * passes(flips),
        "passes": passes(flips),
        "receptive_field": cost.receptive_field,
        "global_context": cost.global_context,
        "encoder": ", ".join(values_of(d["settings"], "encoder")),
        "weights": ", ".join(values_of(d["settings"], "weights")),
        **({"initial_weights": d["initial_weights"]} if "initial_weights" in d else {}),
        "steps": d["training"]["steps"],
        "best_step": d["training"]["best_step"],
        "nondeterministic": d["training"]["nondeterministic"],
        "determinism": d["training"].get("determinism", "unknown: trained by an older version"),
        "batch": d["parameters"]["batch"],
        "output_stride": model.output_stride,
        **own,
    }


def _of_objects(
    description: dict[str, Any], finding: "FindSettings | None", data: PreparedData, name: str, flips: bool
) -> dict[str, Any]:
    """The entry `objects` of summary.json: how objects are found, and what that gave on the validation split."""
    if finding is None:
        return {}
    # imported late, with torch
    from segcore.evaluation.objects import default_score_text

    facts = description.get("objects", {}).get(finding.method, {})
    if note := default_score_text(description, finding):
        print(f"evaluate {name}: {note}", flush=True)
    chosen = {key: facts.get(key) for key in ("precision", "recall", "count_bias")}
    found = description.get("objects", {})
    f1 = {method: found[method]["f1"] for method in ("components", "watershed", "network") if method in found}
    entry = {"method": finding.method, "score": finding.score, **chosen, "validation": f1}
    # true and predicted numbers of the validation clusters, which were counted without flips
    if "counts" in facts and not flips:
        entry["counts"] = facts["counts"]
    return {"objects": {**entry, "truth": data.truth_of_objects}}


def _write(part: Path, result: "Evaluated", summary: dict[str, Any], classes: list[str]) -> None:
    result.write(part)
    matrix = pd.DataFrame(result.confusion, columns=classes)
    matrix.insert(0, "truth", classes)
    matrix.to_csv(part / "confusion.csv", index=False)
    (part / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")


class _Annotators:
    """Counts predictions against the labels of each annotator, where there are several."""

    def __init__(self, data: PreparedData, tolerance: int) -> None:
        self.data, self.tolerance = data, tolerance
        self.images: dict[str, list[Any]] = {name: [] for name in data.annotators}
        self.clusters = test_regions(data).set_index("id")["cluster"].astype(str)

    def add(self, region: str, prediction: Any) -> None:
        """Add a region, (H, W) uint8."""
        for name, images in self.images.items():
            label = self.data.read_baseline(name, region)
            counted = count(prediction, label, len(self.data.classes), self.tolerance)
            images.append((region, self.clusters[region], counted))

    def write(self, folder: Path) -> None:
        """Write annotators.parquet, the evaluation tables with the column annotator; nothing without annotators."""
        tables = [
            counts_table(images, self.data.classes).assign(annotator=name)
            for name, images in self.images.items()
        ]
        if tables:
            pd.concat(tables, ignore_index=True).to_parquet(folder / "annotators.parquet", index=False)


class _Volumes:
    """Collects the predicted planes of each volume, and writes the volume on its own grid once it is complete."""

    def __init__(self, data: PreparedData, folder: Path) -> None:
        self.data, self.folder = data, folder
        self.planes: dict[str, dict[int, Any]] = {}

    def add(self, region: str, prediction: Any) -> None:
        """Add a plane, (H, W) uint8; other regions are left out, such as blocks of planes."""
        place = self.data.volume_of(region)
        if place is None or prediction.shape != (place[2].height, place[2].width):
            return
        volume, plane, info = place
        planes = self.planes.setdefault(volume, {})
        planes[plane] = prediction
        if len(planes) == info.depth:
            self.folder.mkdir(exist_ok=True)
            write_prediction(self.folder / f"{volume}.nii.gz", stack_predictions(planes, info), info)
            del self.planes[volume]


def _require_fold(description: dict[str, Any], data: PreparedData, folder: Path) -> None:
    """Check that a model was trained on the fold that it is scored on; the test regions of others trained it."""
    if description.get("fold") != data.fold:
        raise DataError(
            f"{folder}: was trained {_of_fold(description.get('fold'))}, but is to be scored {_of_fold(data.fold)}",
            f"train it again: `dvc repro --force {stage_name('train', folder.name)}`",
        )


def _of_fold(fold: int | None) -> str:
    return "without folds" if fold is None else f"on fold {fold}"


def run_evaluation(
    p: Params, architecture: str, seed: int, prepared: Path = PREPARED, root: Path = Path()
) -> Path:
    """Write evaluations/<architecture>-<seed> and add the scores to the training's MLflow run.

    Raises:
        ModelError: no such bundle, or one of an instance network without operating score.
        DataError: no prepared data, a model of another fold, a region without counts, a volume without some planes, or
            an instance network and data without objects.
        ParamsError: flips with a model that was trained without, or that finds objects.
    """
    name = run_name(architecture, seed)
    data, folder = of_seed(prepared, seed), model_folder(name, root)
    bundle = read_local(folder)
    bundle.require(*_REQUIRED)
    description = bundle.description
    _require_fold(description, data, folder)
    # imported late: wrong arguments are reported at once
    from segcore.evaluation.evaluate import evaluate, fitted, save_prediction
    from segcore.evaluation.objects import find_settings, save_objects
    from segcore.inference.device import choose_precision, default_device
    from segcore.inference.postprocess import Postprocess
    from segcore.inference.tta import EVALUATED, require_no_objects, require_trained

    model = bundle.model(default_device())
    if p.evaluate.flips:
        require_trained(description["parameters"], name, EVALUATED)
        require_no_objects(model, EVALUATED)
    finding = find_settings(description, p.evaluate.objects, data)
    settings = fitted(p.evaluate, model, description)
    asked = None if settings.objects == "none" else finding
    summary = _summary(bundle, settings, finding) | _of_objects(
        description, asked, data, name, settings.flips
    )
    postprocess = Postprocess.of(description)
    if processed := _postprocess_text(description, data.classes):
        summary["postprocess"] = processed
        print(f"evaluate {name}: post-processing: {processed}", flush=True)
    # the files of a large model are not held in memory any longer
    del bundle
    precision = choose_precision(description["parameters"]["precision"], default_device())
    ids = sorted(test_regions(data)["id"], key=digest)
    kept = set(ids[: p.evaluate.kept_predictions])
    target = evaluation_folder(name, root)
    with atomic_folder(target) as part:
        (part / "predictions").mkdir()
        volumes = _Volumes(data, part / "volumes")

        annotators = _Annotators(data, p.evaluate.boundary_tolerance)

        def keep(region: str, prediction: Any, objects: "Objects | None") -> None:
            annotators.add(region, prediction)
            if region in kept:
                save_prediction(part / "predictions" / f"{region}.png", prediction, data.colors)
            if region in kept and objects is not None and finding is not None:
                save_objects(part / "predictions" / f"{region}_objects.tif", objects, finding.score)
            volumes.add(region, prediction)

        progress = partial(console.progress, label=f"evaluate {name}")
        temperature = description.get("calibration", {}).get("temperature")
        result = evaluate(
            model,
            data,
            settings,
            precision,
            keep,
            progress,
            finding,
            temperature,
            postprocess=postprocess,
        )
        if result.surfaces is not None:
            summary |= {"surfaces": {"tolerance": p.evaluate.surface_tolerance}}
        _write(part, result, summary, data.classes)
        annotators.write(part)
    score = finding.score if finding else 0.0
    _log(p, architecture, seed, data, result, score, description["title"], root)
    return target


def _postprocess_text(description: dict[str, Any], classes: list[str]) -> str:
    """What a network's class maps are made of after it: its CRF and the steps after that; empty without either."""
    from segcore.inference.postprocess import Postprocess
    from segcore.models.base.crf import Crf

    crf = Crf.of(description.get("settings", {}).get("crf"))
    return "; ".join(filter(None, [crf.text() if crf else "", Postprocess.of(description).text(classes)]))


def _log(
    p: Params,
    architecture: str,
    seed: int,
    data: PreparedData,
    result: "Evaluated",
    score: float,
    title: str,
    root: Path,
) -> None:
    """Measure costs on this machine, and log scores, memory and pictures to the MLflow run of the training.

    Latencies of models that were measured one after the other cannot be compared, so none is logged here. Scores of
    objects count predictions of at least `score`.
    """
    from tasks.tracking.pictures import write_pictures

    print(f"evaluate: measuring latency and memory with tiles of {p.evaluate.tile} pixels", flush=True)
    cost = measure_cost(architecture, seed, p.evaluate, root)
    memory = {"cost/peak_memory_mb": cost["peak_memory_mb"]}
    found = scores(result.counts, data.foreground, result.objects, score, result.surfaces)
    metrics = {**found, **memory, "ece": result.calibration["ece"]}
    if after := result.calibration.get("after_temperature"):
        metrics["ece_after_temperature"] = after["ece"]
    name = run_name(architecture, seed)
    model, evaluation = model_folder(name, root), evaluation_folder(name, root)
    with TemporaryDirectory() as folder:
        pictures = write_pictures(data, model, evaluation, architecture, title, Path(folder), found)
        files = [evaluation, *pictures.charts]
        galleries = {"test_gallery": pictures.gallery, "test_objects": pictures.objects}
        runs.log_evaluation(
            Tracker.open(p), architecture, seed, metrics, files, galleries, cost_file(root, name)
        )


def main() -> None:
    """Command line."""

    def work(a: argparse.Namespace) -> None:
        p = params.load(a.params)
        if a.runtime == EAGER:
            run_evaluation(p, a.architecture, a.seed)
        else:
            evaluate_exported(p, run_name(a.architecture, a.seed), a.runtime)

    parser = console.parse_run(__doc__, "evaluate")
    add_runtime(parser)
    console.run(work, parser)


console.refuse_as_script(__name__)
