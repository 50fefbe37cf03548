"""What is logged to MLflow: one run per training, with its evaluation, and one per comparison.

    tracker = Tracker.open(params)
    with training_run(tracker, params, "unet", 0, title="U-Net") as run:
        run.log_step({"train/loss": 0.7, "val/iou": 0.4}, step)
        log_model(run, Path("models/unet-0"))
    log_evaluation(tracker, "unet", 0, {"iou/dataset/building": 0.6}, [figure], {"test_gallery": [prediction]})
    log_comparison(tracker, params, comparison, files=[Path("reports/buildings/index.html")])

Runs are found by `run_key` (tasks/versioning/stages.py). Where DVC restores a training from its cache, the run of
the original training is used, and `log_comparison` only adds tags to it.
"""

import logging
import os
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from segcore.comparison.leaderboard import leaderboard
from segcore.comparison.results import Comparison
from segcore.names import ENSEMBLE, is_ensemble
from segcore.params import Params, architecture_names, flat
from tasks.process_marks import process_mark
from tasks.project import COSTS, WORK, evaluation_folder, run_name, stage_name
from tasks.supervisor import die_with_parent
from tasks.tracking.scores import flat_key, log_lacking_scores
from tasks.tracking.tracker import Run, Tracker, is_running
from tasks.versioning import git, stages

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

# palette of Okabe and Ito, distinguishable with colour blindness
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
_UNTRACKED = "untracked by dvc"
_SAMPLING_SECONDS = 10.0
# artifact folder of a run
_COSTS = "costs"


@contextmanager
def training_run(
    tracker: Tracker, params: Params, architecture: str, seed: int, title: str, fold: int | None = None
) -> Iterator[Run]:
    """The run of one training: FINISHED after the block, FAILED on an error, KILLED on SIGTERM or Ctrl-C.

    A training that resumes from its checkpoint, with the same run_key, continues its run as well.

    Args:
        tracker: tracker of the data set.
        params: all of params.yaml.
        architecture: its name, such as `unet`.
        seed: seed of this training.
        title: the model's title, such as `U-Net`.
        fold: of a cross-validation, a tag and a parameter of the run; None without folds.
    """
    # SIGTERM now raises an exception, so that the run is closed
    die_with_parent()
    key = stages.run_key()
    interrupted = tracker.find(f"tags.run_key = '{key}' and tags.kind = 'training'") if key else []
    interrupted = [r for r in interrupted if r.info.status != "FINISHED" and not is_running(r)]
    stage = stage_name("train", run_name(architecture, seed))
    if interrupted:
        run = Run(tracker.client, interrupted[0].info.run_id)
        tracker.client.update_run(run.id, status="RUNNING")
    else:
        run = tracker.create(f"{title} · seed {seed}", "training", _source(stage))
    settings: dict[str, Any] = {"architecture": architecture, "seed": seed}
    settings |= {} if fold is None else {"fold": fold}
    run.tag({**_origin(key), **settings, "stage": stage, "mlflow.runColor": _color(architecture)})
    run.log_params({**settings, **flat(params.for_architecture(architecture).model_dump())})
    _log_data(run, params, "training")
    monitor = (
        _system_metrics(run, tracker, resumed=bool(interrupted)) if params.tracking.system_metrics else None
    )
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        if monitor:
            monitor.finish()
        tracker.client.set_terminated(run.id, status)


@contextmanager
def ensemble_run(
    tracker: Tracker, params: Params, name: str, title: str, members: Sequence[str]
) -> Iterator[Run]:
    """The run of an ensemble, which is made of trained networks: FINISHED after the block, FAILED on an error.

    Args:
        tracker: tracker of the data set.
        params: all of params.yaml.
        name: of the ensemble, such as `ensemble-unet`.
        title: its title.
        members: names of its networks.
    """
    run = tracker.create(title, "training", _source(_tag(name)))
    run.tag({**_origin(stages.run_key()), "architecture": name, "stage": _tag(name)})
    run.tag({"mlflow.runColor": _COLORS[-1]})
    run.log_params({"architecture": name, "members": ", ".join(members)})
    _log_data(run, params, "validation")
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    finally:
        tracker.client.set_terminated(run.id, status)


