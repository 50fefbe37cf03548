"""Check the new files of the inbox, and add the valid items as a batch, data/batches/<name>/<date>-<content>/.

`python -m tasks receive` copies the files of `retrain.inbox` (params.yaml) that have not changed for
`retrain.settle_seconds`. Valid items become a new version of the data (DVC, git commit and tag). The others stay in the
inbox, are reported with the reason, and are added once they are corrected. Killed at any time and run again, it neither
loses an item nor adds one twice.
"""

import argparse
import filecmp
import json
import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from segcore import params
from segcore.errors import DataError
from segcore.files import atomic_folder, atomic_write, digest, fsync, locked, sha256
from segcore.ingest import catalog, inbox
from segcore.ingest.source_files import files_of_row
from segcore.params import Params
from tasks import console
from tasks.inbox_result import QUARANTINE, Received, show
from tasks.project import INGESTED, RECEIVED
from tasks.versioning import git, stages

_KIND_OF = {"bands": "band-count", "dtype": "other-dtype"}


def folder_of(p: Params) -> Path:
    """Folder of the dataset's batches."""
    return Path(p.data.batches) / p.data.name


def tag_of(p: Params, batch: str) -> str:
    """Git tag of a data version."""
    return f"data/{p.data.name}/{batch}"


def finish(p: Params) -> None:
    """Record (DVC, git) batches that a killed run had created but not recorded."""
    for name, folder in catalog.batch_folders(p.data).items():
        _record(p, name, folder)


def _record(p: Params, batch: str, folder: Path) -> None:
    tracked = folder.with_name(folder.name + ".dvc")
    if not tracked.exists():
        stages.add(folder)
    if git.is_repository():
        # missing in batch folders that were created by hand
        facts = folder / "batch.json"
        count = f", {json.loads(facts.read_text())['items']} items" if facts.exists() else ""
        message = f"Data of {p.data.name}: batch {batch}{count}"
        git.commit([tracked, folder.parent / ".gitignore"], message, tag_of(p, batch))


def _check(p: Params, staging: Path, work: Path) -> pd.DataFrame:
    """Catalogue of the snapshot; empty if it contains no image."""

    def progress(rows: Iterable[Any], total: int) -> Iterable[Any]:
        return console.progress(rows, "receive", total=total) if total else rows

    try:
        return catalog.build(p.data, staging, work, progress)
    except DataError as error:
        if error.kind == "no-images":
            return pd.DataFrame(columns=catalog.COLUMNS)
        raise


def _against_dataset(table: pd.DataFrame, catalogue: Path) -> list[str]:
    """Quarantine items that do not fit the dataset; returns ids of valid items that it already contains."""
    if not catalogue.exists():
        return []
    before = pd.read_parquet(catalogue, columns=["id", "sha256", "label_sha256", "bands", "dtype", "status"])
    before = before[before["status"] == "accepted"]
    labels = dict(zip(before["sha256"], before["label_sha256"], strict=True))
    usual = {name: before[name].mode().iloc[0] for name in ("bands", "dtype")} if len(before) else {}
    known = []
    for index, row in table[table["status"] == "accepted"].iterrows():
        odd = [name for name, value in usual.items() if row[name] != value]
        if odd:
            reason = ", ".join(f"{name} is {row[name]}, the dataset has {usual[name]}" for name in odd)
            kind, remedy = _KIND_OF[odd[0]], "convert it, or use another data.name for such images"
            catalog.quarantine(table, index, kind, f"{row['image']}: {reason}", remedy)
        elif row["sha256"] in labels and labels[row["sha256"]] == row["label_sha256"]:
            known.append(str(row["id"]))
        elif row["sha256"] in labels:
            reason = f"{row['image']}: the dataset contains this image with another mask"
            remedy = (
                "if the new mask is correct, replace the old one in its batch and run `dvc add` on that batch"
            )
            catalog.quarantine(table, index, "relabelled", reason, remedy)
    return known


def _in_batches(p: Params, table: pd.DataFrame, staging: Path) -> list[str]:
    """Ids of valid items whose files are in a batch: a killed run added them but did not remove them from the inbox.

    They are not in the catalogue before the next ingestion.
    """
    batches = catalog.batch_folders(p.data).values()

    def has(batch: Path, file: Path) -> bool:
        added = batch / file.relative_to(staging)
        return added.is_file() and filecmp.cmp(added, file, shallow=False)

    ids = []
    for row in table[table["status"] == "accepted"].to_dict("records"):
        files = files_of_row(row, staging)
        if any(all(has(batch, file) for file in files) for batch in batches):
            ids.append(str(row["id"]))
    return ids


def _files(rows: pd.DataFrame, staging: Path) -> list[str]:
    """Paths of all files of these items, relative to the inbox; sorted."""
    paths = {path for row in rows.to_dict("records") for path in files_of_row(row, staging)}
    return sorted(path.relative_to(staging).as_posix() for path in paths)


def _listing(p: Params, staging: Path) -> list[str]:
    """The table `data.listing`: copied into each batch, and kept in the inbox for items that are still there."""
    return [p.data.listing] if p.data.listing and (staging / p.data.listing).is_file() else []


