"""Helpers of all flows: slots, dead flow runs, environment variables of stages, the summary."""

import csv
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

from flows import environment  # noqa: F401  isort: skip  (before prefect is imported)
from prefect import runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL
from prefect.states import Crashed

from flows import mlflow_pages, server
from segcore import params as parameters
from segcore.comparison.leaderboard import leaderboard_text
from segcore.comparison.results import read_comparison
from segcore.cpu import cores
from segcore.errors import ParamsError, masked
from segcore.params import Params
from tasks.complete import complete
from tasks.process_marks import is_alive, process_mark
from tasks.project import INGESTED, PARAMS, comparison_file, report_folder
from tasks.supervisor import die_with_parent

LIMIT = "segflow-gpu"
# environment variable, set by flows.serve for the runs that it starts
SERVED = "SEGFLOW_SERVED"
_BUSY = (StateType.PENDING, StateType.RUNNING, StateType.PAUSED, StateType.CANCELLING)
_PROCESS = "process:"
# follows the address of a UI without a server
_AFTER = " after `make ui`"
# upper limit; the server usually takes one or two seconds
_RECORDED_SECONDS = 10
# largest number of task runs in one answer of the server
_PAGE = 200
# device files of the drivers of NVIDIA, WSL and AMD
_DRIVERS = ("nvidiactl", "dxg", "kfd")


def gpus() -> int:
    """Number of CUDA devices."""
    if sys.platform == "linux" and not any(Path("/dev", name).exists() for name in _DRIVERS):
        # without a driver there are none; torch, which takes seconds to load, would return the same
        return 0
    import torch

    return torch.cuda.device_count()


def require_sections(params: Params) -> None:
    """Check that each architecture has a section, since the stages of DVC depend on the key `train.<architecture>`.

    Raises:
        ParamsError: an architecture has none.
    """
    missing = [name for name in params.architectures if name not in params.train]
    if missing:
        raise ParamsError(
            f"params.yaml: train has no section {missing[0]}, which `architectures` names",
            f"add it beside `common`, as in `train: {{{missing[0]}: {{}}}}`, and run again",
        )


def complete_params() -> Params:
    """Parameters of the current folder, after params.yaml was given the sections that stages need and it lacked."""
    complete(PARAMS)
    return parameters.load()


def slots_of(params: Params) -> int:
    """Number of heavy stages that run at the same time: `machine.slots`, else one per GPU, else one."""
    return params.machine.slots or gpus() or 1


def thread_variables(params: Params) -> dict[str, str]:
    """Environment variables that divide the cores between stages on CPUs; empty if the user has set OMP_NUM_THREADS.

    If each stage used all cores, threads of different stages would wait for each other at the end of every operator,
    which slows down both many times.
    """
    slots = slots_of(params)
    if slots == 1 or gpus() or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, cores() // slots))}


def process_tag() -> str:
    """Tag of a flow run that identifies its process, to check later whether it is alive."""
    return _PROCESS + process_mark()


def begin() -> None:
    """Begin a flow: its process ends with that of `flows.serve` if that started it, and its run names the process."""
    if os.environ.get(SERVED):
        # a run started by hand may outlive its terminal
        die_with_parent()
    tag_process()
    server.bind_embedded()


def is_part() -> bool:
    """Whether the present flow run is a part of another one."""
    context = FlowRunContext.get()
    return bool(context and context.flow_run and context.flow_run.parent_task_run_id)


def tag_process() -> None:
    """Add the process tag to the present flow run if it lacks it, as one started by a deployment does."""
    present_tags = list(runtime.flow_run.tags)
    if not any(tag.startswith(_PROCESS) for tag in present_tags):
        with get_client(sync_client=True) as client:
            client.update_flow_run(runtime.flow_run.id, tags=[*present_tags, process_tag()])


def wait_until_recorded(tasks: int) -> None:
    """Wait until an embedded Prefect server has recorded all task runs of this flow run.

    If it ended with this process while it writes, it would print a traceback below the flow's result.

    Args:
        tasks: number of task runs.
    """
    if PREFECT_API_URL.value():
        return
    deadline = time.monotonic() + _RECORDED_SECONDS
    this = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(runtime.flow_run.id)]))
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            runs = client.read_task_runs(flow_run_filter=this)
            if sum(run.state is not None and run.state.is_final() for run in runs) >= min(tasks, _PAGE):
                return
            time.sleep(0.1)


