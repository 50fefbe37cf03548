"""The whole comparison: every DVC stage as a Prefect task, independent ones side by side.

    python -m flows.compare                                     # params.yaml as it is
    python -m flows.compare --params-overlay examples/x.yaml    # after laying that file over params.yaml

`dvc repro` gives the same result, one stage after the other and without the tracked comparison.
"""

import argparse
import threading
import time
from pathlib import Path
from typing import Any

from flows import environment  # noqa: F401  isort: skip  (before prefect is imported)
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.concurrency.sync import concurrency
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed, State
from prefect.task_runners import ThreadPoolTaskRunner

from flows import run_state, startup, workers
from segcore import params as parameters
from segcore.comparison.results import read_comparison
from segcore.errors import StageError
from tasks.configure import configure
from tasks.project import COMPARISON, comparison_file, report_folder
from tasks.supervisor import end_groups
from tasks.tracking import runs
from tasks.tracking.tracker import Tracker
from tasks.versioning import stages
from tasks.versioning.remote import HEAVY
from tasks.versioning.stages import Stage
from tasks.versioning.status import Survey, survey

_MOST_THREADS = 32
# Until Prefect's server has written down the end of the stage before: a slot that is asked for meanwhile is a
# conflict in its SQLite, after which the client waits for two seconds.
_CALM_SECONDS = 0.3


class Tally:
    """How many stages are done, counted by several threads.

    Args:
        total: stages.
    """

    def __init__(self, total: int) -> None:
        self.total, self._done, self._lock = total, 0, threading.Lock()

    def one_more(self) -> str:
        """Note that a stage is done; "3 of 16 stages done"."""
        with self._lock:
            self._done += 1
            return f"{self._done} of {self.total} stages done"


@task(task_run_name="{stage.name}", cache_policy=NO_CACHE)
def run_stage(
    stage: Stage,
    same: bool,
    force: bool,
    slots: threading.BoundedSemaphore,
    pool: workers.Pool | None,
    tally: Tally,
    threads: dict[str, str],
) -> State[Any]:
    """Bring one stage up to date; its state is named and worded after what happened: ran or cached.

    Args:
        stage: of the survey's graph.
        same: DVC has found it unchanged, with all that is upstream of it.
        force: run it even so.
        slots: bounds the heavy stages that run at a time in this process.
        pool: runs heavy stages on other machines; None: they run here.
        tally: of the stages that are done.
        threads: environment that divides the cores.

    Raises:
        StageError: the stage failed.
    """
    if same and not force:
        return Completed(
            name="Cached", message=f"cached, nothing it depends on has changed · {tally.one_more()}"
        )
    env = run_state.flow_variables() | startup.variables() | threads
    if stage.kind in HEAVY and pool is not None:
        outcome = pool.run(stage)
    elif stage.kind in HEAVY:
        with slots:
            time.sleep(_CALM_SECONDS)
            with concurrency(run_state.LIMIT, lease_duration=60, strict=True):
                outcome = stages.reproduce(stage.name, force, env)
    else:
        outcome = stages.reproduce(stage.name, force, env)
    done = tally.one_more()
    get_run_logger().info("%s %s · %s", stage.name, outcome, done)
    if outcome == "ran":
        return Completed(name="Ran", message=f"ran · {done}")
    return Completed(name="Cached", message=f"cached, DVC had its result · {done}")


@flow(name="compare", task_runner=ThreadPoolTaskRunner(max_workers=_MOST_THREADS))  # type: ignore[arg-type]
def compare(retries: int = 0) -> dict[str, str]:
    """Run all stages of the project in the current folder, and log the comparison.

    Args:
        retries: how often a failed stage is started again; a training continues from its checkpoint.

    Returns:
        "ran" or "cached" by stage name.

    Raises:
        ParamsError: params.yaml is wrong.
        StageError: a stage failed; those that do not depend on it were finished first.
    """
    params = parameters.load()
    slots, threads = run_state.slots_of(params), run_state.thread_variables(params)
    run_state.bind_embedded_server()
    run_state.free_slots(slots)
    stages.init_if_needed()
    found = _survey()
    # no output of DVC: it holds timings
    page = report_folder(params.data.name) / "index.html"
    if not page.exists():
        found = found._replace(unchanged=found.unchanged - {"report"})
    tracker = Tracker.open(params)
    tracker.close_abandoned()
    try:
        if not found.nothing_to_do:
            startup.start_fork_server(threads)
        force = set() if page.exists() else {"report"}
        pool = (
            workers.Pool(params, found.graph, tracker) if params.machine.infrastructure == "workers" else None
        )
        outcomes = _run_all(found, pool, slots, threads, retries, force)
    except BaseException as error:
        if not isinstance(error, Exception):
            # Ctrl-C or a cancelled run: other threads still wait for their stages
            end_groups()
        raise
    finally:
        startup.stop_fork_server()
    comparison = read_comparison(comparison_file())
    runs.log_comparison(tracker, params, comparison, [page.parent, COMPARISON])
    run_state.publish(comparison, page.parent)
    run_state.wait_until_recorded(len(outcomes))
    return outcomes


def _survey() -> Survey:
    """What there is to do, after results that params.yaml no longer names are removed."""
    found = survey()
    removed = stages.prune(found.graph)
    for path in removed:
        get_run_logger().info("removed %s: params.yaml names it no more (DVC's cache keeps it)", path)
    return survey() if removed else found


def _run_all(
    found: Survey,
    pool: workers.Pool | None,
    slots: int,
    threads: dict[str, str],
    retries: int,
    force: set[str],
) -> dict[str, str]:
    graph = found.graph
    semaphore = threading.BoundedSemaphore(slots)
    futures: dict[str, PrefectFuture[Any]] = {}
    step, tally = run_stage.with_options(retries=retries), Tally(len(graph))
    for stage in graph:
        upstream = [futures[name] for name in stage.upstream]
        future: Any = step.submit(  # type: ignore[call-overload]
            stage,
            stage.name in found.unchanged,
            stage.name in force,
            slots=semaphore,
            pool=pool,
            tally=tally,
            threads=threads,
            wait_for=upstream,
        )
        futures[stage.name] = future
    wait(list(futures.values()))
    failures = [f.state for f in futures.values() if f.state.is_failed() or f.state.is_crashed()]
    if failures:
        # raises what the stage raised
        failures[0].result()
    skipped = [name for name, future in futures.items() if not future.state.is_completed()]
    if skipped:
        raise StageError(f"stages were not run: {', '.join(skipped)}", "see the log above, then run again")
    return {name: str(future.state.name).lower() for name, future in futures.items()}


def main() -> None:
    """Command line: exits with 1 and a remedy on an error that can be mended."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--params-overlay", type=Path, help="make params.yaml be about this example first")
    parser.add_argument(
        "--retries", type=int, default=0, help="how often a failed stage is started again (default: 0)"
    )
    arguments = parser.parse_args()
    with run_state.as_command("Interrupted; stages that finished are kept."):
        if arguments.params_overlay:
            configure(arguments.params_overlay.stem, examples=arguments.params_overlay.parent)
        params = parameters.load()
        outcomes = compare(arguments.retries)
        print(run_state.summary(params, outcomes))


if __name__ == "__main__":
    main()
