"""One stage on a worker, in the worker's clone; flows/workers.py submits it for each training and evaluation.

The clone is the folder SEGFLOW_CLONE, else the one in which the worker was started. It must be marked with
`git config segflow.worker true` (edits in it are discarded) and have DVC's remote in .dvc/config.local; credentials
are read from the environment. docs/guide/cluster.md has the commands.
"""

import os
from typing import Any

from flows import environment  # noqa: F401  isort: skip  (before prefect is imported)
from prefect import flow, get_run_logger
from prefect.states import Completed, State

from flows import command, run_state
from segcore import params as parameters
from segcore.errors import StageError
from segcore.files import locked
from tasks.project import STAGE_LOCK
from tasks.tracking import store
from tasks.versioning import git, remote, stages


@flow(name="stage")
@command.with_sentences
def stage(name: str, revision: str) -> State[Any]:
    """Bring one stage up to date at a revision and push its result to DVC's remote; no other stage runs.

    A clone runs one stage at a time; further flow runs wait.

    Args:
        name: of the stage, such as `train@unet-0`.
        revision: commit from `git.snapshot`, 40 hexadecimal digits.

    Returns:
        A completed state named Ran, or Cached if DVC had the result.

    Raises:
        StageError: the clone, the remote or the stage failed.
    """
    os.chdir(os.environ.get("SEGFLOW_CLONE", "."))
    with locked(STAGE_LOCK):
        git.check_out(revision)
        remote.check_remote()
        require_shared_store(store.uri(parameters.load()))
        remote.provide(name)
        if remote.restore(name):
            outcome = "cached"
        else:
            outcome = stages.reproduce(name, env=run_state.flow_variables())
            remote.send([name])
    get_run_logger().info("%s %s", name, outcome)
    return Completed(name=outcome.capitalize(), message=f"{name} {outcome}")


def require_shared_store(address: str) -> None:
    """Check that all machines can log to the MLflow store.

    Raises:
        StageError: the store is a SQLite file.
    """
    if address.startswith("sqlite:"):
        raise StageError(
            f"{address}: workers cannot share a store in a file",
            "start an MLflow server, and set tracking.uri or MLFLOW_TRACKING_URI to its address on every machine",
        )
