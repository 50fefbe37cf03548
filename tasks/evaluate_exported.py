"""Evaluation of an exported model on all test regions, beside that of the model itself."""

import json
from functools import partial
from pathlib import Path

from segcore.data.prepared import PreparedData
from segcore.export import RUNTIMES
from segcore.files import atomic_folder
from segcore.metrics import METRICS, score_title
from segcore.metrics.scores import scores
from segcore.params import Params
from tasks import console
from tasks.bundles import read_local
from tasks.evaluation_scores import evaluation_scores
from tasks.exported import exported_model, folder_of
from tasks.formatting import score
from tasks.project import EVALUATIONS, MODELS, PREPARED
from tasks.tracking.fetch import Found


def evaluate_exported(p: Params, name: str, runtime: str, root: Path = Path()) -> Path:
    """Write the tables of an evaluation into the folder of the exported file, and print scores.

    Args:
        p: parameters; `evaluate` and `compare.metric` are used.
        name: of the model, such as `unet-0`.
        runtime: a key of `RUNTIMES`.
        root: the project's folder.

    Returns:
        The folder, `exports/<name>/<format>/evaluation-<runtime>`.

    Raises:
        ExportError: there is no export of this model, it is damaged, or a package is missing.
        ModelError: no such bundle.
        DataError: no prepared data.
    """
    data = PreparedData(root / PREPARED)
    found = Found(read_local(root / MODELS / name), None)
    from segcore.evaluation.evaluate import evaluate, fitted
    from segcore.evaluation.objects import find_settings

    description = found.bundle.description
    model = exported_model(found, runtime, str(MODELS / name), root)
    finding = find_settings(description, p.evaluate.objects, data)
    settings = fitted(p.evaluate, model, description)
    target = folder_of(name, runtime, root) / f"evaluation-{runtime}"
    with atomic_folder(target) as part:
        progress = partial(console.progress, label=f"evaluate {name}")
        result = evaluate(model, data, settings, "fp32", progress=progress, objects=finding)
        result.counts.to_parquet(part / "counts.parquet", index=False)
        if result.objects is not None:
            result.objects.to_parquet(part / "objects.parquet", index=False)
        if result.surfaces is not None:
            result.surfaces.to_parquet(part / "surfaces.parquet", index=False)
        (part / "calibration.json").write_text(json.dumps(result.calibration, indent=2) + "\n")
    least = finding.score if finding else 0.0
    of_file = scores(result.counts, data.foreground, result.objects, least, result.surfaces)
    _print(p, name, runtime, of_file, evaluation_scores(root / EVALUATIONS / name, data.foreground))
    print(f"evaluate {name}: {target}", flush=True)
    return target


def _print(p: Params, name: str, runtime: str, of_file: dict[str, float], of_model: dict[str, float]) -> None:
    metric = p.compare.metric if f"{p.compare.metric}/dataset/foreground_mean" in of_file else "iou"
    key, unit = f"{metric}/dataset/foreground_mean", METRICS[metric].unit
    beside = f", of the model itself {score(of_model[key], unit)}" if key in of_model else ""
    without = "" if beside else f" (the model itself is not evaluated in {EVALUATIONS / name})"
    title, how = score_title(key), RUNTIMES[runtime].title
    print(f"evaluate {name}: {title}: by {how} {score(of_file[key], unit)}{beside}{without}", flush=True)
