"""Result of one check of the inbox, and its text."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Received:
    """Result of one check of the inbox.

    Attributes:
        batch: name of the new batch; None: no new item was accepted.
        accepted: number of items in the batch.
        known: ids of items whose image and mask the dataset already contains, or that are twice in the delivery.
        quarantined: one row per item or file that cannot be used and stays in the inbox.
        settle_seconds: time for which a file must not change.
        settled_at: local time at which all waiting files have settled, if they do not change again.
        waiting: files that changed less than retrain.settle_seconds ago, or while they were copied.
        future: files whose time of last change is later than now.
        incomplete: masks, sidecar files and lists that wait for their image.
        strays: settled files that belong to no item.
        stray_reason: why they belong to none.
        hidden: hidden files with the extension of an image.
        left: accepted files that could not be removed from the inbox, with the reason.
        held: number of new items that wait until there are `at_least`.
        at_least: retrain.at_least.items.
        dry_run: nothing was changed.
    """

    batch: str | None
    accepted: int
    known: list[str]
    quarantined: pd.DataFrame
    settle_seconds: float
    settled_at: datetime
    waiting: list[str] = field(default_factory=list)
    future: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    stray_reason: str = ""
    hidden: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    held: int = 0
    at_least: int = 1
    dry_run: bool = False

    def text(self) -> str:
        """One sentence."""
        accepted = "would be accepted" if self.dry_run else "accepted"
        quarantined = "would be quarantined" if self.dry_run else "quarantined"
        parts = [f"{self.accepted} {accepted} as batch {self.batch}"] if self.batch else []
        if self.held:
            items = f"{self.held} new item{'s wait' if self.held != 1 else ' waits'}"
            parts.append(f"{items} for retrain.at_least.items: {self.at_least}")
        parts += [f"{len(self.quarantined)} {quarantined}"] if len(self.quarantined) else []
        parts += [f"{len(self.known)} already in the data"] if self.known else []
        if self.incomplete:
            waits = "wait for their images" if len(self.incomplete) != 1 else "waits for its image"
            parts.append(f"{_files(self.incomplete)} {waits}")
        parts += [f"{_files(self.strays)} not part of any item"] if self.strays else []
        parts += (
            [f"{_files(self.hidden, 'hidden file')} ignored ({first(self.hidden)})"] if self.hidden else []
        )
        if self.left:
            parts.append(
                f"{_files(self.left)} could not be removed from the inbox: {first(self.left)}; give this user "
                "write permission there, or set retrain.taken: keep"
            )
        if self.future:
            parts.append(f"{_files(self.future)} dated in the future ({first(self.future)})")
        if self.waiting:
            parts.append(
                f"{_files(self.waiting)} changed less than {self.settle_seconds:g} s ago (retrain.settle_seconds; "
                f"{first(self.waiting)}): run again after {_clock(self.settled_at)}"
            )
        return ", ".join(parts) or f"0 {accepted}"


def first(names: Sequence[str], count: int = 3) -> str:
    """The first names, and "..." if there are more."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _clock(moment: datetime) -> str:
    """Such as 16:42, rounded up to a minute; with the date if that is not today."""
    rounded = (moment + timedelta(seconds=59, microseconds=999_999)).replace(second=0, microsecond=0)
    return f"{rounded:%H:%M}" if rounded.date() == datetime.now().date() else f"{rounded:%Y-%m-%d %H:%M}"


def _files(paths: list[str], what: str = "file") -> str:
    return f"{len(paths)} {what}{'s' * (len(paths) != 1)}"


def show(received: Received) -> None:
    """Print the result of one check of the inbox."""
    print(f"receive: {received.text()}", flush=True)
    if received.incomplete:
        print(f"  Left in the inbox until the image comes: {first(received.incomplete, 5)}", flush=True)
    if received.strays:
        shown = first(received.strays, 5)
        print(f"  Left in the inbox, {received.stray_reason}: {shown}", flush=True)
    rows: list[Any] = received.quarantined.to_dict("records")
    for row in rows[:20]:
        print(f"  {row['reason']}\n    Remedy: {row['remedy']}", flush=True)
    if len(rows) > 20:
        print(f"  and {len(rows) - 20} more", flush=True)
