"""One stage on a worker, in the worker's own clone: what flows/workers.py submits for each training and evaluation.

The clone is the folder that SEGFLOW_CLONE names, else the one the worker was started in. It must be marked
(`git config segflow.worker true`, since edits in it are thrown away), have DVC's remote in .dvc/config.local, and
credentials in the environment; docs/guide/cluster.md has the commands.
"""

import os
from typing import Any

from flows import environment  # noqa: F401  isort: skip  (before prefect is imported)
from prefect import flow, get_run_logger
from prefect.states import Completed, State

from flows import run_state
from segcore import params as parameters
from segcore.errors import StageError
from segcore.files import locked
from tasks.project import STAGE_LOCK
from tasks.tracking import store
from tasks.versioning import git, remote, stages


@flow(name="stage")
def stage(name: str, revision: str) -> State[Any]:
    """Bring one stage up to date at a revision and send its result to DVC's remote; nothing else ever runs.

    One stage at a time runs in a clone; others wait for it.

    Args:
        name: of the stage, such as `train@unet-0`.
        revision: commit, of `revisions.snapshot`, 40 hexadecimal digits.

    Returns:
        A completed state named Ran, or Cached where DVC had the result.

    Raises:
        StageError: the clone, the remote or the stage failed; the message says which, and the remedy.
    """
    os.chdir(os.environ.get("SEGFLOW_CLONE", "."))
    run_state.hide_tracebacks_of_user_errors()
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
    """See to it that runs go where all machines see them.

    Raises:
        StageError: the store is a file of one machine.
    """
    if address.startswith("sqlite:"):
        raise StageError(
            f"{address}: a store in a file is not shared by workers",
            "start an MLflow server, and name it in tracking.uri or MLFLOW_TRACKING_URI on every machine",
        )
