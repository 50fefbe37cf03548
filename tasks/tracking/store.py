"""The MLflow store: address, creation, upgrade and clients."""

import logging
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from segcore.errors import StageError
from segcore.files import locked
from segcore.params import Params

if TYPE_CHECKING:
    from mlflow import MlflowClient

# artifacts are beside it, in mlruns/
DEFAULT_URI = "sqlite:///mlflow.db"
_SQLITE = "sqlite:///"


def uri(params: Params) -> str:
    """Address of the store: the variable MLFLOW_TRACKING_URI, else tracking.uri, else the embedded SQLite file.

    SQLite paths are made absolute: MLflow caches one connection per address, also when the working folder changes.
    """
    address = os.environ.get("MLFLOW_TRACKING_URI") or params.tracking.uri or DEFAULT_URI
    return (
        _SQLITE + str(Path(address.removeprefix(_SQLITE)).absolute())
        if address.startswith(_SQLITE)
        else address
    )


def open_client(address: str) -> "MlflowClient":
    """Create or upgrade the store where needed, and open a client of it.

    Raises:
        StageError: the store cannot be reached or used.
    """
    ensure_store(address)
    return _client(address)


def ensure_store(address: str) -> None:
    """Create or upgrade the store, once per version of MLflow; safe to call from several processes.

    Processes that create the same SQLite store at once make each other fail, so one creates it while the
    others wait for a lock.

    Raises:
        StageError: the store cannot be reached or used.
    """
    if not address.startswith(_SQLITE):
        _probe(address)
        return
    file = Path(address.removeprefix(_SQLITE))
    file.parent.mkdir(parents=True, exist_ok=True)
    # the lock file contains the version of MLflow that last upgraded the store
    with locked(file.with_name(file.name + ".lock")) as version_file:
        if file.exists() and version_file.read_text() == version("mlflow"):
            return
        if file.exists():
            _upgrade(address, file)
        # creates a missing store, and the rows that MLflow adds on first use
        _probe(address)
        version_file.write_text(version("mlflow"))


def _upgrade(address: str, file: Path) -> None:
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", address]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **_quiet()})
    if done.returncode != 0:
        remedy = f"move {file} away to start a new store, or set tracking.uri in params.yaml to another one"
        raise StageError(f"{file}: MLflow cannot use this store:\n{done.stderr.strip()[-2000:]}", remedy)


def preload() -> None:
    """Import the modules that logging needs; opens no store."""
    for name, value in _quiet().items():
        os.environ.setdefault(name, value)
    import mlflow.data.code_dataset_source
    import mlflow.store.artifact.local_artifact_repo
    import mlflow.store.tracking.sqlalchemy_store
    import mlflow.system_metrics.system_metrics_monitor
    import mlflow.tracking  # noqa: F401


def _quiet() -> dict[str, str]:
    return {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def _client(address: str) -> "MlflowClient":
    for name, value in _quiet().items():
        os.environ.setdefault(name, value)
    # with the default number of retries, an unreachable server is reported only after minutes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    # the progress bar prints three lines for each small file
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow.store.db.utils"):
        # they log dozens of lines when they create a store
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=address, registry_uri=address)


def _probe(address: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        _client(address).search_experiments(max_results=1)
    except MlflowException as error:
        remedy = "start the server, or correct tracking.uri in params.yaml (null for the embedded store)"
        raise StageError(f"{address}: the MLflow store does not answer: {error.message}", remedy) from error
