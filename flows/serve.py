"""Serve the scheduled retraining on this machine, until Ctrl-C: `make serve`.

One process: Prefect's server (unless PREFECT_API_URL names one), a deployment of the flow `retrain` with the schedule
of params.yaml, and a look at the inbox every `schedule.watch_seconds` where `schedule.on_arrival` is set. At most one
retraining runs; a trigger that comes meanwhile, or one of many that were missed, is cancelled at once.
"""

import argparse
import os
import sys
import threading
import time
from datetime import timedelta

from flows import environment  # noqa: F401  isort: skip  (before any server is started)
from prefect import serve
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.context import refresh_global_settings_context
from prefect.deployments import run_deployment
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron, Interval

from flows import run_state, ui
from flows.retrain import SERVED, retrain
from segcore import params as parameters
from segcore.errors import SegflowError
from segcore.ingest import inbox
from segcore.params import Params
from tasks.project import WORK
from tasks.supervisor import die_with_parent, end_groups

NAME = "retrain"


def deployment(params: Params) -> RunnerDeployment:
    """The flow `retrain` with its schedule; of several triggers at a time one runs."""
    wanted, schedule = params.schedule, None
    if wanted.cron:
        schedule = Cron(wanted.cron, timezone=wanted.timezone)
    elif wanted.interval_minutes:
        schedule = Interval(timedelta(minutes=wanted.interval_minutes), timezone=wanted.timezone)
    one = ConcurrencyLimitConfig(
        limit=1,
        collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW,
        # that a run killed before its process was up keeps the place; the least there is
        grace_period_seconds=60,
    )
    return RunnerDeployment.from_flow(retrain, NAME, schedule=schedule, concurrency_limit=one)


def watch(params: Params, stop: threading.Event) -> None:
    """Trigger a retraining when the inbox holds settled files that it did not hold at the last trigger.

    What arrives while one runs waits for its end: that one has looked into the inbox already.
    """
    settings = params.retrain
    seen: set[inbox.InboxFile] = set()
    while not stop.wait(params.schedule.watch_seconds):
        try:
            entries, _ = inbox.Inbox(settings.inbox).entries()
            here = {entry for entry in entries if time.time() - entry.changed >= settings.settle_seconds}
            if here - seen:
                with get_client(sync_client=True) as client:
                    if run_state.busy_runs(client, NAME):
                        continue
                run_deployment(f"retrain/{NAME}", timeout=0)
                print(f"serve: {len(here - seen)} new files in {settings.inbox}", flush=True)
            seen = here
        except Exception as error:  # noqa: BLE001 - a store that is out of reach for a while must not end the watch
            print(f"serve: {settings.inbox} could not be looked at: {error}", file=sys.stderr, flush=True)


def _server(port: int) -> None:
    """Start Prefect's server where none is named, and point this process and its children at it."""
    found = ui.prefect_server(port)
    ui.start(found)
    os.environ["PREFECT_API_URL"] = f"{found['Prefect'][0]}/api"
    # else Prefect, which read its settings before, starts a second server for itself
    refresh_global_settings_context()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--prefect-port", type=int, default=4200, help="default: %(default)s")
    arguments = parser.parse_args()
    die_with_parent()
    stop = threading.Event()
    try:
        params = parameters.load()
        WORK.mkdir(exist_ok=True)
        _server(arguments.prefect_port)
        os.environ[SERVED] = "1"
        with get_client(sync_client=True) as client:
            run_state.close_dead(client)
            run_state.close_unserved(client, NAME)
        if params.schedule.on_arrival:
            threading.Thread(target=watch, args=(params, stop), daemon=True).start()
        serve(deployment(params), pause_on_shutdown=False)
    except SegflowError as error:
        print(f"\nError: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nEnded.")
    finally:
        stop.set()
        end_groups(wait=True)


if __name__ == "__main__":
    main()
