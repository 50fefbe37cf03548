"""Approval of a decision by a person: a flow run pauses, and its page in Prefect's UI has a form for the answer.

It is a run of its own within that of the retraining: a run that pauses gives its place in the deployment's concurrency
limit back, and is ended some minutes later, because it cannot renew it.
"""

import math
from typing import Literal

from flows import environment  # noqa: F401  isort: skip  (before prefect is imported)
from prefect import flow, get_run_logger, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.settings import PREFECT_API_URL
from prefect.states import Running
from pydantic import Field

from flows import run_state
from segcore.errors import StageError
from segcore.params import Params
from tasks.project import report_folder
from tasks.promotion.history import now
from tasks.promotion.record import Approval, DecisionRecord

FLOW = "approval"
_POLL_SECONDS = 5


class Answer(RunInput):
    """The form on the page of the paused flow run."""

    answer: Literal["approve", "refuse"]
    name: str = Field(
        min_length=1, description="name of the person who answers; it is stored with the decision"
    )
    comment: str = ""


def require_server(params: Params) -> None:
    """Check that a person can reach the server on which a round would pause.

    Raises:
        StageError: `gate.approval` is `person`, and the flow has a temporary server of its own.
    """
    if params.gate.approval == "person" and not PREFECT_API_URL.value():
        raise StageError(
            "params.yaml: gate.approval is `person`, and without a permanent Prefect server nobody can answer",
            "run rounds with `make serve`, or set PREFECT_API_URL to the address of a server",
        )


@flow(name=FLOW, validate_parameters=False)
def ask(params: Params, decision: DecisionRecord) -> Approval:
    """Pause this flow run until a person answers or `gate.approval_hours` have passed, which counts as a refusal.

    Args:
        params: all of params.yaml.
        decision: decision that would change the champion.
    """
    run_state.tag_process()
    name, hours = params.data.name, params.gate.approval_hours
    proposal = decision.reason.replace("Promoted ", "Would promote ", 1)
    page = (report_folder(name) / "index.html").resolve().as_uri()
    batches = ", ".join(decision.batches) or "the source"
    text = (
        f"{proposal}\n\n[Report]({page}) on {batches}. "
        f"Without an answer within {hours:g} hours the champion stays."
    )
    create_markdown_artifact(key=f"approval-{name}", markdown=text, description=proposal)
    get_run_logger().info(
        "%s\nApprove or refuse within %g hours: %s (Resume); report: %s",
        proposal,
        hours,
        runtime.flow_run.ui_url,
        page,
    )
    form = Answer.with_initial_data(description=text)
    try:
        answer = pause_flow_run(form, timeout=math.ceil(hours * 3600), poll_interval=_POLL_SECONDS)
    except FlowPauseTimeout:
        # the server would reject every other state of a run whose pause has ended
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(runtime.flow_run.id, Running(), force=True)
        return Approval(answer="timed out", by=None, when=now())
    given: Literal["approved", "refused"] = "approved" if answer.answer == "approve" else "refused"
    return Approval(answer=given, by=answer.name, when=now(), comment=answer.comment or None)
