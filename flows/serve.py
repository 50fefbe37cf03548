"""Serve the scheduled retraining on this machine, until Ctrl-C: `make serve`.

Starts Prefect's server (unless PREFECT_API_URL is set) and a deployment of the flow `retrain` with the schedule of
params.yaml; with `schedule.on_arrival`, the inbox is checked every `schedule.watch_seconds`. At most one retraining
runs; further triggers, also missed ones, are cancelled at once. The flows `compare`, `predict` and `export` have
deployments too, without a schedule: Prefect's UI starts them, with a form for their parameters.
"""

import argparse
import asyncio
import fcntl
import logging
import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from flows import environment  # noqa: F401  isort: skip  (before any server is started)
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.context import refresh_global_settings_context
from prefect.deployments import run_deployment
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import TerminationSignal
from prefect.runner import Runner
from prefect.schedules import Cron, Interval

from flows import run_state, server, ui
from flows.compare import compare
from flows.export import export
from flows.predict import predict
from flows.retrain import retrain
from segcore import params as parameters
from segcore.errors import StageError, masked
from segcore.ingest import inbox
from segcore.ingest.inbox_files import InboxFile
from segcore.params import Params
from tasks.failures import explained, reported
from tasks.project import RECEIVED, SERVE_LOCK
from tasks.supervisor import die_with_parent, end_groups

NAME = "retrain"
# flows that are served without a schedule
BY_HAND: tuple[Flow[..., Any], ...] = (compare, predict, export)


def retraining(params: Params) -> RunnerDeployment:
    """The flow `retrain` with its schedule; a run that is triggered while another one runs is cancelled."""
    settings, schedule = params.schedule, None
    if settings.cron:
        schedule = Cron(settings.cron, timezone=settings.timezone)
    elif settings.interval_minutes:
        schedule = Interval(timedelta(minutes=settings.interval_minutes), timezone=settings.timezone)
    limit = _one_at_a_time(ConcurrencyLimitStrategy.CANCEL_NEW)
    return RunnerDeployment.from_flow(
        retrain, NAME, schedule=schedule, concurrency_limit=limit, description=_description(retrain)
    )


def by_hand(flow: Flow[..., Any]) -> RunnerDeployment:
    """A flow without schedule; a run that is triggered while another one runs waits for its end."""
    limit = _one_at_a_time(ConcurrencyLimitStrategy.ENQUEUE)
    return RunnerDeployment.from_flow(
        flow, flow.name, concurrency_limit=limit, description=_description(flow)
    )


def _description(flow: Flow[..., Any]) -> str:
    """First sentence of the flow's docstring; Prefect would show all of it, with its arguments."""
    return " ".join((flow.description or "").partition("\n\n")[0].split())


def hint(api: str) -> str:
    """The lines that start a run from another shell."""
    return "\n".join(
        [
            "These flows are being served. To start one from another shell:",
            f"  export PREFECT_API_URL={masked(api)}",
            f"  {shlex.quote(sys.executable)} -m prefect deployment run {retrain.name}/{NAME}",
            f"The others: {', '.join(f'{flow.name}/{flow.name}' for flow in BY_HAND)}.",
        ]
    )


def _one_at_a_time(strategy: ConcurrencyLimitStrategy) -> ConcurrencyLimitConfig:
    return ConcurrencyLimitConfig(
        limit=1,
        collision_strategy=strategy,
        # how long a run that was killed before its process started counts for the limit; Prefect's minimum
        grace_period_seconds=60,
    )


def watch(params: Params, stop: threading.Event) -> None:
    """Trigger a retraining when the inbox has settled files that it did not have at the last trigger.

    Files that arrive during a retraining trigger one after its end, since the running one has already read the inbox.

    Args:
        params: all of params.yaml.
        stop: ends the loop when set.
    """
    settings = params.retrain
    seen: set[InboxFile] = set()
    while not stop.wait(params.schedule.watch_seconds):
        try:
            box = inbox.Inbox(settings.inbox, RECEIVED / params.data.name)
            settled = box.settled(settings.settle_seconds)
            if settled - seen:
                with get_client(sync_client=True) as client:
                    if run_state.busy_runs(client, NAME):
                        continue
                run_deployment(f"retrain/{NAME}", timeout=0)
                print(f"serve: {len(settled - seen)} new files in {masked(settings.inbox)}", flush=True)
            seen = settled
        # the inbox or the server may be unreachable for a while, which must not end the loop
        except Exception as error:  # noqa: BLE001
            reason = getattr(explained(error), "what", None) or f"{type(error).__name__}: {error}"
            line = f"serve: {settings.inbox} could not be checked: {reason}"
            print(masked(line), file=sys.stderr, flush=True)


def _server(port: int) -> None:
    """Start Prefect's server unless PREFECT_API_URL is set, and set that variable for this process and its children."""
    servers = ui.prefect_server(port)
    ui.start(servers)
    os.environ["PREFECT_API_URL"] = f"{servers['Prefect'][0]}/api"
    # Prefect has already read its settings, and would otherwise start a second server
    refresh_global_settings_context()


@contextmanager
def _only_one() -> Iterator[None]:
    """Hold the lock of this folder's service; released when this process ends.

    Raises:
        StageError: another process serves this folder.
    """
    SERVE_LOCK.parent.mkdir(parents=True, exist_ok=True)
    with SERVE_LOCK.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            pid = stream.read().strip() or "unknown"
            raise StageError(
                f"{SERVE_LOCK}: this folder is served already, by the process {pid}",
                f"use that one, or end it with `kill {pid}` and run `make serve` again",
            ) from error
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield


def _end_quietly() -> None:
    """Let Ctrl-C and SIGTERM end Prefect's runner without what it logs and warns of while it stops."""

    def is_wanted(record: logging.LogRecord) -> bool:
        if record.getMessage().startswith("SIGTERM received"):
            logging.disable(logging.CRITICAL)
            return False
        return True

    logging.getLogger("prefect.runner").addFilter(is_wanted)
    warnings.filterwarnings("ignore", message="coroutine 'Runner.astop' was never awaited")
    signal.signal(signal.SIGINT, lambda *_: os.kill(os.getpid(), signal.SIGTERM))


def _serve(port: int) -> None:
    params = parameters.load()
    served = [retraining(params), *map(by_hand, BY_HAND)]
    # before anything starts: an address without its package, or of an unknown kind
    inbox.Inbox(params.retrain.inbox)
    stop = threading.Event()
    with _only_one():
        server.check()
        try:
            _server(port)
            os.environ[run_state.SERVED] = "1"
            with get_client(sync_client=True) as client:
                run_state.close_dead(client)
                for one in served:
                    run_state.close_unserved(client, one.name)
            if params.schedule.on_arrival:
                threading.Thread(target=watch, args=(params, stop), daemon=True).start()
            _end_quietly()
            # its end at SIGTERM
            with suppress(SystemExit, KeyboardInterrupt, TerminationSignal):
                runner = Runner(pause_on_shutdown=False)
                for one in served:
                    runner.add_deployment(one)
                # Prefect's own hint fails in a shell without the address
                print(hint(os.environ["PREFECT_API_URL"]), flush=True)
                asyncio.run(runner.start())
            print("\nEnded.", file=sys.stderr, flush=True)
        finally:
            stop.set()
            end_groups(wait=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--prefect-port", type=ui.port_number, default=4200, help="default: %(default)s")
    arguments = parser.parse_args()
    die_with_parent()
    with reported("Ended.", at_sigterm=True):
        _serve(arguments.prefect_port)


if __name__ == "__main__":
    main()
