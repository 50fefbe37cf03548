"""The MLflow store behind tasks/tracking/runs.py: where it is, its upgrade, a run to log to, runs of dead processes."""

import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from segcore.errors import StageError
from segcore.files import locked
from segcore.params import Params

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

DEFAULT_URI = "sqlite:///mlflow.db"  # artifacts beside it in mlruns/
_SQLITE = "sqlite:///"


def uri(params: Params) -> str:
    """Address of the store: the variable MLFLOW_TRACKING_URI, else tracking.uri, else the embedded one.

    A file is named by its whole path, because MLflow keeps one connection an address, whatever folder it was opened in.
    """
    address = os.environ.get("MLFLOW_TRACKING_URI") or params.tracking.uri or DEFAULT_URI
    return (
        _SQLITE + str(Path(address.removeprefix(_SQLITE)).absolute())
        if address.startswith(_SQLITE)
        else address
    )


def file(params: Params) -> Path | None:
    """The embedded store's file; None where the store is a server."""
    address = uri(params)
    return Path(address.removeprefix(_SQLITE)) if address.startswith(_SQLITE) else None


def client(params: Params) -> "MlflowClient":
    """A client of the store, which is brought up to date first.

    Raises:
        StageError: the store cannot be reached or used.
    """
    ensure_store(uri(params))
    return _client(uri(params))


def ensure_store(address: str) -> None:
    """Create or upgrade the store, once for each version of MLflow; safe when several processes call it.

    Processes that open a fresh SQLite store at the same moment crash each other, so one creates it while the
    others wait for its lock.

    Raises:
        StageError: the store cannot be reached or used.
    """
    if not address.startswith(_SQLITE):
        _probe(address)
        return
    file = Path(address.removeprefix(_SQLITE))
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file.with_name(file.name + ".lock")) as stamp:
        if file.exists() and stamp.read_text() == version("mlflow"):
            return
        if file.exists():
            _upgrade(address, file)
        _probe(address)  # creates a fresh store, and the rows that MLflow adds on first use
        stamp.write_text(version("mlflow"))


def _upgrade(address: str, file: Path) -> None:
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", address]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **_quiet()})
    if done.returncode != 0:
        remedy = f"move {file} away to start a new one, or set tracking.uri in params.yaml to another store"
        raise StageError(f"{file}: MLflow cannot use this store:\n{done.stderr.strip()[-2000:]}", remedy)


def preload() -> None:
    """Import what logging to any store needs; nothing is opened."""
    for name, value in _quiet().items():
        os.environ.setdefault(name, value)
    import mlflow.data.code_dataset_source
    import mlflow.store.artifact.local_artifact_repo
    import mlflow.store.tracking.sqlalchemy_store
    import mlflow.system_metrics.system_metrics_monitor
    import mlflow.tracking  # noqa: F401


def experiment(client: "MlflowClient", name: str) -> str:
    """Id of the experiment `name`, created, or brought back from the bin, where needed."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:  # another process was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def process_mark(pid: int | None = None) -> str:
    """This machine's and process's name, never used twice: host, process id and the process's start time."""
    import psutil

    process = psutil.Process(pid)
    return f"{socket.gethostname()}:{process.pid}:{process.create_time():.2f}"


def is_alive(run: "MlflowRun") -> bool:
    """Whether `run` is RUNNING and the process that logs to it lives."""
    mark = run.data.tags.get("process")
    return run.info.status == "RUNNING" and mark is not None and lives(mark)


def lives(mark: str) -> bool:
    """Whether the process of a `process_mark` lives; one of another host counts as alive."""
    import psutil

    host, pid, _ = mark.rsplit(":", 2)
    if host != socket.gethostname():
        return True
    try:
        return process_mark(int(pid)) == mark
    except psutil.NoSuchProcess:
        return False


def close_abandoned(params: Params) -> list[str]:
    """Mark as FAILED the RUNNING runs of this dataset whose process is dead; returns their ids."""
    mlflow = client(params)
    running = _running(mlflow, params)
    dead = [run.info.run_id for run in running if run.data.tags.get("process") and not is_alive(run)]
    for run_id in dead:
        mlflow.set_terminated(run_id, "FAILED")
    return dead


def any_running(params: Params) -> bool:
    """Whether a run of this dataset is RUNNING."""
    return bool(_running(client(params), params))


def _running(mlflow: "MlflowClient", params: Params, condition: str = "") -> list["MlflowRun"]:
    found = mlflow.get_experiment_by_name(params.data.name)
    if found is None:
        return []
    return list(mlflow.search_runs([found.experiment_id], f"attributes.status = 'RUNNING'{condition}"))


def close_of_flow_run(params: Params, flow_run: str) -> list[str]:
    """Mark as FAILED the RUNNING runs that a dead flow run on another machine left behind; returns their ids.

    Whoever trains the same again, under the same run_key, then continues such a run instead of making a second one.
    """
    mlflow = client(params)
    left = _running(mlflow, params, f" and tags.prefect_flow_run_id = '{flow_run}'")
    dead = [run.info.run_id for run in left]
    for run_id in dead:
        mlflow.set_terminated(run_id, "FAILED")
    return dead


def _quiet() -> dict[str, str]:
    return {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def _client(address: str) -> "MlflowClient":
    for name, value in _quiet().items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # the default waits for minutes
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # three lines for each small file
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)  # else dozens of lines for a fresh store
    return MlflowClient(tracking_uri=address, registry_uri=address)


def _probe(address: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        _client(address).search_experiments(max_results=1)
    except MlflowException as error:
        remedy = "start the server, or correct tracking.uri in params.yaml (null for the embedded store)"
        raise StageError(f"{address}: the MLflow store does not answer: {error.message}", remedy) from error


class Run(NamedTuple):
    """An MLflow run to log to."""

    client: "MlflowClient"
    id: str

    def log_step(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log values by name, such as `train/loss` and `val/iou`, as of an optimiser step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(
            self.id, [Metric(metric_key(k), float(v), now, step) for k, v in metrics.items()]
        )

    def log_params(self, values: Mapping[str, object]) -> None:
        """Log parameters; one with another value already (in a resumed run) becomes a tag, for it cannot change."""
        from mlflow.entities import Param

        there = self.client.get_run(self.id).data.params
        named = {metric_key(name): str(value) for name, value in values.items()}
        new = [Param(name, value) for name, value in named.items() if name not in there]
        self.client.log_batch(self.id, params=new)
        self.tag({name: value for name, value in named.items() if there.get(name, value) != value})

    def log_files(self, path: Path, folder: str | None = None) -> None:
        """Store a file, or all of a folder, among the run's artifacts."""
        if path.is_dir():
            self.client.log_artifacts(self.id, str(path), folder)
        else:
            self.client.log_artifact(self.id, str(path), folder)

    def log_image(self, path: Path, key: str, step: int = 0) -> None:
        """Add a picture to the slider `key`."""
        from PIL import Image

        with Image.open(path) as image:
            self.client.log_image(self.id, image.convert("RGB"), key=key, step=step)

    def tag(self, tags: Mapping[str, object]) -> None:
        """Set tags; a value of None is left out."""
        from mlflow.entities import RunTag

        self.client.log_batch(self.id, tags=[RunTag(k, str(v)) for k, v in tags.items() if v is not None])


def metric_key(name: str) -> str:
    """`name` with every character that MLflow refuses (such as an accent or a bracket) replaced by `_`."""
    return re.sub(r"[^0-9A-Za-z_\-. :/]", "_", name)
