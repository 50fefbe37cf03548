"""What flows share around their stages: slots, dead flow runs, variables for children, the closing words."""

import csv
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

from flows import environment  # noqa: F401  isort: skip  (before prefect is imported)
import psutil
from prefect import runtime, tags
from prefect.artifacts import create_markdown_artifact, create_table_artifact
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
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Crashed

from segcore.comparison.leaderboard import leaderboard, leaderboard_text
from segcore.comparison.results import Comparison, read_comparison
from segcore.cpu import cores
from segcore.errors import SegflowError
from segcore.params import Params
from tasks.process_marks import is_alive, process_mark
from tasks.project import INGESTED, comparison_file, report_folder
from tasks.supervisor import end_with_this_process
from tasks.tracking import store

LIMIT = "segflow-gpu"
_BUSY = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
_PROCESS = "process:"
# at most; it takes one or two
_RECORDED_SECONDS = 10
# runs that the server tells of at once
_PAGE = 200
# of NVIDIA, of Windows' GPUs under Linux, of AMD
_DRIVERS = ("nvidiactl", "dxg", "kfd")


def gpus() -> int:
    """Number of CUDA devices, 0 without."""
    if sys.platform == "linux" and not any(Path("/dev", name).exists() for name in _DRIVERS):
        # no driver: torch, which takes seconds to load, would say the same
        return 0
    import torch

    return torch.cuda.device_count()


def slots_of(params: Params) -> int:
    """Heavy stages that run at a time: what params.yaml says, else one a GPU, or one."""
    return params.machine.slots or gpus() or 1


def thread_variables(params: Params) -> dict[str, str]:
    """Environment by which stages that share CPUs get their part of the cores, unless the user's own says how many.

    With all cores each, threads of one wait for those of the other at the end of every operator, and both come to a
    halt.
    """
    slots = slots_of(params)
    if slots == 1 or gpus() or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, cores() // slots))}


def process_tag() -> str:
    """Tag of a flow run that tells, later, whether its process lives."""
    return _PROCESS + process_mark()


def tag_process() -> None:
    """Give the present flow run its process' tag, where a deployment and not this project's command started it."""
    own = list(runtime.flow_run.tags)
    if not any(tag.startswith(_PROCESS) for tag in own):
        with get_client(sync_client=True) as client:
            client.update_flow_run(runtime.flow_run.id, tags=[*own, process_tag()])


def bind_embedded_server() -> None:
    """Let the server that Prefect starts where none is configured end with this process, even by kill -9."""
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            # it has ended already
            if any("prefect.server.api.server" in argument for argument in child.cmdline()):
                end_with_this_process(child.pid)


def wait_until_recorded(tasks: int) -> None:
    """Where Prefect's server ends with this process: let it write down all tasks of this flow run before it does.

    Ended in the midst of it, it prints a traceback below the flow's result.
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
    """Set the limit on heavy stages to `slots`, and free those that flows held when they were killed.

    A flow run whose process is dead becomes Crashed. Where no other flow run of this server remains, slots
    still held are left-overs, which an embedded server, gone with its flow, can no longer take back itself.
    """
    with get_client(sync_client=True) as client:
        others = close_dead(client)
        client.upsert_global_concurrency_limit_by_name(LIMIT, slots)
        if not others:
            client.update_global_concurrency_limit(LIMIT, GlobalConcurrencyLimitUpdate(active_slots=0))


def close_dead(client: SyncPrefectClient) -> list[FlowRun]:
    """Mark dead flow runs as Crashed; returns those that live, or whose fate is unknown, but this one."""
    living = []
    for run in client.read_flow_runs(flow_run_filter=_in_states(StateType.RUNNING)):
        if str(run.id) == runtime.flow_run.id:
            continue
        if _lives(run) is False:
            _crash(client, run)
        else:
            living.append(run)
    return living


def close_unserved(client: SyncPrefectClient, deployment: str) -> None:
    """Mark as Crashed what a killed `flows.serve` has left of a deployment, before this process serves it alone.

    A run that was killed before it could say which process it is counts as dead. Left as it is, it would keep the only
    place of the deployment for five minutes, and every new run would be cancelled.
    """
    for run in busy_runs(client, deployment):
        if not _lives(run):
            _crash(client, run)


def busy_runs(client: SyncPrefectClient, deployment: str) -> list[FlowRun]:
    """Flow runs that hold a deployment's place: while there is one, a trigger is cancelled."""
    name = DeploymentFilter(name=DeploymentFilterName(any_=[deployment]))
    return client.read_flow_runs(flow_run_filter=_in_states(*_BUSY), deployment_filter=name)


