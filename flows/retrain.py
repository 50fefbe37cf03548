"""Unattended retraining: new files in the inbox become a new version of the data, and possibly a new champion.

    python -m flows.retrain              # once; `make serve` runs it by schedule
    python -m flows.retrain --dry-run    # decide, but promote and push nothing

Inbox -> batch -> comparison -> gate -> promotion -> report -> push. After a kill at any time, the next run continues
with the missing steps. If no new file was accepted and the last batch has its decision, it stops early and reports
that.

Modules that need torch are imported inside functions, so that a run without new data does not load torch.
"""

import argparse
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import environment  # noqa: F401  isort: skip  (before prefect is imported)
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from flows import run_state
from flows.compare import compare
from segcore import params as parameters
from segcore.errors import StageError
from segcore.params import Params
from tasks import receive
from tasks.batches import undecided
from tasks.project import RETRAIN_LOCK
from tasks.promotion import publish
from tasks.promotion.record import DecisionRecord, records
from tasks.receive import Receipt
from tasks.supervisor import die_with_parent, run_in_group
from tasks.versioning import git, stages

if TYPE_CHECKING:
    from tasks.tracking.registry import Registry

# environment variable, set by flows.serve for the runs that it starts
SERVED = "SEGFLOW_SERVED"


@dataclass(frozen=True)
class GateInputs:
    """Inputs of the task that decides on the champion.

    Attributes:
        params: all of params.yaml.
        registry: registry of the data set, with its tracker.
        batches: names of the batches to judge; empty if the data come from the source only.
        dry_run: decide, but promote, commit and push nothing.
    """

    params: Params
    registry: "Registry"
    batches: list[str]
    dry_run: bool


@contextmanager
def _retrain_lock() -> Iterator[bool]:
    """Take the lock of this folder; False if another process has it. The lock is released when its process ends."""
    RETRAIN_LOCK.parent.mkdir(exist_ok=True)
    with RETRAIN_LOCK.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _has_decision(dataset: str) -> bool:
    """Whether any decision was made and acted upon."""
    return any(record.acted for record in records(Path(), dataset))


def champion_bundle(registry: "Registry") -> Path | None:
    """The champion's bundle, downloaded from the registry unless it is here; None without a champion."""
    from tasks.promotion.candidates import fetch_champion

    champion = registry.champion()
    return None if champion is None else fetch_champion(registry, champion.version)


@task(name="receive", cache_policy=NO_CACHE)
@run_state.with_sentences
def receive_batch(params: Params) -> Receipt:
    """Make a new batch of the files in the inbox; in a new process, which loads only what reading images needs."""
    receive.receipt_file(params).unlink(missing_ok=True)
    status, output, tail = run_in_group([sys.executable, "-m", "tasks", "receive"], live=sys.stderr.write)
    if status != 0:
        raise StageError(
            f"receiving failed with status {status}:\n{tail.strip()}", "correct the cause above and run again"
        )
    print(output, end="", flush=True)
    return receive.read_receipt(params)


@task(name="promote", cache_policy=NO_CACHE)
@run_state.with_sentences
def gate(inputs: GateInputs) -> DecisionRecord:
    """Decide on the champion and act on the decision."""
    from tasks.promote import promote

    return promote(inputs.params, batches=inputs.batches, dry_run=inputs.dry_run, registry=inputs.registry)


@task(name="report", cache_policy=NO_CACHE)
@run_state.with_sentences
def write_report(params: Params) -> None:
    """Write the report again, now with the decision."""
    publish.write_report(params)


@task(name="record", cache_policy=NO_CACHE)
@run_state.with_sentences
def commit_result(params: Params, batches: list[str], sentence: str) -> None:
    """Commit parameters, hashes, splits, scores and the decision, in a git repository."""
    subject = f"Retraining of {params.data.name} on batch {publish.batch_names(batches)}"
    publish.commit_decision(params, subject, sentence)


@task(name="push", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=10)
@run_state.with_sentences
def push(params: Params) -> State[Any]:
    """Push data, results and commits to the configured remotes, as set by `retrain.push_data` and `push_git`."""
    pushed = ["data"] if params.retrain.push_data and stages.push() else []
    pushed += ["git"] if params.retrain.push_git and git.push(params.data.name) else []
    return Completed(
        message=f"pushed: {', '.join(pushed)}" if pushed else "nothing pushed: off, or no remote"
    )


@flow(name="retrain")
@run_state.with_sentences
def retrain(dry_run: bool = False, retries: int = 1) -> State[Any]:
    """One retraining in the current folder; the message of the returned state is a sentence on the outcome.

    Args:
        dry_run: decide without promoting, committing the decision or pushing.
        retries: how often a failed stage is started again.

    Raises:
        SegflowError: a step failed for a reason that a retry cannot remove; finished steps are kept, and the next run
            continues after them.
    """
    if os.environ.get(SERVED):
        # a run started by hand may outlive its terminal
        die_with_parent()
    run_state.tag_process()
    with _retrain_lock() as is_locked:
        if not is_locked:
            return Completed(name="Skipped", message="another retraining is running in this folder")
        return _round(parameters.load(), dry_run, retries)


def _round(params: Params, dry_run: bool, retries: int) -> State[Any]:
    run_state.bind_embedded_server()
    received = receive_batch(params)
    batches = undecided(params)
    if not batches and _has_decision(params.data.name):
        sentence = f"Nothing new: {received.text}"
        get_run_logger().info(sentence)
        if not dry_run:
            # the last run may have failed to push
            push(params)
        return Completed(name="Unchanged", message=sentence)
    from tasks import initial_weights
    from tasks.tracking.registry import Registry
    from tasks.tracking.tracker import Tracker

    inputs = GateInputs(params, Registry(Tracker.open(params)), batches, dry_run)
    warm_start = params.retrain.warm_start
    initial_weights.place(champion_bundle(inputs.registry) if warm_start.enabled else None, warm_start.steps)
    compare(retries)
    decision = gate(inputs)
    write_report(params)
    if not dry_run:
        commit_result(params, batches, decision.reason)
        push(params)
    get_run_logger().info(decision.reason)
    return Completed(name=decision.outcome.capitalize(), message=f"{received.text}. {decision.reason}")


def main() -> None:
    """Command line; exits with status 1 and prints a remedy on a SegflowError."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.retrain",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dry-run", action="store_true", help="decide, but promote and push nothing")
    parser.add_argument(
        "--retries", type=int, default=1, help="how often a failed stage is started again (default: 1)"
    )
    arguments = parser.parse_args()
    with run_state.as_command("Interrupted; finished steps are kept, and the next run continues after them."):
        parameters.load()
        state = retrain(arguments.dry_run, arguments.retries, return_state=True)
        state.result(raise_on_failure=True)
        print(f"\n{state.name}: {state.message}")


if __name__ == "__main__":
    main()
