"""New data: a snapshot of the inbox, checked, becomes a batch of the dataset, data/batches/<name>/<date>-<content>/.

`python -m tasks receive` takes what has settled in `retrain.inbox` of params.yaml, keeps sound items as a new version
of the data (DVC, git commit and tag), and leaves the others in the inbox with their reason, to come back by themselves
once they are mended. Killed at any moment and run again, it neither loses an item nor takes one twice.
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
from typing import Any, NamedTuple

import pandas as pd

from segcore import params
from segcore.errors import DataError
from segcore.files import atomic_folder, atomic_write, digest, fsync, locked, sha256
from segcore.ingest import catalog, inbox
from segcore.ingest.source_files import files_of_row
from segcore.params import Params
from tasks import console
from tasks.project import INGESTED, RECEIVED
from tasks.versioning import git, stages

_KIND_OF = {"bands": "band-count", "dtype": "other-dtype"}
QUARANTINE = ["id", "image", "label", "kind", "reason", "remedy"]


class Received(NamedTuple):
    """What became of the inbox.

    Attributes:
        batch: name of the new batch, None where nothing new was accepted.
        accepted: number of its items.
        known: ids of items whose image the dataset has already.
        quarantined: QUARANTINE columns, a row an item that stays in the inbox.
        waiting: files that have not settled.
        strays: settled files that belong to no item.
    """

    batch: str | None
    accepted: int
    known: list[str]
    quarantined: pd.DataFrame
    waiting: list[str]
    strays: list[str]

    def text(self) -> str:
        """One sentence."""
        parts = [f"{self.accepted} accepted" + (f" as batch {self.batch}" if self.batch else "")]
        parts += [f"{len(self.quarantined)} quarantined"] if len(self.quarantined) else []
        parts += [f"{len(self.known)} known already"] if self.known else []
        parts += [f"{len(self.waiting)} files still arriving"] if self.waiting else []
        parts += [f"{len(self.strays)} other files"] if self.strays else []
        return ", ".join(parts)


def folder_of(p: Params) -> Path:
    """Folder of the dataset's batches."""
    return Path(p.data.batches) / p.data.name


def tag_of(p: Params, batch: str) -> str:
    """Git tag of a data version."""
    return f"data/{p.data.name}/{batch}"


def finish(p: Params) -> None:
    """Record batches that a killed run had moved into place but not recorded yet."""
    for name, folder in catalog.batch_folders(p.data).items():
        _record(p, name, folder)


def _record(p: Params, batch: str, folder: Path) -> None:
    tracked = folder.with_name(folder.name + ".dvc")
    if not tracked.exists():
        stages.add(folder)
    if git.is_repository():
        # not there in a folder that somebody put here by hand
        facts = folder / "batch.json"
        count = f", {json.loads(facts.read_text())['items']} items" if facts.exists() else ""
        message = f"Data of {p.data.name}: batch {batch}{count}"
        git.commit([tracked, folder.parent / ".gitignore"], message, tag_of(p, batch))


def _check(p: Params, staging: Path, work: Path) -> pd.DataFrame:
    """Catalogue of the snapshot; an empty one where no image has come yet."""

    def progress(found: Iterable[Any], total: int) -> Iterable[Any]:
        return console.progress(found, "receive", total=total) if total else found

    try:
        return catalog.build(p.data, staging, work, progress)
    except DataError as error:
        if error.kind == "no-images":
            return pd.DataFrame(columns=catalog.COLUMNS)
        raise


def _against_dataset(table: pd.DataFrame, catalogue: Path) -> list[str]:
    """Quarantine what does not fit the dataset; returns ids of sound items that it has already."""
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
            said = ", ".join(f"{name} is {row[name]}, the dataset has {usual[name]}" for name in odd)
            kind, remedy = _KIND_OF[odd[0]], "convert it, or use another data.name for these"
            catalog.quarantine(table, index, kind, f"{row['image']}: {said}", remedy)
        elif row["sha256"] in labels and labels[row["sha256"]] == row["label_sha256"]:
            known.append(str(row["id"]))
        elif row["sha256"] in labels:
            said = f"{row['image']}: the dataset has this image with another mask"
            remedy = "if the new mask is right, replace the old one in its batch and run `dvc add` on that"
            catalog.quarantine(table, index, "relabelled", said, remedy)
    return known


def _in_batches(p: Params, table: pd.DataFrame, staging: Path) -> list[str]:
    """Ids of sound items whose files a batch has: of one that a killed run had moved but not taken out of the inbox.

    The catalogue does not know them until the next ingestion.
    """
    batches = catalog.batch_folders(p.data).values()

    def has(batch: Path, file: Path) -> bool:
        kept = batch / file.relative_to(staging)
        return kept.is_file() and filecmp.cmp(kept, file, shallow=False)

    found = []
    for row in table[table["status"] == "accepted"].to_dict("records"):
        files = files_of_row(row, staging)
        if any(all(has(batch, file) for file in files) for batch in batches):
            found.append(str(row["id"]))
    return found


