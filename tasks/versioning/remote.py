"""Exchange of results between clones, through DVC's remote and its run cache.

    send(["ingest", "prepare"])      # the client, before it submits trainings
    provide("train@unet-0")          # a worker, in its clone at the same revision
    restore("train@unet-0")          # True: the result was restored; nothing has run

`dvc repro` runs a stage that it cannot restore, and has no option to prevent that (3.67). `restore` prevents it.
"""

import shutil
from collections.abc import Sequence

from segcore.errors import StageError
from tasks.versioning import stages as versioning
from tasks.versioning import status as versioning_survey
from tasks.versioning.dvc_command import reason, run_dvc
from tasks.versioning.stages import Stage

# kinds of stages that use a slot and can run on workers
HEAVY = {"train", "evaluate"}
# stages with this file extension are folders of source data, which trainings do not read
_FILE = ".dvc"


def check_remote() -> None:
    """Check that DVC has a default remote.

    Raises:
        StageError: DVC has no default remote.
    """
    if versioning.remote_name() is None:
        raise StageError(
            "workers get data through DVC's remote, and none is configured",
            "add one: dvc remote add --local --default store s3://bucket/path (docs/guide/cluster.md)",
        )


def restore(stage: str) -> bool:
    """Restore the result of one stage from DVC's cache or remote, without running it; its dependencies must exist.

    Returns:
        False if neither has its result, so that it would have to run.

    Raises:
        StageError: DVC failed for another reason, such as an unreachable remote.
    """
    # DVC runs the stage's command with $SHELL; /bin/false makes it fail instead
    shell = shutil.which("false") or "/bin/false"
    status, output, tail = run_dvc(["repro", "--single-item", "--pull", stage], {"SHELL": shell})
    if status == 0:
        return True
    if f"Running stage '{stage}':" in output.splitlines():
        return False
    raise StageError(
        f"{stage} could not be restored: {reason(tail)}", "check DVC's remote and the credentials for it"
    )


def provide(stage: str) -> None:
    """Fetch everything that `stage` depends on, directly or indirectly, without running a stage.

    Results of light stages are those in dvc.lock of this revision. Results of heavy stages come from the run cache,
    since they ran after the revision was created.

    Raises:
        StageError: there is no such stage, or a result is missing.
    """
    before = upstream(stage)
    light = [s.name for s in before if s.kind not in HEAVY and not s.name.endswith(_FILE)]
    missing = sorted(set(light) - versioning.recorded())
    if missing:
        raise StageError(f"dvc.lock of this revision lacks {', '.join(missing)}", "run the comparison again")
    if light:
        _checked_dvc("pull", light)
    for needed in (s.name for s in before if s.kind in HEAVY):
        if not restore(needed):
            raise StageError(f"{stage} needs {needed}, which is not in DVC's remote", f"run {needed} first")


def upstream(stage: str) -> list[Stage]:
    """All stages that `stage` depends on, directly or indirectly, in an order in which they can run.

    Raises:
        StageError: there is no such stage.
    """
    graph = versioning_survey.stages()
    if stage not in {s.name for s in graph}:
        raise StageError(f"{stage}: no such stage", f"use one of {', '.join(s.name for s in graph)}")
    return _before(graph, {stage})


def _before(graph: Sequence[Stage], names: set[str]) -> list[Stage]:
    needed: set[str] = set()
    # each stage is after those it depends on
    for stage in reversed(graph):
        if stage.name in names | needed:
            needed |= set(stage.upstream)
    return [stage for stage in graph if stage.name in needed]


def send(stages: Sequence[str]) -> None:
    """Push the results of these stages, and the run cache, to the remote.

    Raises:
        StageError: DVC cannot write to the remote.
    """
    if stages:
        _checked_dvc("push", ["--run-cache", *stages])


def light_before_heavy(graph: Sequence[Stage]) -> list[str]:
    """Names of the stages that run on the client and whose results workers need."""
    before = _before(graph, {s.name for s in graph if s.kind in HEAVY})
    return [s.name for s in before if s.kind not in HEAVY and not s.name.endswith(_FILE)]


def _checked_dvc(command: str, arguments: list[str]) -> None:
    status, _, tail = run_dvc([command, *arguments])
    if status != 0:
        raise StageError(
            f"dvc {command} failed: {reason(tail)}", "check the remote and the credentials, then run again"
        )
