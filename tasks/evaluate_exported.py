"""Evaluation of an exported model on all test regions, beside that of the model itself."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from segcore.data.prepared import of_seed
from segcore.export import EAGER, RUNTIMES
from segcore.files import atomic_folder
from segcore.metrics import METRICS, score_title
from segcore.metrics.scores import scores
from segcore.params import Params
from tasks import console
from tasks.bundles import read_local
from tasks.exported import exported_model, folder_of
from tasks.formatting import score
from tasks.project import PREPARED, model_folder
from tasks.tracking.fetch import Found

if TYPE_CHECKING:
    from segcore.models.base.model import SegmentationModel


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
    found = Found(read_local(model_folder(name, root)), None)
    data = of_seed(root / PREPARED, found.bundle.description.get("seed", 0))
    from segcore.evaluation.evaluate import Evaluated, evaluate, fitted
    from segcore.evaluation.objects import find_settings
    from segcore.inference.device import default_device, precision_of
    from segcore.inference.postprocess import Postprocess

    description = found.bundle.description
    postprocess = Postprocess.of(description)
    of_file = exported_model(found, runtime, str(model_folder(name)), root)
    finding = find_settings(description, p.evaluate.objects, data)
    settings, least = fitted(p.evaluate, of_file, description), finding.score if finding else 0.0

    def evaluated(
        model: "SegmentationModel", precision: str, label: str
    ) -> tuple[Evaluated, dict[str, float]]:
        progress = partial(console.progress, label=f"evaluate {name} by {label}")
        made = evaluate(
            model, data, settings, precision, progress=progress, objects=finding, postprocess=postprocess
        )
        return made, scores(made.counts, data.foreground, made.objects, least, made.surfaces)

    target = folder_of(name, runtime, root) / f"evaluation-{runtime}"
    with atomic_folder(target) as part:
        result, by_file = evaluated(of_file, "fp32", runtime)
        result.write(part)
    # not from evaluations/, which may be of earlier weights or settings
    device = default_device()
    precision = precision_of(description, device)
    _, by_model = evaluated(found.bundle.model(device), precision, EAGER)
    _print(p, name, runtime, by_file, by_model)
    print(f"evaluate {name}: {target}", flush=True)
    return target


def _print(p: Params, name: str, runtime: str, by_file: dict[str, float], by_model: dict[str, float]) -> None:
    metric = p.compare.metric if f"{p.compare.metric}/dataset/foreground_mean" in by_file else "iou"
    key, unit = f"{metric}/dataset/foreground_mean", METRICS[metric].unit
    values = f"{score(by_file[key], unit)}, of the model itself {score(by_model[key], unit)}"
    print(f"evaluate {name}: {score_title(key)}: by {RUNTIMES[runtime].title} {values}", flush=True)
