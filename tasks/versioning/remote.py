"""Results that travel between clones, through DVC's remote and its run cache: what a worker and its client need.

    send(["ingest", "prepare"])      # the client, before it hands out trainings
    provide("train@unet-0")          # a worker, in its own clone at the same revision
    restore("train@unet-0")          # True: it was there, and nothing had to run

DVC runs what it cannot restore, silently so where the remote has lost it, and has no option against that (3.67).
Here it may not: `restore` never trains.
"""

import shutil
from collections.abc import Sequence

from segcore.errors import StageError
from tasks.versioning import stages as versioning
from tasks.versioning import status as versioning_survey
from tasks.versioning.stages import Stage

# kinds of stages that workers run, and that occupy a slot
HEAVY = {"train", "evaluate"}
# a stage of this ending is a folder of source data, which no training reads
_FILE = ".dvc"


def check_remote() -> None:
    """See to it that there is a remote by which results can travel.

    Raises:
        StageError: DVC has no default remote.
    """
    status, output, _ = versioning.drive(["config", "core.remote"])
    if status != 0 or not output.strip():
        raise StageError(
            "workers get data through DVC's remote, and none is configured",
            "name one: dvc remote add --local --default store s3://bucket/path (docs/guide/cluster.md)",
        )


def restore(stage: str) -> bool:
    """Bring one stage up to date from DVC's cache or remote; what it depends on must be here.

    Returns:
        False where nobody has its result, so that it would have to run.

    Raises:
        StageError: DVC failed for another reason, such as a remote out of reach.
    """
    refuse = shutil.which("false") or "/bin/false"
    # DVC runs commands by $SHELL: with one that does nothing but fail, it restores or stops
    status, output, tail = versioning.drive(["repro", "--single-item", "--pull", stage], {"SHELL": refuse})
    if status == 0:
        return True
    if f"Running stage '{stage}':" in output.splitlines():
        return False
    raise StageError(
        f"{stage} could not be restored:\n{tail.strip()}", "check DVC's remote and the credentials for it"
    )


def provide(stage: str) -> None:
    """Fetch what `stage` depends on, at any remove, without running anything.

    Light stages come as dvc.lock of this revision records them, and heavy ones out of the run cache, since they ran
    after the revision was made.

    Raises:
        StageError: there is no such stage, or a result is in neither.
    """
    before = upstream(stage)
    light = [s.name for s in before if s.kind not in HEAVY and not s.name.endswith(_FILE)]
    missing = sorted(set(light) - versioning.recorded())
    if missing:
        raise StageError(f"dvc.lock of this revision lacks {', '.join(missing)}", "run the comparison again")
    if light:
        _must("pull", light)
    for needed in (s.name for s in before if s.kind in HEAVY):
        if not restore(needed):
            raise StageError(
                f"{stage} needs {needed}, which DVC's remote does not have", f"let {needed} run first"
            )


def upstream(stage: str) -> list[Stage]:
    """All stages that `stage` depends on, at any remove, in an order in which they can run.

    Raises:
        StageError: there is no such stage.
    """
    graph = versioning_survey.stages()
    if stage not in {s.name for s in graph}:
        raise StageError(f"{stage}: no such stage", f"known: {', '.join(s.name for s in graph)}")
    return _before(graph, {stage})


def _before(graph: Sequence[Stage], names: set[str]) -> list[Stage]:
    needed: set[str] = set()
    for stage in reversed(graph):
        # every stage stands after those it depends on
        if stage.name in names | needed:
            needed |= set(stage.upstream)
    return [stage for stage in graph if stage.name in needed]


def send(stages: Sequence[str]) -> None:
    """Put results of these stages, and the run cache, into the remote.

    Raises:
        StageError: the remote cannot be written.
    """
    if stages:
        _must("push", ["--run-cache", *stages])


def light_before_heavy(graph: Sequence[Stage]) -> list[str]:
    """Names of the stages that stay on the orchestrating machine and whose results workers need."""
    before = _before(graph, {s.name for s in graph if s.kind in HEAVY})
    return [s.name for s in before if s.kind not in HEAVY and not s.name.endswith(_FILE)]


def _must(command: str, arguments: list[str]) -> None:
    status, _, tail = versioning.drive([command, *arguments])
    if status != 0:
        raise StageError(
            f"dvc {command} failed:\n{tail.strip()}", "check the remote and the credentials, then run again"
        )
