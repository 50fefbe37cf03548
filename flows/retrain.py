"""Unattended retraining: what has arrived in the inbox becomes a new version of the data, and perhaps a new champion.

    python -m flows.retrain              # now; `make serve` runs it by schedule
    python -m flows.retrain --dry-run    # decide, but promote and push nothing

Inbox -> batch -> comparison -> gate -> promotion -> report -> push. Killed at any moment and started again, it goes on
with what is missing. Where nothing new was accepted and the last batch has its decision, it stops early and says so.

What needs torch is imported where it is used: a round that finds nothing new is over before torch would be loaded.
"""

import argparse
import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
from tasks.project import PREPARED
from tasks.supervisor import die_with_parent, run_in_group
from tasks.versioning import git, stages

LOCK = Path("work/retrain.lock")
SERVED = "SEGFLOW_SERVED"  # set by flows.serve for the runs it starts
DECISIONS = Path("decisions")


@contextmanager
def _alone() -> Iterator[bool]:
    """Whether no other process retrains in this folder; the lock ends with the process."""
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _is_decided(params: Params, batch: str) -> bool:
    """Whether the gate has decided on this batch and acted; the source itself is decided on with any record."""
    folder = DECISIONS / params.data.name
    records = folder.glob("*.json") if batch == catalog.FIRST else [folder / f"{batch}.json"]
    return any(
        json.loads(path.read_text()).get("acted")
        for path in records
        if path.exists() and path.stem != "history"
    )


def champion_bundle(params: Params) -> Path | None:
    """The champion's bundle, fetched from the registry where it is not here yet; None where there is no champion."""
    from tasks.promotion.candidates import fetch_champion
    from tasks.tracking import registry

    facts = registry.champion(params)
    if facts is None:
        return None
    return fetch_champion(Path(), params, int(facts["version"]))


@task(name="receive", cache_policy=NO_CACHE)
def take_in(params: Params) -> dict[str, Any]:
    """The inbox as a new batch; in a process of its own, whose readers then load nothing but what reading needs."""
    receive.last(params).unlink(missing_ok=True)
    status, output, tail = run_in_group([sys.executable, "-m", "tasks", "receive"], live=sys.stderr.write)
    if status != 0:
        raise StageError(
            f"receiving failed with status {status}:\n{tail.strip()}", "mend the cause and run again"
        )
    print(output, end="", flush=True)
    received: dict[str, Any] = json.loads(receive.last(params).read_text())
    return received


@task(name="promote", cache_policy=NO_CACHE)
def gate(params: Params, batch: str, dry_run: bool) -> dict[str, Any]:
    """Decide on the champion, and act on the decision; a batch that was set aside as a whole is none to judge by."""
    from tasks import promote

    batches = set(PreparedData(PREPARED).items["batch"])
    return promote.promote(
        params, batch=batch if batch != catalog.FIRST and batch in batches else None, dry_run=dry_run
    )


@task(name="report", cache_policy=NO_CACHE)
def show(params: Params) -> None:
    """The page again, now with the decision."""
    from tasks import report

    report.report(Path(), params, PreparedData(PREPARED))


@task(name="record", cache_policy=NO_CACHE)
def record(params: Params, batch: str, sentence: str) -> None:
    """Commit what belongs to the result: parameters, hashes, splits, scores and the decision."""
    if not git.is_repository():
        return
    name = params.data.name
    paths = [
        Path("params.yaml"),
        Path("dvc.lock"),
        Path("splits") / f"{name}.csv",
        Path("reports") / name / "scores.md",
    ]
    git.commit([*paths, DECISIONS / name], f"Retraining of {name} on batch {batch}\n\n{sentence}")


@task(name="push", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=10)
def push(params: Params) -> State[Any]:
    """Send data and results, and commits where that is asked for, to the remotes that are configured."""
    sent = ["data"] if params.retrain.push_data and stages.push() else []
    sent += ["git"] if params.retrain.push_git and git.push() else []
    return Completed(message=f"pushed: {', '.join(sent)}" if sent else "nothing to push, or nowhere")


@flow(name="retrain")
def retrain(dry_run: bool = False, retries: int = 1) -> State[Any]:
    """One night's work in the current folder; its state says in a sentence what came of it.

    Args:
        dry_run: decide without promoting, committing the decision or pushing.
        retries: how often a failed stage is started again.

    Raises:
        SegflowError: what cannot be mended by trying again; what was done stays, and the next run goes on from there.
    """
    if os.environ.get(SERVED):  # by hand it may outlive the terminal that it was started from
        die_with_parent()
    run_state.tag_process()
    with _alone() as alone:
        if not alone:
            return Completed(name="Skipped", message="another retraining is running in this folder")
        return _night(parameters.load(), dry_run, retries)


def _night(params: Params, dry_run: bool, retries: int) -> State[Any]:
    run_state.bind_embedded_server()
    received = take_in(params)
    batch = max(catalog.batch_folders(params.data), default=catalog.FIRST)
    if received["batch"] is None and _is_decided(params, batch):
        sentence = f"Nothing new: {received['text']}"
        get_run_logger().info(sentence)
        if not dry_run:
            push(params)  # what the last round could not send
        return Completed(name="Unchanged", message=sentence)
    from tasks import initial_weights

    warm = params.retrain.warm_start
    initial_weights.place(champion_bundle(params) if warm.enabled else None, warm.steps)
    compare(retries)
    decision = gate(params, batch, dry_run)
    show(params)
    sentence = str(decision["reason"])
    if not dry_run:
        record(params, batch, sentence)
        push(params)
    get_run_logger().info(sentence)
    return Completed(name=str(decision["outcome"]).capitalize(), message=f"{received['text']}. {sentence}")


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
