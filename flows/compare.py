"""The whole comparison: each DVC stage is a Prefect task; independent stages run in parallel.

    python -m flows.compare                                     # params.yaml as it is
    python -m flows.compare --params-overlay examples/x.yaml    # merges that file into params.yaml first

`dvc repro` gives the same result, one stage after the other and without logging the comparison to MLflow.
"""

import argparse
import threading
import time
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from flows import environment  # noqa: F401  isort: skip  (before prefect is imported)
from prefect import Task, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.concurrency.sync import concurrency
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed, State
from prefect.task_runners import ThreadPoolTaskRunner

from flows import artifacts, command, run_state, startup, workers
from segcore import params as parameters
from segcore.comparison.results import read_comparison
from segcore.errors import SegflowError, StageError
from segcore.files import alone
from segcore.params import Params
from tasks import batches, networks, sqlite, training_time
from tasks.configure import configure
from tasks.project import COMPARE_LOCK, COMPARISON, PLAN, comparison_file, report_folder
from tasks.reporting.age import is_current
from tasks.tracking import runs
from tasks.tracking.tracker import Tracker
from tasks.versioning import stages
from tasks.versioning.remote import HEAVY
from tasks.versioning.stages import Stage
from tasks.versioning.status import Survey, survey

_MAX_THREADS = 32
# attempts of a stage, besides those of `retries`, after a store was locked by another process
BUSY_RETRIES = 1
# Prefect's server records the end of the previous stage meanwhile: a slot requested during that write is a conflict in
# its SQLite database, after which the client waits for two seconds
_RECORD_SECONDS = 0.3
_INTERRUPTED = "Interrupted; finished stages are kept."


class Tally:
    """Thread-safe count of the finished stages, and of the trainings that have not ended.

    Args:
        total: number of all stages.
        trainings: names of the trainings that run.
        slots: number of stages that run at the same time.
    """

    def __init__(self, total: int, trainings: Iterable[str], slots: int) -> None:
        self.total, self._done, self._lock = total, 0, threading.Lock()
        self._trainings, self._slots = set(trainings), slots

    def add_one(self, stage: str) -> str:
        """Count a finished stage; returns text such as "3 of 16 stages done"."""
        with self._lock:
            self._done += 1
            self._trainings.discard(stage)
            return f"{self._done} of {self.total} stages done"

    def variables(self) -> dict[str, str]:
        """Environment variable by which a training tells the time of all that are left."""
        with self._lock:
            return {training_time.LEFT: f"{max(1, len(self._trainings))} {self._slots}"}


