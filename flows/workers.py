"""Trainings and evaluations on other machines: `machine.infrastructure: workers`.

The client pushes the project (git) and the prepared data (DVC) to their remotes, and submits one flow run of
flows/stage.py per stage. The idempotency key of the flow run contains the stage's run key and the number of the
attempt, so that several clients that need the same result share one flow run. An automation of Prefect's server sets
flow runs without heartbeats to Crashed; the client submits them again.
"""

import itertools
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from flows import environment  # noqa: F401  isort: skip  (before prefect is imported)
from prefect import get_run_logger
from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from flows.stage import require_shared_store
from segcore.errors import StageError
from segcore.params import Params
from tasks.tracking import runs
from tasks.tracking.tracker import Tracker
from tasks.versioning import git, remote, stages
from tasks.versioning.stages import Outcome, Stage

# attempts of one stage that may end with a dead worker: a stage that crashes its machine must not crash all of them
MAX_CRASHES = 5
_POLL_SECONDS = 2.0
# a worker usually starts a flow run about 10 s after it has taken it
_PENDING_SECONDS = 180.0
# three heartbeats of 30 s, the interval set in prefect.yaml
_HEARTBEAT_TIMEOUT_SECONDS = 90
_AUTOMATION = "segflow: stages of dead workers"
_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed")


class Pool:
    """The work pool of one comparison; thread-safe.

    Args:
        params: all of params.yaml.
        graph: all stages.
        tracker: tracker of the data set.

    Raises:
        StageError: a server, DVC's remote or the deployment that workers need is missing.
    """

    def __init__(self, params: Params, graph: list[Stage], tracker: Tracker) -> None:
        self.graph, self.tracker, self.work_pool = graph, tracker, params.machine.work_pool
        self.deployment = f"stage/{self.work_pool}"
        self._lock = threading.Lock()
        self._revision: str | None = None
        if not os.environ.get("PREFECT_API_URL"):
            raise StageError(
                "workers need a permanent Prefect server, and PREFECT_API_URL is not set",
                "start a server and set PREFECT_API_URL to its address",
            )
        require_shared_store(tracker.address)
        remote.check_remote()
        _check_deployment(self.deployment)
        _ensure_automation()

    def run(self, stage: Stage) -> Outcome:
        """Bring `stage` up to date on a worker, and fetch its result to this folder.

        Raises:
            StageError: the stage failed or was cancelled on the worker, or MAX_CRASHES workers died.
        """
        outcome: Outcome = "cached"
        if not remote.restore(stage.name):
            with self._lock:
                # the first thread pushes code and data, the others wait for it
                revision = self._revision = self._revision or self._send()
                key = stages.next_run_key(stage.name)
            outcome = self._submit(stage.name, revision, key)
        if stage.kind == "evaluate" and stage.architecture is not None and stage.seed is not None:
            runs.fetch_costs(self.tracker, stage.architecture, stage.seed)
        return outcome

    def _send(self) -> str:
        remote.send(remote.light_before_heavy(self.graph))
        with stages.dvc_locked():
            return git.snapshot()

    def _submit(self, stage: str, revision: str, key: str) -> Outcome:
        crashes = 0
        for attempt in itertools.count():
            run: FlowRun = run_deployment(  # type: ignore[assignment]
                self.deployment,
                parameters={"name": stage, "revision": revision},
                flow_run_name=stage,
                idempotency_key=f"{stage} {key} {attempt}",
                timeout=0,
            )
            earlier = run.state is not None and run.state.is_final()
            state = self._wait(run.id, stage)
            if state.is_completed():
                if remote.restore(stage):
                    return "cached" if state.name == "Cached" else "ran"
                if not earlier:
                    raise StageError(
                        f"a worker finished {stage}, but its result is not in DVC's remote",
                        "configure the same remote for the workers and this folder, see dvc remote list",
                    )
            elif not earlier and state.is_crashed():
                crashes += 1
                if crashes >= MAX_CRASHES:
                    raise StageError(
                        f"{stage}: {crashes} workers died while they ran it: {state.message}",
                        "see the workers' logs",
                    )
                get_run_logger().warning("%s: its worker died (%s); trying again", stage, state.message)
            elif not earlier:
                raise StageError(
                    f"{stage} {str(state.name).lower()} on its worker: {state.message}",
                    f"see the log of flow run {run.id}, correct the cause and run again",
                )
        raise AssertionError("the loop has no other end")

    def _wait(self, run: UUID, stage: str) -> State[Any]:
        warned = False
        with get_client(sync_client=True) as client:
            while True:
                state = client.read_flow_run(run).state
                assert state is not None
                if state.is_final():
                    if state.is_crashed():
                        self.tracker.close_of_flow_run(str(run))
                    return state
                waiting = (datetime.now(UTC) - state.timestamp).total_seconds()
                if state.is_pending() and waiting > _PENDING_SECONDS:
                    crashed: State[Any] = Crashed(
                        message=f"its worker took it and did not start it within {waiting:.0f} s"
                    )
                    client.set_flow_run_state(run, crashed, force=True)
                if state.name == "Late" and not warned:
                    warned = True
                    get_run_logger().warning(
                        "%s: no free worker in the work pool %s yet", stage, self.work_pool
                    )
                time.sleep(_POLL_SECONDS)


def _check_deployment(name: str) -> None:
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(name)
        except ObjectNotFound as error:
            raise StageError(
                f"Prefect's server has no deployment {name}",
                "prefect work-pool create --type process segflow; prefect deploy --all (docs/guide/cluster.md)",
            ) from error


def _ensure_automation() -> None:
    """Create the automation that sets flow runs `stage` without heartbeats to Crashed, as after a kill -9."""
    try:
        Automation.read(name=_AUTOMATION, _sync=True)  # type: ignore[call-overload]
        return
    except ValueError:
        # it does not exist yet
        pass
    trigger = EventTrigger(
        after={_HEARTBEAT},
        expect={_HEARTBEAT, *(f"prefect.flow-run.{end}" for end in _ENDS)},
        match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
        match_related=ResourceSpecification(
            {"prefect.resource.role": "flow", "prefect.resource.name": "stage"}
        ),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=_HEARTBEAT_TIMEOUT_SECONDS),
    )
    message = f"no heartbeat for {_HEARTBEAT_TIMEOUT_SECONDS} s: its worker is dead"
    crashed = ChangeFlowRunState(name="Crashed", state=StateType.CRASHED, message=message, force=False)
    Automation(name=_AUTOMATION, trigger=trigger, actions=[crashed]).create(_sync=True)  # type: ignore[call-arg]
