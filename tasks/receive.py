"""Check the new files of the inbox, and add the valid items as a batch, data/batches/<name>/<date>-<content>/.

`python -m tasks receive` copies the files of `retrain.inbox` (params.yaml) that have not changed for
`retrain.settle_seconds`. Valid items become a new version of the data (DVC, git commit and tag). The others stay in the
inbox, are reported with the reason, and are added once they are corrected. Killed at any time and run again, it neither
loses an item nor adds one twice.
"""

import argparse
import errno
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd

from segcore import params
from segcore.errors import DataError
from segcore.files import atomic_folder, atomic_write, fsync, locked
from segcore.ingest import catalog
from segcore.ingest.inbox import Inbox, Listing
from segcore.ingest.inbox_files import InboxFile
from segcore.params import Params
from tasks import batches, console, ingest
from tasks.accepted import compare, read_accepted, require_apart
from tasks.delivery import QUARANTINE, Delivery, Staging, read_taken, refusals
from tasks.inbox_result import Received, show
from tasks.project import RECEIVED, WORK
from tasks.receipt import Receipt, receipt_file
from tasks.versioning import git, stages


def _batch_name(staging: Path, files: list[str], now: float) -> str:
    return f"{datetime.fromtimestamp(now, UTC):%Y%m%d}-{batches.content_of(staging, files)}"


def _append(p: Params, batch: str, staging: Path, files: list[str], items: int, now: float) -> None:
    """Copy valid files of the delivery into a new batch folder, all or none."""
    received = _time_of_receipt(p, now)
    with atomic_folder(batches.folder_of(p) / batch) as part:
        for name in files:
            target = part / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(staging / name, target)
            fsync(target)
        facts = {"items": items, "files": files, "received": received.isoformat(timespec="microseconds")}
        (part / "batch.json").write_text(json.dumps(facts, indent=2) + "\n")


def _time_of_receipt(p: Params, now: float) -> datetime:
    """Now; later than the last batch, even if the clock was set back or two batches came in one microsecond."""
    times = [catalog.time_of_receipt(folder) for folder in catalog.batch_folders(p.data).values()]
    return max([datetime.fromtimestamp(now, UTC), *(moment + timedelta(microseconds=1) for moment in times)])


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """An empty folder, which is removed at the end, also after an error: the disk may be full because of it.

    Raises:
        DataError: the disk is full.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        yield folder
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(
            f"{folder}: the delivery cannot be copied and checked ({error.strerror})",
            "free disk space, then run again",
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def receive(p: Params, now: float | None = None, dry_run: bool = False) -> Received:
    """Check the new files of the inbox, and add the valid items as a batch.

    Args:
        p: parameters; `data` and `retrain` are used.
        now: seconds since 1970; None: the current time.
        dry_run: only report what would be done; nothing is added, recorded, moved or created.

    Raises:
        DataError: the inbox cannot be reached, or the disk is full; StageError: DVC or git failed.
    """
    now = time.time() if now is None else now
    work = RECEIVED / p.data.name
    with locked(work / "lock"), _scratch(work / "snapshot") as scratch:
        if not dry_run:
            # what would keep the batch from being recorded ends the call before the inbox is read
            git.require_usable(dataset=p.data.name)
            stages.init_if_needed()
            batches.finish(p)
        box = Inbox(p.retrain.inbox, work, change=not dry_run)
        listing = box.listing(now)
        taken = read_taken(work / "taken.json")
        staging = Staging(p.data, scratch)
        found = staging.take(box, listing, p.retrain.settle_seconds, now, taken)
        received = _judge(p, box, found, staging, listing, now, dry_run)
        if dry_run:
            return received
        if received.batch:
            files = [*_files(found.valid, staging), *found.listing]
            _append(p, received.batch, staging.files, files, len(found.valid), now)
            batches.record(p, received.batch, batches.folder_of(p) / received.batch)
        done = [] if received.held else _done(found, staging, received.known)
        if p.retrain.taken == "keep":
            _remember(work / "taken.json", taken, found, listing, done)
        left = box.remove(done, received.batch or "known", p.retrain.taken)
        with atomic_write(work / "quarantine.csv") as part:
            received.quarantined.to_csv(part, index=False)
        return replace(received, left=left)


def _judge(
    p: Params,
    box: Inbox,
    found: Delivery,
    staging: Staging,
    listing: Listing,
    now: float,
    dry_run: bool,
) -> Received:
    """Compare the delivery with what has been accepted; the result as it is before anything is changed."""
    table, settle, known = found.table, p.retrain.settle_seconds, list[str]()
    if (table["status"] == "accepted").any():
        with ingest.alone(p.data, WORK):
            accepted = read_accepted(p.data, staging.folder, read_only=dry_run)
            if box.local:
                require_apart(p.data, accepted.table, Path(box.root))
            known = sorted(compare(p.data, table, staging.store, accepted))
    found.valid = table[(table["status"] == "accepted") & ~table["id"].isin(known)]
    new, at_least = len(found.valid), p.retrain.at_least.items
    held = new if new < at_least else 0
    files = [*_files(found.valid, staging), *found.listing]
    bad = pd.concat([table.loc[table["status"] == "quarantined", QUARANTINE], refusals(found)])
    # a file that changed while it was copied has settled `settle` seconds from now at the earliest
    last_change = max([now, *found.waiting.values()])
    return Received(
        _batch_name(staging.files, files, now) if new and not held else None,
        0 if held else new,
        known,
        bad,
        settle,
        datetime.fromtimestamp(last_change + settle),
        waiting=sorted(found.waiting),
        future=[path for path in listing.future if path not in {file.path for file in found.kept}],
        incomplete=found.incomplete,
        strays=found.strays,
        stray_reason=found.stray_reason,
        hidden=listing.hidden,
        held=held,
        at_least=at_least,
        dry_run=dry_run,
    )


def _files(rows: pd.DataFrame, staging: Staging) -> list[str]:
    """Paths of all files of these items, relative to the inbox; sorted."""
    return sorted({path for row in rows.to_dict("records") for path in staging.paths(row)})


def _done(found: Delivery, staging: Staging, known: list[str]) -> list[str]:
    """Files that may leave the inbox: those of accepted and known items, unless another item there needs them."""
    table = found.table
    accepted = (table["status"] == "accepted") | table["id"].isin(known)
    needed = {*_files(table[~accepted], staging), *found.blocked}
    return [path for path in _files(table[accepted], staging) if path not in needed]


def _remember(path: Path, before: set[InboxFile], found: Delivery, listing: Listing, done: list[str]) -> None:
    """Add files that stay in the inbox to the list of those that were taken; leave out those that are gone."""
    names = set(done)
    taken = [*before, *(file for file in found.files if file.path in names)]
    with atomic_write(path) as part:
        part.write_text(json.dumps([file for file in taken if file in listing.unchanged_since]))


def _receive_here(arguments: argparse.Namespace) -> None:
    p = params.load(arguments.params)
    received = receive(p, dry_run=arguments.dry_run)
    if not arguments.dry_run:
        with atomic_write(receipt_file(p)) as part:
            part.write_text(json.dumps(asdict(Receipt(received.batch, received.accepted, received.text()))))
    show(received)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks receive", description=__doc__)
    parser.add_argument("--params", default="params.yaml", help="parameters file (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="print what would be accepted, change nothing")
    console.run(_receive_here, parser)


console.refuse_as_script(__name__)