def _may_retry(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed stage is started again: `retries` times for any cause, and once where a store was locked."""
    if run.run_count <= task.retries - BUSY_RETRIES:
        return True
    return run.run_count <= task.retries and sqlite.BUSY in (state.message or "")


@task(task_run_name="{stage.name}", cache_policy=NO_CACHE, retry_condition_fn=_may_retry)
@command.with_sentences
def run_stage(
    stage: Stage,
    unchanged: bool,
    force: bool,
    slots: threading.BoundedSemaphore,
    pool: workers.Pool | None,
    tally: Tally,
    threads: dict[str, str],
) -> State[Any]:
    """Bring one stage up to date; the name of the returned state is Ran or Cached.

    Args:
        stage: stage of the survey's graph.
        unchanged: whether the stage and everything upstream of it are unchanged.
        force: run it even if it is unchanged.
        slots: limits how many heavy stages run at the same time in this process.
        pool: runs heavy stages on other machines; None: they run here.
        tally: count of the finished stages.
        threads: environment variables that divide the cores between stages.

    Raises:
        StageError: the stage failed.
    """
    if unchanged and not force:
        return Completed(
            name="Cached", message=f"cached, no dependency has changed · {tally.add_one(stage.name)}"
        )
    env = run_state.flow_variables() | startup.variables() | threads
    if stage.kind in HEAVY and pool is not None:
        outcome = pool.run(stage)
    elif stage.kind in HEAVY:
        with slots:
            time.sleep(_RECORD_SECONDS)
            with concurrency(run_state.LIMIT, lease_duration=60, strict=True):
                outcome = stages.reproduce(stage.name, force, env | tally.variables())
    else:
        outcome = stages.reproduce(stage.name, force, env)
    done = tally.add_one(stage.name)
    get_run_logger().info("%s %s · %s", stage.name, outcome, done)
    if outcome == "ran":
        return Completed(name="Ran", message=f"ran · {done}")
    return Completed(name="Cached", message=f"cached, DVC had its result · {done}")


@flow(name="compare", task_runner=ThreadPoolTaskRunner(max_workers=_MAX_THREADS))  # type: ignore[arg-type]
@command.with_sentences
def compare(retries: int = 0) -> dict[str, str]:
    """Run all stages of the project in the current folder, and log the comparison.

    Args:
        retries: how often a failed stage is started again; a training resumes from its checkpoint. A stage that failed
            because another process had locked a store is started once more in any case.

    Returns:
        "ran" or "cached" by stage name.

    Raises:
        ParamsError: params.yaml is invalid.
        StageError: a stage failed; stages that do not depend on it were finished first. Or another comparison or a
            retraining is running in this folder.
    """
    params = run_state.complete_params()
    run_state.begin()
    # a round of retraining, of which the comparison is a part, holds the lock itself
    with nullcontext() if run_state.is_part() else alone(COMPARE_LOCK, "a comparison or a retraining"):
        return _compare(params, retries)


def _compare(params: Params, retries: int) -> dict[str, str]:
    slots, threads = run_state.slots_of(params), run_state.thread_variables(params)
    run_state.free_slots(slots)
    stages.init_if_needed()
    batches.pull_missing(params)
    pipeline = _survey()
    # the page contains timings, so it is no output of a DVC stage, and DVC does not notice that it is missing or older
    # than a decision
    page = report_folder(params.data.name) / "index.html"
    current = is_current(page, Path(), params.data.name)
    if not current:
        pipeline = pipeline._replace(unchanged=pipeline.unchanged - {"report"})
    trainings = list(_trainings(pipeline).values())
    if line := training_time.of_earlier(Path(), params, trainings, slots):
        get_run_logger().info("%s", line)
    tracker = Tracker.open(params)
    tracker.close_abandoned()
    try:
        if not pipeline.nothing_to_do:
            startup.start_fork_server(threads)
        if trainings:
            # before the first stage; in a fork, because torch takes seconds to import
            networks.require_networks_in_process({**startup.variables(), **threads})
        force = set() if current else {"report"}
        pool = (
            workers.Pool(params, pipeline.graph, tracker)
            if params.machine.infrastructure == "workers"
            else None
        )
        outcomes = _run_all(pipeline, pool, slots, threads, retries, force)
    except BaseException as error:
        if not isinstance(error, Exception):
            command.stop_quietly()
        raise
    finally:
        startup.stop_fork_server()
    # with the values of a plan that was made meanwhile
    params = parameters.load()
    comparison = read_comparison(comparison_file())
    run = runs.log_comparison(tracker, params, comparison, [page.parent, COMPARISON, PLAN])
    artifacts.publish(comparison, page.parent, params, run)
    run_state.wait_until_recorded(len(outcomes))
    return outcomes


def _trainings(pipeline: Survey) -> dict[str, tuple[str, int]]:
    """Architecture and seed of each training that will run, by name of its stage."""
    return {
        stage.name: (stage.architecture, stage.seed)
        for stage in pipeline.graph
        if stage.kind == "train" and stage.name not in pipeline.unchanged
        if stage.architecture is not None and stage.seed is not None
    }


def _survey() -> Survey:
    """State of the pipeline, after results that are no longer in params.yaml are removed."""
    current = survey()
    removed = stages.prune(current.graph)
    for path in removed:
        get_run_logger().info("removed %s: no longer in params.yaml (DVC's cache keeps it)", path)
    return survey() if removed else current


def _run_all(
    pipeline: Survey,
    pool: workers.Pool | None,
    slots: int,
    threads: dict[str, str],
    retries: int,
    force: set[str],
) -> dict[str, str]:
    graph = pipeline.graph
    semaphore = threading.BoundedSemaphore(slots)
    futures: dict[str, PrefectFuture[Any]] = {}
    stage_task = run_stage.with_options(retries=retries + BUSY_RETRIES)
    tally = Tally(len(graph), _trainings(pipeline), slots)
    for stage in graph:
        upstream = [futures[name] for name in stage.upstream]
        future: Any = stage_task.submit(  # type: ignore[call-overload]
            stage,
            stage.name in pipeline.unchanged,
            stage.name in force,
            slots=semaphore,
            pool=pool,
            tally=tally,
            threads=threads,
            wait_for=upstream,
        )
        futures[stage.name] = future
    wait(list(futures.values()))
    failed = [name for name, f in futures.items() if f.state.is_failed() or f.state.is_crashed()]
    skipped = [name for name, f in futures.items() if name not in failed and not f.state.is_completed()]
    if failed:
        _raise_all([_error_of(futures[name].state) for name in failed], skipped)
    if skipped:
        raise StageError(
            f"these stages did not run: {', '.join(skipped)}", "see the log above, then run again"
        )
    return {name: str(future.state.name).lower() for name, future in futures.items()}


def _error_of(state: State[Any]) -> BaseException:
    found = state.result(raise_on_failure=False)
    return found if isinstance(found, BaseException) else StageError(str(state.message), "run again")


def _raise_all(errors: list[BaseException], skipped: list[str]) -> None:
    """Raise the only error, or one that has the sentences of all; errors without a remedy take precedence."""
    defects = [error for error in errors if not isinstance(error, SegflowError)]
    known = [error for error in errors if isinstance(error, SegflowError)]
    if defects:
        raise defects[0]
    what = [*dict.fromkeys(error.what for error in known)]
    remedies = [*dict.fromkeys(error.remedy for error in known)]
    if skipped:
        what.append(f"not run because of that: {', '.join(skipped)}")
    raise StageError("\n".join(what), "; ".join(remedies))


def main() -> None:
    """Command line; exits with status 1 and prints a remedy on a SegflowError."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--params-overlay", type=Path, help="merge this example file into params.yaml first")
    parser.add_argument(
        "--retries",
        type=int,
        default=0,
        help="how often a failed stage is started again (default: 0; once more where a store was locked)",
    )
    arguments = parser.parse_args()
    with command.reported(_INTERRUPTED):
        # errors that need no server
        if arguments.params_overlay:
            configure(arguments.params_overlay.stem, examples=arguments.params_overlay.parent)
        params = run_state.complete_params()
    with command.as_command(_INTERRUPTED):
        outcomes = compare(arguments.retries)
        print(run_state.summary(params, outcomes))


if __name__ == "__main__":
    main()