def _append(p: Params, staging: Path, files: list[str], items: int, now: float) -> str:
    """Copy valid files of the snapshot into a new batch folder, all or none; returns the batch's name."""
    content = digest(*(f"{name} {sha256(staging / name)}" for name in files))
    day = datetime.fromtimestamp(now, UTC).strftime("%Y%m%d")
    batch = f"{day}-{content[:8]}"
    with atomic_folder(folder_of(p) / batch) as part:
        for name in files:
            target = part / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(staging / name, target)
            fsync(target)
        facts = {"items": items, "files": files, "received": datetime.fromtimestamp(now, UTC).isoformat()}
        (part / "batch.json").write_text(json.dumps(facts, indent=2) + "\n")
    return batch


def _read_taken(path: Path) -> list[inbox.InboxFile]:
    return [inbox.InboxFile(*entry) for entry in json.loads(path.read_text())] if path.exists() else []


def receive(p: Params, now: float | None = None) -> Received:
    """Check the new files of the inbox, and add the valid items as a batch.

    Args:
        p: parameters; `data` and `retrain` are used.
        now: seconds since 1970; None: the current time.

    Raises:
        DataError: the inbox cannot be reached, or the disk is full; StageError: DVC or git failed.
    """
    now = time.time() if now is None else now
    work = RECEIVED / p.data.name
    with locked(work / "lock"):
        # what would keep the batch from being recorded ends the call before the inbox is read
        git.require_usable()
        stages.init_if_needed()
        finish(p)
        box, settle = inbox.Inbox(p.retrain.inbox), p.retrain.settle_seconds
        staging = work / "snapshot"
        taken = _read_taken(work / "taken.json")
        snapshot = box.snapshot(staging, settle, now, taken)
        table = _check(p, staging, work)
        known = _against_dataset(table, INGESTED / "catalog.parquet")
        known = sorted({*known, *_in_batches(p, table, staging)})
        valid = table[(table["status"] == "accepted") & ~table["id"].isin(known)]
        files = _files(valid, staging)
        batch = _append(p, staging, [*files, *_listing(p, staging)], len(valid), now) if len(valid) else None
        if batch:
            _record(p, batch, folder_of(p) / batch)
        done = [*files, *_files(table[table["id"].isin(known)], staging)]
        # quarantined items stay in the inbox with all their files
        quarantined = set(_files(table[table["status"] == "quarantined"], staging))
        done = [name for name in done if name not in quarantined]
        of_items = {*_files(table, staging), *_listing(p, staging)}
        strays = [entry.path for entry in snapshot.taken if entry.path not in of_items]
        if p.retrain.taken == "keep":
            _remember(work / "taken.json", taken, snapshot, done)
        box.remove(done, batch or "known", p.retrain.taken)
        bad = pd.concat([table.loc[table["status"] == "quarantined", QUARANTINE], _refused(snapshot.refused)])
        with atomic_write(work / "quarantine.csv") as part:
            bad.to_csv(part, index=False)
        shutil.rmtree(staging, ignore_errors=True)
        waiting = [entry.path for entry in snapshot.waiting]
        # a file that changed while it was copied has settled `settle` seconds from now at the earliest
        last_change = max([now, *(entry.changed for entry in snapshot.waiting)])
        settled_at = datetime.fromtimestamp(last_change + settle)
        return Received(batch, len(valid), known, bad, waiting, strays, settle, settled_at)


def _remember(
    path: Path, before: Iterable[inbox.InboxFile], snapshot: inbox.Snapshot, done: list[str]
) -> None:
    """Add files that stay in the inbox to the list of those that were taken."""
    names = set(done)
    taken = [*before, *(entry for entry in snapshot.taken if entry.path in names)]
    with atomic_write(path) as part:
        part.write_text(json.dumps(taken))


def _refused(files: list[tuple[str, str]]) -> pd.DataFrame:
    remedy = "copy the file itself into the inbox"
    rows = [(path, path, None, "outside", f"{path}: {why}", remedy) for path, why in files]
    return pd.DataFrame(rows, columns=QUARANTINE)


@dataclass(frozen=True)
class Receipt:
    """What one call accepted; content of its JSON file.

    Attributes:
        batch: name of the new batch; None: no new item was accepted.
        accepted: number of items in the batch.
        text: one sentence on the whole inbox.
    """

    batch: str | None
    accepted: int
    text: str


def receipt_file(p: Params) -> Path:
    """File of the last call's receipt."""
    return RECEIVED / p.data.name / "last.json"


def read_receipt(p: Params) -> Receipt:
    """The receipt of the last call."""
    return Receipt(**json.loads(receipt_file(p).read_text()))


def _receive_here(arguments: argparse.Namespace) -> None:
    p = params.load(arguments.params)
    received = receive(p)
    with atomic_write(receipt_file(p)) as part:
        part.write_text(json.dumps(asdict(Receipt(received.batch, received.accepted, received.text()))))
    show(received)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks receive", description=__doc__)
    parser.add_argument("--params", default="params.yaml", help="parameters file (default: %(default)s)")
    console.run(_receive_here, parser)


console.refuse_as_script(__name__)