def _in_states(*kinds: StateType) -> FlowRunFilter:
    """Filter of flow runs."""
    return FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(kinds))))


def _lives(run: FlowRun) -> bool | None:
    """Whether the process of a flow run lives; None where the run does not tell which one it is."""
    mark = next((t.removeprefix(_PROCESS) for t in run.tags if t.startswith(_PROCESS)), None)
    return None if mark is None else is_alive(mark)


def _crash(client: SyncPrefectClient, run: FlowRun) -> None:
    client.set_flow_run_state(run.id, Crashed(message="its process is gone"), force=True)


def flow_variables() -> dict[str, str]:
    """Environment by which a stage tells MLflow which flow run it belongs to."""
    known = {"SEGFLOW_FLOW_RUN_ID": runtime.flow_run.id, "SEGFLOW_FLOW_RUN_URL": runtime.flow_run.ui_url}
    return {name: str(value) for name, value in known.items() if value}


def publish(comparison: Comparison, folder: Path) -> None:
    """Show the report and the leaderboard on the flow run's page."""
    name = comparison.dataset
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    create_markdown_artifact(key=f"report-{name}", markdown=markdown, description=comparison.verdict)
    rows = [
        {key: round(value, 4) if isinstance(value, float) else value for key, value in record.items()}
        for record in leaderboard(comparison).records()
    ]
    create_table_artifact(key=f"leaderboard-{name}", table=rows, description=comparison.headline)


def summary(params: Params, outcomes: Mapping[str, str]) -> str:
    """What a user reads at the end."""
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
            f"MLflow UI: {_address(store.uri(params), 5000)}, experiment {params.data.name}",
            f"Prefect UI: {_address(os.environ.get('PREFECT_API_URL', ''), 4200)}, flow compare",
        ]
    )


def _left_out(params: Params) -> list[str]:
    """A line on quarantined items, where there are any."""
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


def _address(server: str, port: int) -> str:
    """A server's own address, or that of `make ui` for what is kept in this folder."""
    return (
        server.removesuffix("/api")
        if server.startswith("http")
        else f"http://127.0.0.1:{port} after `make ui`"
    )


def _plain(record: logging.LogRecord) -> bool:
    """Take the traceback from an error that a user can mend: its message names cause and remedy."""
    if record.exc_info and isinstance(record.exc_info[1], SegflowError):
        record.msg, record.args, record.exc_info = str(record.exc_info[1]), (), None
    return True


@contextmanager
def as_command(interrupted: str) -> Iterator[None]:
    """What the commands of flows share: the process' tag, and exit code 1 with a remedy where an error can be mended.

    They send no heartbeats, unless the user's environment asks for them; nobody else listens to any but those of the
    workers' stages, and waiting for the thread that sends them takes a second at the end of every flow.

    Args:
        interrupted: what is said at Ctrl-C, before exit code 130.
    """
    try:
        no_traceback_for_mendable_errors()
        asked = PREFECT_FLOWS_HEARTBEAT_FREQUENCY.name in os.environ
        with (
            tags(process_tag()),
            temporary_settings({} if asked else {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
        ):
            yield
    except SegflowError as error:
        print(f"\nError: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        sys.exit(130)


def no_traceback_for_mendable_errors() -> None:
    """Filter the log of Prefect's engine."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_plain)
