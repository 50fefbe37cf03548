"""Notifications of the outcome of a retraining, through a notification block of Prefect; off by default.

    python -m flows.notify slack-webhook/ops            # outcomes promoted, kept and failed
    python -m flows.notify slack-webhook/ops --on failed promoted
    python -m flows.notify --off

Create the block once in Prefect's UI or in Python; its secrets stay on the server. Needs a permanent server:
`make serve`, or the one at PREFECT_API_URL.
"""

import argparse
from typing import Any

from flows import environment  # noqa: F401  isort: skip  (before prefect is imported)
from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import EventTrigger
from prefect.exceptions import ObjectNotFound

from flows import approval, command
from segcore.errors import StageError

NAME = "segflow: what came of a retraining"
# outcome on the command line -> names of the flow run's state
OUTCOMES = {
    "promoted": ("Promoted", "First"),
    "kept": ("Kept", "Refused"),
    "unchanged": ("Unchanged", "Waiting"),
    "approval": ("Paused",),
    "failed": ("Failed", "Crashed", "TimedOut"),
}
DEFAULT = ("promoted", "kept", "failed")
_BODY = "{{ flow_run.name }}: {{ flow_run.state.name }}\n{{ flow_run.state.message }}\n{{ flow_run|ui_url }}"


def trigger(outcomes: tuple[str, ...]) -> EventTrigger:
    """A trigger that fires once for each run of a retraining, or of its approval, with one of the outcomes."""
    states = [state for outcome in outcomes for state in OUTCOMES[outcome]]
    return EventTrigger(
        expect={f"prefect.flow-run.{state}" for state in states},
        match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related={"prefect.resource.role": "flow", "prefect.resource.name": ["retrain", approval.FLOW]},
        for_each={"prefect.resource.id"},
        threshold=1,
    )


def remove() -> int:
    """Delete the automation; returns the number of deleted ones."""
    with get_client(sync_client=True) as client:
        automations = client.read_automations_by_name(NAME)
        for automation in automations:
            client.delete_automation(automation.id)
        return len(automations)


def notify(block: str, outcomes: tuple[str, ...] = DEFAULT) -> Any:
    """Send a message through a block when a retraining has one of the outcomes; replaces earlier settings.

    Args:
        block: type and name of a notification block, such as slack-webhook/ops.
        outcomes: keys of OUTCOMES.

    Raises:
        StageError: there is no such block.
    """
    kind, _, name = block.partition("/")
    with get_client(sync_client=True) as client:
        try:
            document = client.read_block_document_by_name(name, kind, include_secrets=False)
        except ObjectNotFound as error:
            raise StageError(
                f"{block}: Prefect has no such block",
                "create it in Prefect's UI under Blocks, then run again",
            ) from error
    remove()
    action = SendNotification(
        block_document_id=document.id, subject="segflow: {{ flow_run.state.name }}", body=_BODY
    )
    automation: Any = Automation(name=NAME, trigger=trigger(outcomes), actions=[action])
    return automation.create()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.notify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "block", nargs="?", help="type and name of a notification block, such as slack-webhook/ops"
    )
    parser.add_argument(
        "--on", nargs="+", choices=OUTCOMES, default=DEFAULT, help=f"default: {' '.join(DEFAULT)}"
    )
    parser.add_argument("--off", action="store_true", help="send no more messages")
    arguments = parser.parse_args()
    if bool(arguments.block) == arguments.off:
        parser.error("name a block, or give --off")
    with command.as_command("Interrupted; the settings may be as before."):
        if arguments.off:
            print("notify: off" if remove() else "notify: was off already")
        else:
            notify(arguments.block, tuple(arguments.on))
            print(f"notify: {', '.join(arguments.on)} go to {arguments.block}")


if __name__ == "__main__":
    main()
