"""Unattended retraining: what has arrived in the inbox becomes a new version of the data, and perhaps a new champion.

    python -m flows.retrain              # now; `make serve` runs it by schedule
    python -m flows.retrain --dry-run    # decide, but promote and push nothing

Inbox -> batch -> comparison -> gate -> promotion -> report -> push. Killed at any moment and started again, it goes on
with what is missing. Where nothing new was accepted and the last batch has its decision, it stops early and says so.

What needs torch is imported where it is used: a round that finds nothing new is over before torch would be loaded.
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
from segcore.data.prepared import PreparedData
from segcore.errors import StageError
from segcore.ingest import catalog
from segcore.params import Params
from tasks import receive
from tasks.project import (
    DECISIONS,
    DVC_LOCK,
    PARAMS,
    PREPARED,
    RETRAIN_LOCK,
    report_folder,
    split_file,
)
from tasks.promotion.record import DecisionRecord, read_record, record_path, records
from tasks.receive import Receipt
from tasks.supervisor import die_with_parent, run_in_group
from tasks.versioning import git, stages

if TYPE_CHECKING:
    from tasks.tracking.registry import Registry

# set by flows.serve for the runs it starts
SERVED = "SEGFLOW_SERVED"


@dataclass(frozen=True)
class Round:
    """What the tasks of one retraining share.

    Attributes:
        params: the whole of params.yaml.
        registry: of the data set, opened once; its tracker as well.
        batch: name of the last batch; `catalog.FIRST` where there is none but the source.
        dry_run: decide, but promote, commit and push nothing.
    """

    params: Params
    registry: "Registry"
    batch: str
    dry_run: bool


@contextmanager
def _alone() -> Iterator[bool]:
    """Whether no other process retrains in this folder; the lock ends with the process."""
    RETRAIN_LOCK.parent.mkdir(exist_ok=True)
    with RETRAIN_LOCK.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _is_decided(dataset: str, batch: str) -> bool:
    """Whether the gate has decided on this batch and acted; any record is a decision on the source itself."""
    if batch == catalog.FIRST:
        return any(record.acted for record in records(Path(), dataset))
    found = read_record(record_path(Path(), dataset, batch))
    return found is not None and found.acted is not None


def champion_bundle(registry: "Registry") -> Path | None:
    """The champion's bundle, fetched from the registry where it is not here yet; None where there is no champion."""
    from tasks.promotion.candidates import fetch_champion

    champion = registry.champion()
    return None if champion is None else fetch_champion(registry, champion.version)


@task(name="receive", cache_policy=NO_CACHE)
def take_in(params: Params) -> Receipt:
    """Make the inbox a new batch; in a process of its own, whose readers load nothing but what reading needs."""
    receive.receipt_file(params).unlink(missing_ok=True)
    status, output, tail = run_in_group([sys.executable, "-m", "tasks", "receive"], live=sys.stderr.write)
    if status != 0:
        raise StageError(
            f"receiving failed with status {status}:\n{tail.strip()}", "mend the cause and run again"
        )
    print(output, end="", flush=True)
    return receive.read_receipt(params)


@task(name="promote", cache_policy=NO_CACHE)
def gate(this: Round) -> DecisionRecord:
    """Decide on the champion, and act on the decision; a batch without any prepared item is not judged by."""
    from tasks.promote import promote

    prepared = set(PreparedData(PREPARED).items["batch"])
    batch = this.batch if this.batch != catalog.FIRST and this.batch in prepared else None
    return promote(this.params, batch=batch, dry_run=this.dry_run, registry=this.registry)


@task(name="report", cache_policy=NO_CACHE)
def show(this: Round) -> None:
    """Write the report again, now with the decision."""
    from tasks.report import report

    report(Path(), this.params, PreparedData(PREPARED))


@task(name="record", cache_policy=NO_CACHE)
def record(this: Round, sentence: str) -> None:
    """Commit what belongs to the result: parameters, hashes, splits, scores and the decision."""
    if not git.is_repository():
        return
    name = this.params.data.name
    paths = [PARAMS, DVC_LOCK, split_file(name), report_folder(name) / "scores.md", DECISIONS / name]
    git.commit(paths, f"Retraining of {name} on batch {this.batch}\n\n{sentence}")


@task(name="push", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=10)
def push(params: Params) -> State[Any]:
    """Send data and results, and commits where that is asked for, to the remotes that are configured."""
    sent = ["data"] if params.retrain.push_data and stages.push() else []
    sent += ["git"] if params.retrain.push_git and git.push() else []
    return Completed(message=f"pushed: {', '.join(sent)}" if sent else "nothing to push, or nowhere")


@flow(name="retrain")
def retrain(dry_run: bool = False, retries: int = 1) -> State[Any]:
    """One retraining in the current folder; the message of its state is a sentence on the outcome.

    Args:
        dry_run: decide without promoting, committing the decision or pushing.
        retries: how often a failed stage is started again.

    Raises:
        SegflowError: what cannot be mended by trying again; what was done stays, and the next run goes on from there.
    """
    if os.environ.get(SERVED):
        # by hand it may outlive the terminal that it was started from
        die_with_parent()
    run_state.tag_process()
    with _alone() as alone:
        if not alone:
            return Completed(name="Skipped", message="another retraining is running in this folder")
        return _round(parameters.load(), dry_run, retries)


def _round(params: Params, dry_run: bool, retries: int) -> State[Any]:
    run_state.bind_embedded_server()
    received = take_in(params)
    batch = max(catalog.batch_folders(params.data), default=catalog.FIRST)
    if received.batch is None and _is_decided(params.data.name, batch):
        sentence = f"Nothing new: {received.text}"
        get_run_logger().info(sentence)
        if not dry_run:
            # what the last round could not send
            push(params)
        return Completed(name="Unchanged", message=sentence)
    from tasks import initial_weights
    from tasks.tracking.registry import Registry
    from tasks.tracking.tracker import Tracker

    this = Round(params, Registry(Tracker.open(params)), batch, dry_run)
    start = params.retrain.warm_start
    initial_weights.place(champion_bundle(this.registry) if start.enabled else None, start.steps)
    compare(retries)
    decision = gate(this)
    show(this)
    if not dry_run:
        record(this, decision.reason)
        push(params)
    get_run_logger().info(decision.reason)
    return Completed(name=decision.outcome.capitalize(), message=f"{received.text}. {decision.reason}")


def main() -> None:
    """Command line: exits with 1 and a remedy on an error that can be mended."""
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
    with run_state.as_command("Interrupted; what was done is kept, the next run goes on from there."):
        parameters.load()
        state = retrain(arguments.dry_run, arguments.retries, return_state=True)
        state.result(raise_on_failure=True)
        print(f"\n{state.name}: {state.message}")


if __name__ == "__main__":
    main()
