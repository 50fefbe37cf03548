"""Train one architecture with one seed.

`python -m tasks train unet 0` reads data/prepared/ and `train` of params.yaml, and writes models/unet-0/. A killed
training resumes from its last checkpoint, which is in work/checkpoints/ because DVC would remove it elsewhere.

`torchrun --nproc-per-node 2 -m tasks train unet 0` distributes one training over processes; so does the plain command
with SEGFLOW_PROCESSES=2, on this machine. Only the first process writes the bundle, checkpoints and the MLflow run.
"""

import json
import os
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm import tqdm

from segcore import params
from segcore.data.prepared import PreparedData, of_seed
from segcore.data.training_images import facts_of_training
from segcore.errors import ParamsError
from segcore.files import atomic_folder, digest, sha256
from segcore.models.base.bundle import save_bundle
from segcore.names import is_ensemble
from segcore.params import Params, TrainSettings
from tasks import console, training_notes
from tasks.costs import merge_cost
from tasks.initial_weights import initial_weights, load_initial_weights, new_model
from tasks.project import CHECKPOINTS, MODELS, PREPARED, START, data_fingerprint, run_name
from tasks.tracking import runs
from tasks.tracking.logged_models import log_model
from tasks.tracking.tracker import Run, Tracker
from tasks.training_time import WHOLE, TrainingTime
from tasks.versioning import stages

if TYPE_CHECKING:
    # torch takes seconds to import; --help and errors in the arguments must not wait for it
    from segcore.inference.device import Precision
    from segcore.models.base.model import SegmentationModel
    from segcore.training.loop import Trained
    from segcore.training.runtime import Runtime


def code_fingerprint() -> str:
    """Hash of all source files of segcore."""
    sources = sorted((Path(__file__).parents[1] / "segcore").rglob("*.py"))
    return digest(*(f"{path.name} {sha256(path)}" for path in sources))


# keys of `data` that define how pixels become model input; segcore/prediction/predictor.py reads scenes with them
_INPUT = {"bands", "grey_to_rgb", "nodata", "scale", "percentiles", "slices", "neighbours", "max_pixels"}
# keys that later versions added, stored where they are set
_ADDED_INPUT = {"pages"}


def _files_of(p: Params) -> set[str]:
    """Keys of `data` that say which files a scene has, only where it has several."""
    if p.data.layout == "nnunet":
        return {"layout"}
    return {"images"} if len(p.data.image_patterns) > 1 else set()


