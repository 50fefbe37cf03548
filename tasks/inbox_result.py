"""Result of one check of the inbox, and its text."""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

import pandas as pd

QUARANTINE = ["id", "image", "label", "kind", "reason", "remedy"]


class Received(NamedTuple):
    """Result of one check of the inbox.

    Attributes:
        batch: name of the new batch; None: no new item was accepted.
        accepted: number of items in the batch.
        known: ids of items whose image and mask the dataset already contains.
        quarantined: QUARANTINE columns, one row per item that stays in the inbox.
        waiting: files that changed less than retrain.settle_seconds ago, or while they were copied.
        strays: settled files that belong to no item.
        settle_seconds: time for which a file must not change.
        settled_at: local time at which all waiting files have settled, if they do not change again.
    """

    batch: str | None
    accepted: int
    known: list[str]
    quarantined: pd.DataFrame
    waiting: list[str]
    strays: list[str]
    settle_seconds: float
    settled_at: datetime

    def text(self) -> str:
        """One sentence."""
        parts = [f"{self.accepted} accepted as batch {self.batch}"] if self.batch else []
        parts += [f"{len(self.quarantined)} quarantined"] if len(self.quarantined) else []
        parts += [f"{len(self.known)} already in the data"] if self.known else []
        parts += [f"{_files(self.strays)} not part of any item"] if self.strays else []
        if self.waiting:
            parts.append(
                f"{_files(self.waiting)} changed less than {self.settle_seconds:g} s ago "
                f"(retrain.settle_seconds): run again after {_clock(self.settled_at)}"
            )
        return ", ".join(parts) or "0 accepted"


def _clock(moment: datetime) -> str:
    """Such as 16:42, rounded up to a minute; with the date if that is not today."""
    rounded = (moment + timedelta(seconds=59, microseconds=999_999)).replace(second=0, microsecond=0)
    return f"{rounded:%H:%M}" if rounded.date() == datetime.now().date() else f"{rounded:%Y-%m-%d %H:%M}"


def _files(paths: list[str]) -> str:
    return f"{len(paths)} file{'s' * (len(paths) != 1)}"


def show(received: Received) -> None:
    """Print the result of one check of the inbox."""
    print(f"receive: {received.text()}", flush=True)
    if received.strays:
        shown = ", ".join(received.strays[:5]) + (", ..." if len(received.strays) > 5 else "")
        print(f"  Left in the inbox, no pattern in section data of params.yaml matches: {shown}", flush=True)
    rows: list[Any] = received.quarantined.to_dict("records")
    for row in rows[:20]:
        print(f"  {row['reason']}\n    Remedy: {row['remedy']}", flush=True)
    if len(rows) > 20:
        print(f"  and {len(rows) - 20} more", flush=True)