def free_slots(slots: int) -> None:
    """Set the limit of heavy stages to `slots`, and release slots of killed flow runs.

    Flow runs whose process is dead become Crashed. If this server has no other flow run, all slots in use are
    left-overs of killed runs: an embedded server that was killed with its flow could not release them.
    """
    with get_client(sync_client=True) as client:
        others = close_dead(client)
        client.upsert_global_concurrency_limit_by_name(LIMIT, slots)
        if not others:
            client.update_global_concurrency_limit(LIMIT, GlobalConcurrencyLimitUpdate(active_slots=0))


def close_dead(client: SyncPrefectClient) -> list[FlowRun]:
    """Set dead flow runs to Crashed; returns the other running ones, without this one, also those of unknown state."""
    others = []
    for run in client.read_flow_runs(flow_run_filter=_in_states(StateType.RUNNING, StateType.PAUSED)):
        if str(run.id) == runtime.flow_run.id:
            continue
        if _is_alive(run) is False:
            _crash(client, run)
        else:
            others.append(run)
    return others


def close_unserved(client: SyncPrefectClient, deployment: str) -> None:
    """Set flow runs that a killed `flows.serve` has left of a deployment to Crashed, before this process serves it.

    A run without a process tag was killed before it could set it, and counts as dead. It would otherwise occupy the
    deployment's concurrency limit for five minutes, in which every new run would be cancelled.
    """
    for run in busy_runs(client, deployment):
        if not _is_alive(run):
            _crash(client, run)


def busy_runs(client: SyncPrefectClient, deployment: str) -> list[FlowRun]:
    """Flow runs that count for a deployment's concurrency limit: while there is one, a new run is cancelled."""
    name = DeploymentFilter(name=DeploymentFilterName(any_=[deployment]))
    return client.read_flow_runs(flow_run_filter=_in_states(*_BUSY), deployment_filter=name)


def _in_states(*kinds: StateType) -> FlowRunFilter:
    """Filter for flow runs in these states."""
    return FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(kinds))))


def _is_alive(run: FlowRun) -> bool | None:
    """Whether the process of a flow run is alive; None if the run has no process tag."""
    mark = next((t.removeprefix(_PROCESS) for t in run.tags if t.startswith(_PROCESS)), None)
    return None if mark is None else is_alive(mark)


def _crash(client: SyncPrefectClient, run: FlowRun) -> None:
    client.set_flow_run_state(run.id, Crashed(message="its process is dead"), force=True)


def flow_variables() -> dict[str, str]:
    """Environment variables with the flow run, which a stage logs to MLflow."""
    values = {"SEGFLOW_FLOW_RUN_ID": runtime.flow_run.id, "SEGFLOW_FLOW_RUN_URL": runtime.flow_run.ui_url}
    return {name: str(value) for name, value in values.items() if value}


def summary(params: Params, outcomes: Mapping[str, str]) -> str:
    """Text printed at the end: leaderboard, numbers of stages, addresses of the report and the UIs."""
    from tasks.costs import measured_costs

    comparison = read_comparison(comparison_file())
    ran = [name for name, outcome in outcomes.items() if outcome == "ran"]
    page = report_folder(params.data.name) / "index.html"
    return "\n".join(
        [
            "",
            leaderboard_text(comparison, measured_costs(Path(), [*comparison.titles], comparison.seeds)),
            "",
            f"Stages: {len(ran)} ran, {len(outcomes) - len(ran)} cached",
            *_left_out(params),
            f"Report: {page.resolve().as_uri()}",
            f"MLflow UI: {mlflow_pages.page(params)}{'' if mlflow_pages.is_served(params) else _AFTER}, "
            f"experiment {params.data.name}",
            f"Prefect UI: {_prefect_ui()}, flow compare",
        ]
    )


def _left_out(params: Params) -> list[str]:
    """A line on quarantined items, if there are any."""
    path = INGESTED / "quarantine.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        count = sum(1 for _ in csv.DictReader(stream))
    return (
        [f"Left out: {count} quarantined items, see {report_folder(params.data.name)}/data.html"]
        if count
        else []
    )


def _prefect_ui() -> str:
    """Address of the server's UI; without a server, that of `make ui`."""
    server = os.environ.get("PREFECT_API_URL", "")
    return (
        masked(server.removesuffix("/api")) if server.startswith("http") else f"http://127.0.0.1:4200{_AFTER}"
    )
