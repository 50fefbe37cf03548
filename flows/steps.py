"""Steps of a round of retraining, as tasks of Prefect."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import environment  # noqa: F401  isort: skip  (before prefect is imported)
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from flows import command
from segcore.errors import SegflowError, StageError
from segcore.params import Params
from tasks.project import DECISIONS, report_folder
from tasks.promotion import publish
from tasks.promotion.record import Approval, DecisionRecord, record_path, records
from tasks.receipt import Receipt, read_receipt, receipt_file
from tasks.supervisor import run_in_group
from tasks.versioning import git, stages

if TYPE_CHECKING:
    from tasks.tracking.registry import Registry


@dataclass(frozen=True)
class GateInputs:
    """Inputs of the task that decides on the champion.

    Attributes:
        params: all of params.yaml.
        registry: registry of the data set, with its tracker.
        batches: names of the batches to judge; empty if the data come from the source only.
        approval: answer of a person to the decision; None: not given.
    """

    params: Params
    registry: "Registry"
    batches: Sequence[str]
    approval: Approval | None = None


@task(name="receive", cache_policy=NO_CACHE)
@command.with_sentences
def receive_batch(params: Params) -> Receipt:
    """Make a new batch of the files in the inbox; in a new process, which loads only what reading images needs."""
    receipt_file(params).unlink(missing_ok=True)
    status, output, tail = run_in_group([sys.executable, "-m", "tasks", "receive"], live=sys.stderr.write)
    if status != 0:
        raise StageError(
            f"receiving failed with status {status}:\n{tail.strip()}", "correct the cause above and run again"
        )
    print(output, end="", flush=True)
    return read_receipt(params)


@task(name="promote", cache_policy=NO_CACHE)
@command.with_sentences
def gate(inputs: GateInputs) -> DecisionRecord:
    """Decide on the champion and act on the decision, unless it waits for a person's approval."""
    from tasks.promote import promote

    return promote(inputs.params, batches=inputs.batches, registry=inputs.registry, approval=inputs.approval)


@task(name="report", cache_policy=NO_CACHE)
@command.with_sentences
def write_report(params: Params) -> None:
    """Write the report again, now with the decision."""
    publish.write_report(params)


@task(name="record", cache_policy=NO_CACHE)
@command.with_sentences
def commit_result(params: Params, batches: Sequence[str], sentence: str) -> None:
    """Commit parameters, hashes, splits, scores and the decision, in a git repository."""
    subject = f"Retraining of {params.data.name} on batch {publish.batch_names(batches)}"
    publish.commit_decision(params, subject, sentence)


def uncommitted_decisions(dataset: str) -> list[DecisionRecord]:
    """Decisions that were acted upon and are not committed, the earliest first; empty without a git repository.

    Raises:
        StageError: git cannot use the repository; DataError: a decision cannot be read.
    """
    folder = DECISIONS / dataset
    names = git.uncommitted(folder) if folder.is_dir() and git.is_repository() else set()
    decisions = [one for one in records(Path(), dataset) if one.acted] if names else []
    return sorted((one for one in decisions if f"{one.key}.json" in names), key=lambda one: one.decided)


def finish_last_round(params: Params) -> None:
    """Write the report and make the commit that a killed round owes, if its decision was acted upon.

    The commit comes before a new batch is received, because it contains the hashes that belong to the decision.
    """
    owed = uncommitted_decisions(params.data.name)
    if not owed:
        return
    page = report_folder(params.data.name) / "index.html"
    decided = record_path(Path(), params.data.name, owed[-1].key)
    if page.exists() and page.stat().st_mtime < decided.stat().st_mtime:
        state = write_report(params, return_state=True)
        if not state.is_completed():
            # the decision is committed nevertheless; the next comparison writes the report
            get_run_logger().warning("The report was not renewed: %s", _reason(state))
    commit_result(params, [name for one in owed for name in one.batches], owed[-1].reason)


@task(task_run_name="push {what}", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=10)
@command.with_sentences
def push(what: str, dataset: str) -> State[Any]:
    """Push `data` (results too) to DVC's default remote, or `git`: the commits and tags of segflow."""
    pushed = stages.push() if what == "data" else git.push(dataset)
    return Completed(message=f"pushed: {what}" if pushed else f"nothing pushed: no remote for {what}")


def push_all(params: Params) -> list[str]:
    """Push as set by `retrain.push_data` and `push_git`; a refused push does not prevent the other one.

    Returns:
        What was refused and why, one sentence each.
    """
    settings = params.retrain
    wanted = [what for what, is_on in (("data", settings.push_data), ("git", settings.push_git)) if is_on]
    states = [push(what, params.data.name, return_state=True) for what in wanted]
    return [_reason(state) for state in states if not state.is_completed()]


def _reason(state: State[Any]) -> str:
    """Why a task failed, in one line."""
    error = state.result(raise_on_failure=False)
    text = f"{error.what} ({error.remedy})" if isinstance(error, SegflowError) else str(error)
    return " ".join(text.split())