def _files(rows: pd.DataFrame, staging: Path) -> list[str]:
    """Paths within the inbox of all files of these items."""
    found = {path for row in rows.to_dict("records") for path in files_of_row(row, staging)}
    return sorted(path.relative_to(staging).as_posix() for path in found)


def _list(p: Params, staging: Path) -> list[str]:
    """The table that names the items, which a batch needs as well; it stays in the inbox for those that wait."""
    return [p.data.listing] if p.data.listing and (staging / p.data.listing).is_file() else []


def _append(p: Params, staging: Path, files: list[str], items: int, now: float) -> str:
    """Move the snapshot's sound files into a new batch folder, whole or not at all; returns its name."""
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


def _known(memory: Path) -> list[inbox.InboxFile]:
    return [inbox.InboxFile(*entry) for entry in json.loads(memory.read_text())] if memory.exists() else []


def receive(p: Params, now: float | None = None) -> Received:
    """Take what is new in the inbox, as `main` says.

    Args:
        now: seconds since 1970; None: this moment.

    Raises:
        DataError: the inbox cannot be reached, or the disk is full; StageError: DVC or git refuses.
    """
    now = time.time() if now is None else now
    work = RECEIVED / p.data.name
    with locked(work / "lock"):
        stages.init_if_needed()
        finish(p)
        box, memory = inbox.Inbox(p.retrain.inbox), work / "taken.json"
        staging = work / "snapshot"
        before = _known(memory)
        snapshot = box.snapshot(staging, p.retrain.settle_seconds, now, before)
        table = _check(p, staging, work)
        known = _against_dataset(table, INGESTED / "catalog.parquet")
        known = sorted({*known, *_in_batches(p, table, staging)})
        good = table[(table["status"] == "accepted") & ~table["id"].isin(known)]
        files = _files(good, staging)
        batch = _append(p, staging, [*files, *_list(p, staging)], len(good), now) if len(good) else None
        if batch:
            _record(p, batch, folder_of(p) / batch)
        gone = [*files, *_files(table[table["id"].isin(known)], staging)]
        shared = set(_files(table[table["status"] == "quarantined"], staging))
        gone = [name for name in gone if name not in shared]
        named = {*_files(table, staging), *_list(p, staging)}
        strays = [entry.path for entry in snapshot.taken if entry.path not in named]
        _forget(box, memory, before, snapshot, gone, batch or "known", p.retrain.taken)
        bad = pd.concat([table.loc[table["status"] == "quarantined", QUARANTINE], _refused(snapshot.refused)])
        with atomic_write(work / "quarantine.csv") as part:
            bad.to_csv(part, index=False)
        shutil.rmtree(staging, ignore_errors=True)
        return Received(batch, len(good), known, bad, [entry.path for entry in snapshot.waiting], strays)


def _forget(
    box: inbox.Inbox,
    memory: Path,
    before: Iterable[inbox.InboxFile],
    snapshot: inbox.Snapshot,
    gone: list[str],
    batch: str,
    how: str,
) -> None:
    """Take files out of the inbox, or where they stay remember that they were taken."""
    if how == "keep":
        names = set(gone)
        kept = [*before, *(entry for entry in snapshot.taken if entry.path in names)]
        with atomic_write(memory) as part:
            part.write_text(json.dumps(kept))
    box.remove(gone, batch, how)


def _refused(found: list[tuple[str, str]]) -> pd.DataFrame:
    remedy = "copy the file itself into the inbox"
    rows = [(path, path, None, "outside", f"{path}: {why}", remedy) for path, why in found]
    return pd.DataFrame(rows, columns=QUARANTINE)


@dataclass(frozen=True)
class Receipt:
    """What one call accepted, as its file has it.

    Attributes:
        batch: name of the new batch; None: nothing new was accepted.
        accepted: number of its items.
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
    found = receive(p)
    with atomic_write(receipt_file(p)) as part:
        part.write_text(json.dumps(asdict(Receipt(found.batch, found.accepted, found.text()))))
    show(found)


def show(received: Received) -> None:
    """Print what became of the inbox."""
    print(f"receive: {received.text()}", flush=True)
    if received.strays:
        shown = ", ".join(received.strays[:5]) + (", ..." if len(received.strays) > 5 else "")
        print(f"  They stay, no pattern of params.yaml's data section names them: {shown}", flush=True)
    rows: list[Any] = received.quarantined.to_dict("records")
    for row in rows[:20]:
        print(f"  {row['reason']}\n    Remedy: {row['remedy']}", flush=True)
    if len(rows) > 20:
        print(f"  and {len(rows) - 20} more", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks receive", description=__doc__)
    parser.add_argument("--params", default="params.yaml", help="parameters file (default: %(default)s)")
    console.run(_receive_here, parser)


console.refuse_as_script(__name__)