def _facts(p: Params, trained: "Trained", seed: int, data: PreparedData, architecture: str) -> dict[str, Any]:
    import torch
    import torchvision

    from segcore.training.validate import tile_side

    settings = p.for_architecture(architecture)
    dtype = str(data.items["dtype"].iloc[0])
    return {
        "seed": seed,
        **({} if data.fold is None else {"fold": data.fold}),
        "classes": p.data.classes,
        "colors": [list(c) for c in p.data.colors],
        "foreground": p.data.foreground,
        "input": {
            **p.data.model_dump(mode="json", include=_INPUT | _files_of(p)),
            **p.data.model_dump(mode="json", include=_ADDED_INPUT, exclude_defaults=True),
            "dtype": dtype,
        },
        "training_images": facts_of_training(data),
        "tile": tile_side(trained.model, settings.crop),
        "training": trained.facts,
        "parameters": settings.model_dump(mode="json"),
        "versions": {
            "data": data_fingerprint(data.folder),
            "stage": stages.run_key() or "untracked by dvc",
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
    }


def _checkpoints(
    p: Params, settings: TrainSettings, architecture: str, seed: int, prepared: Path, root: Path
) -> Path:
    """Folder of the checkpoints; its name contains a hash of everything that the training depends on."""
    initial = root / START / architecture / "model.json"
    facts = [architecture, seed, p.prepare.window, settings.model_dump(mode="json")]
    identity = json.dumps([*facts, *([sha256(initial)] if initial.is_file() else [])], sort_keys=True)
    # DVC's run key covers exactly the code that the training depends on; without DVC, all of segcore is hashed.
    key = digest(stages.run_key() or code_fingerprint(), identity, data_fingerprint(prepared))[:16]
    return root / CHECKPOINTS / f"{run_name(architecture, seed)}-{key}"


def train(p: Params, architecture: str, seed: int, prepared: Path = PREPARED, root: Path = Path()) -> Path:
    """Train, and write the bundle models/<architecture>-<seed> with its history.csv.

    Args:
        p: parameters.
        architecture: file name in segcore/models without extension.
        seed: of initialisation, crops, augmentation and dropout; with folds, seed s trains fold s mod K.
        prepared: folder of the prepared data.
        root: the project's folder.

    Returns:
        Folder of the bundle.

    Raises:
        ModelError: unknown architecture or weights, or the loss is not finite; DataError: no prepared data;
            ParamsError: models are compared by objects, and the data have none.
    """
    p.require_plan()
    settings, data = p.for_architecture(architecture), of_seed(prepared, seed)
    if problem := p.compare.lacks_objects(data.instances, p.evaluate):
        raise ParamsError(problem, "correct params.yaml and run again")
    # imported late: wrong arguments are reported at once
    from segcore.training import distributed, loop

    model = new_model(p, architecture, data, seed, root)
    settings = load_initial_weights(p, architecture, model, root)
    folder = _checkpoints(p, settings, architecture, seed, data.folder, root)
    folder.mkdir(parents=True, exist_ok=True)
    target = root / MODELS / run_name(architecture, seed)
    if not distributed.accelerator().is_main_process:
        loop.train(model, data, settings, p.prepare.window, seed, folder)
        return target
    start = initial_weights(p, architecture, model, root)
    continued = start is not None and start.startswith("of the champion")
    training_notes.print_notes(p, architecture, model, data, settings, seed, continued=continued)
    with runs.training_run(Tracker.open(p), p, architecture, seed, model.title, data.fold) as run:
        progress = _Progress(run, target.name, model, data, settings)
        trained = loop.train(
            model,
            data,
            settings,
            p.prepare.window,
            seed,
            folder,
            progress.on_step,
            progress.on_validation,
            progress.on_start,
            progress.on_restart,
        )
        progress.bar.close()
        facts = _facts(p, trained, seed, data, architecture)
        facts |= {"initial_weights": start} if start else {}
        facts |= choose_on_validation(
            run, trained.model, trained.facts["precision"], data, settings, target.name
        )
        _save(run, trained, architecture, facts, target, root, progress.time.whole())
    shutil.rmtree(folder)
    return target


def choose_on_validation(
    run: Run,
    model: "SegmentationModel",
    precision: "Precision",
    data: PreparedData,
    settings: TrainSettings,
    name: str,
) -> dict[str, Any]:
    """What is chosen by predictions of the validation split, as entries of model.json, printed and logged.

    `objects`, `calibration` and `postprocess`, as far as the data, the network and the settings have them. A CRF is
    part of the network and stands in its settings.

    Args:
        run: to log to.
        model: on its device.
        precision: of the predictions.
        data: prepared data.
        settings: of the training.
        name: of the bundle.
    """
    from segcore.training import crf_settings, object_settings, postprocess_settings, temperature
    from segcore.training.determinism import Determinism
    from segcore.training.validate import tile_side

    tile, label = tile_side(model, settings.crop), _label(name)
    chosen: dict[str, Any] = {}
    with Determinism(settings.deterministic):
        if settings.postprocess == "crf":
            # first, because it changes the probabilities that the others are chosen by
            crf = crf_settings.choose_crf(model, data, tile, precision)
            if crf is not None:
                console.note(f"{label}: {crf_settings.text(crf, data.foreground)}")
        objects = object_settings.choose_objects(model, data, tile, precision)
        calibration = temperature.fit_temperature(model, data, tile, precision)
        postprocess = None
        if settings.postprocess != "none":
            postprocess = postprocess_settings.choose_postprocess(model, data, tile, precision)
    if objects is not None:
        chosen["objects"] = objects
        console.note(f"{label}: {object_settings.text(objects)}")
        for method, suffix in (("components", ""), ("watershed", "_watershed"), ("network", "")):
            names = ("f1", "precision", "recall", "count_bias") if method in objects else ()
            run.log_step({f"val/object_{name}{suffix}": objects[method][name] for name in names})
    if calibration is not None:
        chosen["calibration"] = calibration
        console.note(f"{label}: {temperature.text(calibration)}")
        run.log_step({f"val/{key}": calibration[key] for key in ("temperature", "ece_before", "ece_after")})
    if postprocess is not None:
        chosen["postprocess"] = postprocess
        console.note(f"{label}: {postprocess_settings.text(postprocess, data.foreground)}")
    return chosen


def _label(name: str) -> str:
    """How lines about a bundle begin."""
    return name if is_ensemble(name) else f"train {name}"


class _Progress:
    """Progress bar, expected time and MLflow run of a training."""

    def __init__(
        self, run: Run, name: str, model: "SegmentationModel", data: PreparedData, settings: TrainSettings
    ) -> None:
        self.run, self.shown, self.score_name = run, dict[str, str](), model.score_name
        self.bar: tqdm[int] = console.progress([], f"train {name}", total=settings.steps, unit="step")
        self.time = TrainingTime(name, model, data, settings, partial(self.bar.write, file=sys.stderr))

    def on_start(self, runtime: "Runtime") -> None:
        self.bar.write(f"train: {runtime.text()}")
        self.time.on_start(runtime)
        self.run.log_params({f"machine.{name}": value for name, value in runtime.as_dict().items()})

    def on_restart(self, line: str) -> None:
        self.bar.write(f"train: {line}")

    def on_step(self, step: int, loss: float) -> None:
        self.bar.update(step - self.bar.n)
        self.bar.set_postfix({"loss": f"{loss:.3f}", **self.shown}, refresh=False)
        self.time.on_step(step)

    def on_validation(self, row: dict[str, Any]) -> None:
        self.time.on_validation()
        named = {"train/loss": "train_loss", "train/learning_rate": "learning_rate"}
        named |= {"val/loss": "val_loss", f"val/{self.score_name}": f"val_{self.score_name}"}
        self.run.log_step({metric: row[column] for metric, column in named.items()}, row["step"])
        score = f"val_{self.score_name}"
        self.shown[score] = f"{row[score]:.3f}"


def _save(
    run: Run,
    trained: "Trained",
    architecture: str,
    facts: dict[str, Any],
    target: Path,
    root: Path,
    seconds: float,
) -> None:
    """Write the bundle with its history, and log both and the training speed; `seconds` are of the whole training."""
    print(f"train: determinism of this run: {trained.facts['determinism']}", flush=True)
    run.tag({"determinism": trained.facts["determinism"]})
    with atomic_folder(target) as part:
        # before model.json, which has its hash
        pd.DataFrame(trained.history).to_csv(part / "history.csv", index=False)
        save_bundle(part, trained.model, architecture, facts)
    from segcore.inference.device import default_device, machine_name

    speed = trained.images / max(trained.seconds, 1e-9)
    cost = {"train_seconds": trained.seconds, "train_images_per_second": speed}
    merge_cost(root, target.name, {**cost, WHOLE: seconds, "train_machine": machine_name(default_device())})
    run.log_step({f"cost/{name}": value for name, value in cost.items()})
    log_model(run, target)


def _divide() -> None:
    """Start the processes and exit, if SEGFLOW_PROCESSES is above 1, and this is not one of them."""
    processes = os.environ.get("SEGFLOW_PROCESSES", "1")
    if processes == "1" or "RANK" in os.environ:
        return
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    launch = ["--standalone", "--nproc-per-node", processes, "-m", "tasks", "train"]
    try:
        torchrun.main([*launch, *sys.argv[1:]])
    except ChildFailedError as error:
        # an error that the process has printed with its remedy, unlike an end by a signal
        if error.get_first_failure()[1].exitcode != 1:
            raise
        sys.exit(1)
    sys.exit(0)


def main() -> None:
    """Command line."""
    _divide()
    parser = console.parse_run(__doc__, "train")
    console.run(lambda a: train(params.load(a.params), a.architecture, a.seed), parser)


console.refuse_as_script(__name__)
