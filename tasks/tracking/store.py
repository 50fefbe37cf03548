"""The MLflow store: address, creation, upgrade and clients."""

import logging
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, cast

from segcore.errors import StageError
from segcore.files import locked
from segcore.params import Params
from tasks import sqlite
from tasks.database_server import require_answer
from tasks.project import project_folder
from tasks.tracking.guard import RESTORE, Guard
from tasks.tracking.moved import FOLDER, follow

if TYPE_CHECKING:
    from mlflow import MlflowClient

# artifacts are beside it, in mlruns/
DEFAULT_URI = "sqlite:///mlflow.db"
_SQLITE = "sqlite:///"
# content of the lock file while a store is created
_BEGUN = "creation has begun"
# a line of a traceback that names an exception
_REASON = re.compile(r"[\w.]+: |\w+(\.\w+)*(Error|Exception)\b")


def uri(params: Params) -> str:
    """Address of the store: the variable MLFLOW_TRACKING_URI, else tracking.uri, else the embedded SQLite file.

    SQLite paths are relative to the project, also where a DVC experiment runs in a temporary folder. They are made
    absolute: MLflow caches one connection per address, also when the working folder changes.
    """
    address = os.environ.get("MLFLOW_TRACKING_URI") or params.tracking.uri or DEFAULT_URI
    return (
        _SQLITE + str((project_folder() / address.removeprefix(_SQLITE)).absolute())
        if address.startswith(_SQLITE)
        else address
    )


def file_of(address: str) -> Path | None:
    """The file of a SQLite store; None for a server."""
    return Path(address.removeprefix(_SQLITE).partition("?")[0]) if address.startswith(_SQLITE) else None


def open_client(address: str) -> "MlflowClient":
    """Create or upgrade the store where needed, and open a client of it.

    Each of its methods raises a StageError where the store cannot be used (tasks/tracking/guard.py).

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
    file = file_of(address)
    if file is None:
        if address.startswith("sqlite"):
            # sqlite:// is a store in memory, which ends with the process
            raise StageError(
                f"{address}: is not the address of a SQLite file",
                "correct tracking.uri in params.yaml or MLFLOW_TRACKING_URI: sqlite:/// and the path of the file",
            )
        require_answer(
            address,
            "the MLflow store",
            "start the server, or correct tracking.uri in params.yaml (null for the embedded store) or "
            "MLFLOW_TRACKING_URI",
        )
        _probe(address)
        return
    sqlite.check(file, RESTORE)
    # the lock file contains the version of MLflow that last upgraded the store, and the schema that it then had
    with locked(file.with_name(file.name + ".lock")) as version_file:
        known = version_file.read_text(errors="replace")
        if known == _BEGUN:
            _remove_unfinished(file)
        # SQLite takes an empty file for a new store
        is_new = not file.exists() or file.stat().st_size == 0
        is_current = not is_new and known == _versions(file)
        if is_new:
            version_file.write_text(_BEGUN)
        elif not is_current:
            _upgrade(address, file)
        follow(file, RESTORE)
        if is_current:
            return
        # creates a missing store, and the rows that MLflow adds on first use
        _client(address).search_experiments(max_results=1)
        version_file.write_text(_versions(file))


def _remove_unfinished(file: Path) -> None:
    """Remove a store whose creation was killed: MLflow cannot continue it, and nothing can have been logged to it."""
    target = Path(os.path.realpath(file))
    # one with runs was put in its place
    if target.exists() and sqlite.first_value(target, "SELECT count(*) FROM runs") in (None, "0"):
        for suffix in ("", "-journal", "-wal", "-shm"):
            target.with_name(target.name + suffix).unlink(missing_ok=True)


def _versions(file: Path) -> str:
    """Versions of MLflow and of the store's schema; a copy of another day may have another schema."""
    return f"{version('mlflow')} {sqlite.first_value(file, 'SELECT version_num FROM alembic_version')}"


def _upgrade(address: str, file: Path) -> None:
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", address]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **_quiet()})
    if done.returncode != 0:
        # SQLAlchemy's last line is the address of a page
        lines = [line for line in done.stderr.splitlines() if _REASON.match(line)]
        reason = (lines or ["no message"])[-1][:300]
        raise StageError(
            f"{file}: MLflow {version('mlflow')} cannot use this store ({reason})",
            f"install the version of MLflow that wrote it, or {RESTORE}",
        )


def preload() -> None:
    """Import the modules that logging needs; opens no store."""
    for name, value in _quiet().items():
        os.environ.setdefault(name, value)
    import mlflow.data.code_dataset_source
    import mlflow.pyfunc
    import mlflow.store.artifact.local_artifact_repo
    import mlflow.store.tracking.sqlalchemy_store
    import mlflow.system_metrics.system_metrics_monitor
    import mlflow.tracking  # noqa: F401


def _quiet() -> dict[str, str]:
    # MLflow otherwise prints two addresses at the end of each run on a server
    quiet = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
    return quiet | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def _client(address: str) -> "MlflowClient":
    for name, value in _quiet().items():
        os.environ.setdefault(name, value)
    # with the default number of retries, an unreachable server is reported only after minutes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    if project_folder() != Path():
        # MLflow otherwise stores artifacts in the present folder, which may be that of a DVC experiment
        os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = str((project_folder() / FOLDER).absolute())
    # the progress bar prints three lines for each small file
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    # it logs dozens of lines when it creates a store
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # and this one the traceback of each failure, which is raised as well
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

    def connect() -> MlflowClient:
        return MlflowClient(tracking_uri=address, registry_uri=address)

    return cast("MlflowClient", Guard(connect, address, file_of(address)))


def _probe(address: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        _client(address).search_experiments(max_results=1)
    except (MlflowException, ImportError) as error:
        raise StageError(
            f"{address}: MLflow cannot use this address ({str(error).strip().splitlines()[0][:300]})",
            "correct tracking.uri in params.yaml (null for the embedded store), or install the package it needs",
        ) from error
