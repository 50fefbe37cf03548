"""Unattended retraining: new files in the inbox become a new version of the data, and possibly a new champion.

    python -m flows.retrain              # once; `make serve` runs it by schedule
    python -m flows.retrain --dry-run    # print what a round would do, and change nothing

Inbox -> batch -> comparison -> gate -> promotion -> report -> push. After a kill at any time, the next run continues
with the missing steps. If no new file was accepted and all batches have their decision, it stops early and reports
that.

Modules that only a training, a promotion or a dry run needs are imported inside functions: a run without new data is
short.
"""

import argparse
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import environment  # noqa: F401  isort: skip  (before prefect is imported)
from prefect import flow, get_run_logger
from prefect.states import Completed, State

from flows import approval, command, run_state, steps
from segcore import params as parameters
from segcore.errors import StageError
from segcore.files import is_locked, locked, try_locked
from segcore.params import Params
from tasks import batches, networks
from tasks.project import COMPARE_LOCK, RETRAIN_LOCK
from tasks.promotion.record import DecisionRecord, records
from tasks.versioning import git

if TYPE_CHECKING:
    from tasks.tracking.registry import Registry

# in messages of states, before the reasons
_NOT_PUSHED = "; not pushed: "


def champion_bundle(registry: "Registry") -> Path | None:
    """The champion's bundle, downloaded from the registry unless it is here; None without a champion."""
    from tasks.promotion.candidates import fetch_champion

    champion = registry.champion()
    return None if champion is None else fetch_champion(registry, champion.version)


@flow(name="retrain")
@command.with_sentences
def retrain(dry_run: bool = False, retries: int = 1) -> State[Any]:
    """Run one round of retraining in the current folder.

    The message of the returned state is a sentence on the outcome.

    Args:
        dry_run: print what a round would do, and change nothing.
        retries: how often a failed stage is started again.

    Returns:
        A completed state whose name is the outcome; a refused push is in its message.

    Raises:
        SegflowError: a step failed for a reason that a retry cannot remove; finished steps are kept, and the next run
            continues after them.
    """
    run_state.begin()
    with nullcontext(not is_locked(RETRAIN_LOCK)) if dry_run else try_locked(RETRAIN_LOCK) as may_run:
        if not may_run:
            return Completed(name="Skipped", message="another retraining is running in this folder")
        if dry_run:
            return _dry_run(parameters.load())
        if is_locked(COMPARE_LOCK):
            get_run_logger().info("waiting for the comparison that is running in this folder")
        with locked(COMPARE_LOCK):
            return _round(run_state.complete_params(), retries)


def _dry_run(params: Params) -> State[Any]:
    from flows.dry_run import plan_of

    plan = plan_of(params)
    print(plan.text(), flush=True)
    plan.require_no_obstacle()
    return Completed(name="DryRun", message=f"{plan.summary} Nothing was changed.")


def _round(params: Params, retries: int) -> State[Any]:
    # what would stop the round later stops it here, before the inbox changes
    params.require_one_split()
    git.require_usable(dataset=params.data.name)
    approval.require_server(params)
    batches.provide(params)
    steps.finish_last_round(params)
    sentence = batches.waiting_text(params)
    if sentence:
        return _without_training(params, "Waiting", sentence)
    if _may_train(params):
        networks.require_networks_in_process()
    received = steps.receive_batch(params)
    registry = None
    if not _all_decided(params):
        registry = _open_registry(params)
        # before hours of training; completes a promotion that a kill interrupted, which decides its batches
        registry.require_agreement(Path())
        steps.finish_last_round(params)
    if registry is None or _all_decided(params):
        return _without_training(params, "Unchanged", f"Nothing new: {received.text}")
    new = batches.undecided(params)
    decision = _train_and_decide(params, registry, new, retries)
    # with the values of a plan that was made meanwhile
    params = parameters.load()
    steps.write_report(params)
    steps.commit_result(params, new, decision.reason)
    refused = steps.push_all(params)
    get_run_logger().info(decision.reason)
    message = f"{received.text}. {decision.reason}"
    if refused:
        message = f"{message.rstrip('.')}{_NOT_PUSHED}{'; '.join(refused)}"
    return Completed(name=decision.outcome.capitalize(), message=message)


def _without_training(params: Params, name: str, sentence: str) -> State[Any]:
    """End of a round in which nothing is decided: what the last round could not push is pushed.

    Raises:
        StageError: a push was refused.
    """
    get_run_logger().info(sentence)
    refused = steps.push_all(params)
    if refused:
        raise StageError(
            f"{sentence}{_NOT_PUSHED}{'; '.join(refused)}",
            "correct the cause above; the next round pushes again",
        )
    return Completed(name=name, message=sentence)


def _all_decided(params: Params) -> bool:
    """Whether there is a decision, and no batch without one."""
    acted = any(one.acted for one in records(Path(), params.data.name))
    return acted and not batches.undecided(params)


def _may_train(params: Params) -> bool:
    """Whether the inbox has files, or there is no decision on a batch or at all."""
    from segcore.ingest.inbox import Inbox

    return not _all_decided(params) or bool(
        Inbox(params.retrain.inbox, change=False).listing().unchanged_since
    )


def _open_registry(params: Params) -> "Registry":
    from tasks.tracking.registry import Registry
    from tasks.tracking.tracker import Tracker

    return Registry(Tracker.open(params))


def _train_and_decide(params: Params, registry: "Registry", new: list[str], retries: int) -> DecisionRecord:
    from flows.compare import compare
    from tasks import initial_weights

    warm_start = params.retrain.warm_start
    initial_weights.place(champion_bundle(registry) if warm_start.enabled else None, warm_start.steps)
    compare(retries)
    inputs = steps.GateInputs(params, registry, new)
    decision = steps.gate(inputs)
    # gate.approval is `person`; if the inputs changed during the pause, the new decision needs an answer too
    while decision.acted is None:
        steps.write_report(params)
        decision = steps.gate(replace(inputs, approval=approval.ask(params, decision)))
    return decision


def main() -> None:
    """Command line; exits with status 1 and prints a remedy on a SegflowError, and if a push was refused."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.retrain",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what a round would do, and change nothing"
    )
    parser.add_argument(
        "--retries", type=int, default=1, help="how often a failed stage is started again (default: 1)"
    )
    arguments = parser.parse_args()
    with command.as_command("Interrupted; finished steps are kept, and the next run continues after them."):
        parameters.load()
        state = retrain(arguments.dry_run, arguments.retries, return_state=True)
        if not state.is_completed():
            # raises what the flow raised
            state.result()
        print(f"\n{state.name}: {state.message}")
        if _NOT_PUSHED in (state.message or ""):
            sys.exit(1)


if __name__ == "__main__":
    main()