def log_evaluation(
    tracker: Tracker,
    architecture: str,
    seed: int,
    scores: Mapping[str, float],
    files: Iterable[Path] = (),
    galleries: Mapping[str, Sequence[Path]] = MappingProxyType({}),
    costs: Path | None = None,
) -> str | None:
    """Add an evaluation to the run of its training: `test/<score key, with dots>`, and `cost/...`.

    Args:
        tracker: tracker of the data set.
        architecture: its name, such as `unet`.
        seed: seed of the training.
        scores: by score key, such as `iou/dataset/building`.
        files: files or folders, logged under `evaluation/`.
        galleries: pictures by name, each logged as an image series.
        costs: file with measurements, for `fetch_costs`.

    Returns:
        The run's id, or None where this store has no run of that training: a line on standard error reports it, and
        nothing is logged.
    """
    name = run_name(architecture, seed)
    training = run_of(tracker, name)
    if training is None:
        _warn(f"no run of {_tag(name)} in {tracker.address}, so its evaluation is not logged")
        return None
    run = Run.of_model(tracker.client, training)
    run.log_step({flat_key(key): value for key, value in scores.items()})
    run.tag({"evaluation_run_key": stages.run_key()})
    for path in files:
        run.log_files(path, "evaluation")
    for name, pictures in galleries.items():
        for step, picture in enumerate(pictures):
            run.log_image(picture, name, step)
    if costs is not None:
        run.log_files(costs, _COSTS)
    return run.id


def log_latencies(tracker: Tracker, costs: Mapping[str, Mapping[str, Any]]) -> None:
    """Log latencies that were measured in turn to the runs of the trainings, so that they can be compared there.

    Args:
        tracker: tracker of the data set.
        costs: figures by name of the bundle; runs that this store does not have are left out.
    """
    for name, cost in costs.items():
        training = run_of(tracker, name)
        if training is not None:
            keys = ("latency_ms", "latency_low_ms", "latency_high_ms", "ms_per_megapixel")
            numbers = {f"cost/{key}": float(cost[key]) for key in keys if key in cost}
            Run.of_model(tracker.client, training).log_step(numbers)


def fetch_costs(tracker: Tracker, architecture: str, seed: int, root: Path = Path()) -> bool:
    """Copy a worker's cost measurements of a bundle to work/costs/ for the report; False where there are none.

    The file name contains the hash of the weights, so the worker's measurement replaces one of this machine.
    """
    training = run_of(tracker, run_name(architecture, seed))
    if training is None:
        return False
    artifacts = tracker.client.list_artifacts(training.info.run_id, _COSTS)
    for artifact in artifacts:
        target = root / COSTS
        target.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=root / WORK) as folder:
            downloaded = tracker.client.download_artifacts(training.info.run_id, artifact.path, folder)
            Path(downloaded).replace(target / Path(artifact.path).name)
    return bool(artifacts)


def log_comparison(
    tracker: Tracker, params: Params, comparison: Comparison, files: Iterable[Path] = ()
) -> str:
    """Log a comparison as a run, and give it and the compared training runs the same value of the tag `comparison`.

    If nothing has changed since the last call, its run is kept and no new one is created. Scores that a training run
    lacks, such as those of a metric added after its evaluation, are logged to it.

    Args:
        tracker: tracker of the data set.
        params: all of params.yaml.
        comparison: result of the stage compare.
        files: files or folders of the report.

    Returns:
        Id of the comparison's run.
    """
    keys = stages.run_keys()
    key = keys.get("report") or keys.get("compare")
    same = f"tags.run_key = '{key}' and tags.kind = 'comparison' and attributes.status = 'FINISHED'"
    earlier = tracker.find(same) if key else []
    names = [run_name(architecture, seed) for architecture, seed in params.runs]
    trainings = {name: run_of(tracker, name, keys) for name in names}
    missing = [_tag(name) for name, run in trainings.items() if run is None]
    if missing:
        _warn(f"no run in {tracker.address} (trained elsewhere, restored by DVC): {', '.join(missing)}")
    if earlier:
        run = Run(tracker.client, earlier[0].info.run_id)
    else:
        run = tracker.create(f"comparison · {tracker.dataset}", "comparison", _source("flows.compare"))
        _log_data(run, params, "evaluation")
        _log_leaderboard(run, comparison)
        for path in files:
            run.log_files(path, "report")
        tracker.client.set_terminated(run.id, "FINISHED")
    mark = (key or run.id)[:12]
    runs_elsewhere = ", ".join(missing) if missing else "none"
    run.tag({**_origin(key), "stage": "compare", "comparison": mark, "runs_elsewhere": runs_elsewhere})
    run.tag({"mlflow.note.content": comparison.verdict, "folds": comparison.folds})
    for name, training in trainings.items():
        if training is not None:
            logged = Run.of_model(tracker.client, training)
            logged.tag({"comparison": mark})
            folder = evaluation_folder(name)
            log_lacking_scores(logged, training.data.metrics, params.data.foreground, folder)
    return run.id


