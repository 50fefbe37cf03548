"""Trainings and evaluations on other machines: `machine.infrastructure: workers`.

The client puts the project (git) and the prepared data (DVC) where workers find them, and submits one flow run of
flows/stage.py for each stage. A result is never asked for twice: the flow run's idempotency key holds the stage's
run key and the number of the attempt, so that whoever asks for the same result gets the same flow run.
A flow run that no longer sends heartbeats is marked Crashed by an automation of Prefect's server, and tried again.
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

# of workers under one stage: a stage that takes its machine down must not take all of them
MOST_DEATHS = 5
_LOOK_SECONDS = 2.0
# a worker takes some 10 s from taking a flow run to beginning it
_PENDING_SECONDS = 180.0
# three heartbeats of 30 s, which prefect.yaml asks for
_SILENT_SECONDS = 90
_AUTOMATION = "segflow: stages of dead workers"
_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed")


class Pool:
    """The work pool of one comparison. Threads may share it.

    Args:
        params: the whole of params.yaml.
        graph: of the survey.
        tracker: of the data set.

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
                "workers need a Prefect server of their own",
                "start one and set PREFECT_API_URL to its address",
            )
        require_shared_store(tracker.address)
        remote.check_remote()
        _check_deployment(self.deployment)
        _ensure_automation()

    def run(self, stage: Stage) -> Outcome:
        """Have a worker bring `stage` up to date, and take its result into this folder.

        Raises:
            StageError: the stage failed or was cancelled there, or its workers died MOST_DEATHS times.
        """
        outcome: Outcome = "cached"
        if not remote.restore(stage.name):
            with self._lock:
                # the first thread sends code and data, the others need only wait
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
        deaths = 0
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
                        "give workers and this folder the same remote, see dvc remote list",
                    )
            elif not earlier and state.is_crashed():
                deaths += 1
                if deaths >= MOST_DEATHS:
                    raise StageError(
                        f"{stage}: {deaths} workers died under it: {state.message}", "see the workers' logs"
                    )
                get_run_logger().warning("%s: its worker died (%s); trying again", stage, state.message)
            elif not earlier:
                raise StageError(
                    f"{stage} {str(state.name).lower()} on its worker: {state.message}",
                    f"see the log of flow run {run.id}, mend the cause and run again",
                )
        raise AssertionError("attempts never end by themselves")

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
                    gone: State[Any] = Crashed(
                        message=f"its worker took it and did not begin within {waiting:.0f} s"
                    )
                    client.set_flow_run_state(run, gone, force=True)
                if state.name == "Late" and not warned:
                    warned = True
                    get_run_logger().warning(
                        "%s: no free worker in the work pool %s yet", stage, self.work_pool
                    )
                time.sleep(_LOOK_SECONDS)


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
    """Have Prefect's server mark as Crashed a flow run `stage` without heartbeats: an engine killed by -9 cannot."""
    try:
        Automation.read(name=_AUTOMATION, _sync=True)  # type: ignore[call-overload]
        return
    except ValueError:
        # there is none of that name
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
        within=timedelta(seconds=_SILENT_SECONDS),
    )
    message = f"no heartbeat for {_SILENT_SECONDS} s: its worker is gone"
    crashed = ChangeFlowRunState(name="Crashed", state=StateType.CRASHED, message=message, force=False)
    Automation(name=_AUTOMATION, trigger=trigger, actions=[crashed]).create(_sync=True)  # type: ignore[call-arg]
