"""A person's agreement to a decision that would replace the champion (`gate.approval: person`)."""

import getpass
import os
from dataclasses import replace

from segcore.params import Params
from tasks.promotion.record import Approval, DecisionRecord


def awaits_approval(p: Params, record: DecisionRecord) -> bool:
    """Whether a person has to agree first; a first champion replaces nothing, so that nobody is asked."""
    return (
        p.gate.approval == "person"
        and record.outcome == "promoted"
        and record.acted is None
        and record.approval is None
    )


def answered(record: DecisionRecord, approval: Approval) -> DecisionRecord:
    """The decision after a person's answer; if it is not approved, the champion stays."""
    comment = f": {approval.comment}" if approval.comment else ""
    if approval.answer == "approved":
        reason = f"{record.reason} Approved by {approval.by}{comment}."
        return replace(record, approval=approval, reason=reason)
    one, champion = record.challenger(str(record.winner)), record.champion
    kept = f"Kept the champion ({champion.title if champion else ''}, version {record.champion_version})"
    answer = (
        "nobody answered in time" if approval.answer == "timed out" else f"{approval.by} refused{comment}"
    )
    reason = f"{kept}: the new {one.title} was not approved, {answer}. By the gate: {record.reason}"
    return replace(record, approval=approval, outcome="kept", winner=None, reason=reason)


def user_name() -> str:
    """Login name of the user who runs this process; its number where it has no name, as in some containers."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"user {os.getuid()}"