def run_of(tracker: Tracker, name: str, keys: Mapping[str, str] | None = None) -> "MlflowRun | None":
    """The latest run that made the present bundle of this name, such as `unet-0` or `ensemble-unet`.

    Args:
        tracker: tracker of the data set.
        name: of the bundle.
        keys: run keys by stage; None: they are read.
    """
    stage = stage_name("train", name)
    return training_of(tracker, _tag(name), stages.run_key(stage) if keys is None else keys.get(stage))


def _tag(name: str) -> str:
    """What the tag `stage` of a bundle's run says; one stage makes all ensembles."""
    return f"{ENSEMBLE}@{name}" if is_ensemble(name) else stage_name("train", name)


def training_of(tracker: Tracker, stage: str, key: str | None) -> "MlflowRun | None":
    """The latest run that trained the present result of a stage; finished runs take precedence.

    Args:
        tracker: tracker of the data set.
        stage: such as `train@unet-0`.
        key: run key of the stage (tasks/versioning/stages.py); None where DVC has no record of it.
    """
    has_key = f"tags.run_key = '{key or _UNTRACKED}'"
    runs = tracker.find(f"{has_key} and tags.kind = 'training' and tags.stage = '{stage}'")
    finished = [run for run in runs if run.info.status == "FINISHED"]
    return next(iter(finished or runs), None)


def _source(name: str) -> dict[str, str]:
    return {"mlflow.source.name": name, "mlflow.source.type": "LOCAL"}


def _origin(key: str | None) -> dict[str, object]:
    """Tags for the data, code, flow run and process that a run comes from."""
    revision, dirty = git.state()
    return {
        "run_key": key or _UNTRACKED,
        "data_version": stages.data_version(),
        "git_revision": revision,
        "git_dirty": dirty,
        "mlflow.source.git.commit": revision,
        "dvc_experiment": os.environ.get("DVC_EXP_NAME"),
        "prefect_flow_run_id": os.environ.get("SEGFLOW_FLOW_RUN_ID"),
        "prefect_flow_run_url": os.environ.get("SEGFLOW_FLOW_RUN_URL"),
        "host": socket.gethostname(),
        "process": process_mark(),
    }


def _color(architecture: str) -> str:
    return _COLORS[architecture_names().index(architecture) % len(_COLORS)]


def _log_data(run: Run, params: Params, context: str) -> None:
    """Name the prepared data as the dataset of a run; `context` is what the run uses it for."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.entities import Dataset, DatasetInput, InputTag

    version = stages.data_version()
    if version is None:
        return
    source = CodeDatasetSource({"path": "data/prepared", "dvc_md5": version, "source": params.data.source})
    dataset = Dataset(params.data.name, version[:12], "code", source.to_json())
    run.client.log_inputs(run.id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])


def _log_leaderboard(run: Run, comparison: Comparison) -> None:
    records = leaderboard(comparison).records()
    if records:
        columns = {key: [record[key] for record in records] for key in records[0]}
        run.client.log_table(run.id, columns, "leaderboard.json")
    headline = comparison.headline
    name = headline.replace("/", ".")
    rows = [r for r in comparison.leaderboard if headline in r.scores and r.kind != "limit"]
    scores = {r.architecture: r.scores[headline] for r in rows}
    run.log_step({f"leaderboard/{name} {key}": score.estimate for key, score in scores.items()})


def _system_metrics(run: Run, tracker: Tracker, resumed: bool) -> Any:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    # at its usual level it logs four lines per training
    logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)
    monitor = SystemMetricsMonitor(
        run.id, _SAMPLING_SECONDS, resume_logging=resumed, tracking_uri=tracker.address
    )
    monitor.start()
    return monitor


def _warn(line: str) -> None:
    print(f"tracking: {line}", file=sys.stderr)
