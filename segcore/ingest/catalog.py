"""The catalogue: one row per item. All items are checked before training; unusable ones are quarantined.

An item whose files have not changed since the last ingest is not read again: its row comes from the cache, and its
packed file is reused.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from segcore.errors import DataError
from segcore.files import fsync
from segcore.ingest import inspection
from segcore.ingest.cache import IngestCache, settings_fingerprint
from segcore.ingest.reader_pool import run_each
from segcore.ingest.source_files import listed, stamp
from segcore.io import layouts
from segcore.io.layouts._item import Item
from segcore.params.data import Data

COLUMNS = [
    *("id", "group", "split", "batch", "image", "label", "valid", "baselines", "sha256", "label_sha256"),
    *("packed", "bytes", "height", "width", "depth", "bands", "dtype", "crs", "transform", "spacing"),
    *("affine", "orientation", "axis", "nodata", "valid_share", "pixels_per_class", "ignored_pixels"),
    *("objects", "band_min", "band_max", "scaled_from", "phash", "thumb"),
    *("status", "kind", "reason", "remedy", "notes", "words"),
]
# name of the batch that consists of data.source itself
FIRST = "0"
_WHOLE = ["bytes", "height", "width", "depth", "bands", "axis", "ignored_pixels", "objects"]
_FRACTIONS = ["nodata", "valid_share"]
Outcome = dict[str, Any] | DataError
# time limit for reading an item: these seconds, and its size at this rate
_SECONDS, _BYTES_PER_SECOND = 120.0, 2e6


def is_sample(data: Data) -> bool:
    """Whether the source is the manifest of a sample and not a folder."""
    return Path(data.source).suffix in (".yaml", ".yml") and not Path(data.source).is_dir()


def batch_folders(data: Data) -> dict[str, Path]:
    """Folders of later batches by name, in the order of their receipt.

    Batches of one day have the same date in their names, so `received` in batch.json decides. A batch that was made by
    hand has no such file, and precedes the others of its day.
    """
    parent = Path(data.batches) / data.name
    if not parent.is_dir():
        return {}
    folders = [p for p in parent.iterdir() if p.is_dir() and not p.name.startswith(".")]
    return {p.name: p for p in sorted(folders, key=_receipt)}


def _receipt(folder: Path) -> tuple[str, str]:
    """Sort key of a batch folder: time of receipt, ISO 8601 in UTC, and name."""
    facts = folder / "batch.json"
    if facts.is_file():
        return str(json.loads(facts.read_text(encoding="utf-8"))["received"]), folder.name
    day = folder.name[:8]
    return (f"{day[:4]}-{day[4:6]}-{day[6:]}" if day.isdecimal() else "", folder.name)


def files_folder(data: Data, ingested: Path) -> Path:
    """Folder that the catalogue's paths are relative to: the source folder, or that of the unpacked sample."""
    return ingested / "files" if is_sample(data) else Path(data.source)


def _time_limit(stamp: str) -> float:
    """Seconds that reading an item may take, from the sizes of its files in the stamp."""
    return float(_SECONDS + sum(fact[1] for fact in json.loads(stamp)) / _BYTES_PER_SECOND)


class BatchItem(NamedTuple):
    """An item, the folder that its paths are relative to, and the name of its batch."""

    item: Item
    folder: Path
    batch: str


def _find(data: Data, folder: Path, batches: Mapping[str, Path]) -> list[BatchItem]:
    """Items of the source and of later batches; the ids of the latter begin with the name of the batch."""
    items = [BatchItem(item, folder, FIRST) for item in layouts.find(data, folder)]
    for batch, batch_folder in batches.items():
        items.extend(
            BatchItem(replace(item, id=f"{batch}-{item.id}"), batch_folder, batch)
            for item in layouts.find(data, batch_folder)
        )
    return items


def _recall(
    items: list[BatchItem], cache: IngestCache, store: Path
) -> tuple[dict[str, str], dict[str, Outcome], list[BatchItem]]:
    """Stamps and known outcomes by item id, and the items that have to be read."""
    stamps: dict[str, str] = {}
    outcomes: dict[str, Outcome] = {}
    unread, names = [], listed()
    for batch_item in items:
        item = batch_item.item
        try:
            if item.problem:
                raise item.problem
            stamps[item.id] = stamp(item, batch_item.folder, names)
        except DataError as error:
            outcomes[item.id] = error
            continue
        row = cache.recall(item.id, stamps[item.id], names(store))
        if row is None:
            unread.append(batch_item)
        else:
            outcomes[item.id] = row
    return stamps, outcomes, unread


def _read_all(
    items: list[BatchItem], data: Data, work: Path, progress: Callable[..., Iterable[Any]]
) -> dict[str, Outcome]:
    """Row or error by item id; rows of unchanged items come from the cache."""
    store = work / "items"
    store.mkdir(parents=True, exist_ok=True)
    cache = IngestCache(work, data)
    stamps, outcomes, unread = _recall(items, cache, store)
    if unread:
        # Before any packed file is written: its name depends on settings and content, not on the code that reads it.
        cache.start()
    settings = settings_fingerprint(data)
    jobs = [(batch_item.item, batch_item.folder, data, store, settings) for batch_item in unread]
    limits = [_time_limit(stamps[batch_item.item.id]) for batch_item in unread]
    results = run_each(inspection.inspect_job, jobs, [i.item.image.name for i in unread], limits)

    def keep(item: str, row: dict[str, Any]) -> None:
        fsync(store / row["packed"])
        cache.add(item, stamps[item], row)

    # Threads flush one item to disk while the next is read.
    with ThreadPoolExecutor(2) as disk:
        writes = []
        for index, outcome in progress(results, total=len(unread)):
            name = unread[index].item.id
            outcomes[name] = outcome
            if isinstance(outcome, dict):
                writes.append(disk.submit(keep, name, outcome))
        for write in writes:
            write.result()
    rows = {k: v for k, v in outcomes.items() if isinstance(v, dict)}
    cache.save({k: {"stamp": stamps[k], "row": v} for k, v in rows.items()})
    current = {row["packed"] for row in rows.values()}
    # Files of items that were removed or changed, and of runs that were killed.
    for path in store.iterdir():
        if path.name not in current:
            path.unlink()
    return outcomes


def _row(batch_item: BatchItem, outcome: Outcome) -> dict[str, Any]:
    item, batch = batch_item.item, batch_item.batch
    row: dict[str, Any] = {
        "id": item.id,
        "group": item.group,
        "split": item.split,
        "batch": batch,
        "image": (item.image if batch == FIRST else batch / item.image).as_posix(),
        "label": item.mask.as_posix() if item.mask else None,
        "valid": item.valid.as_posix() if item.valid else None,
        "baselines": json.dumps({name: path.as_posix() for name, path in item.baselines.items()}),
        "status": "accepted",
        "kind": "",
        "reason": "",
        "remedy": "",
        "notes": "[]",
        "words": json.dumps(item.words),
    }
    if isinstance(outcome, DataError):
        problem = {"kind": outcome.kind, "reason": outcome.what, "remedy": outcome.remedy}
        return {**row, **problem, "status": "quarantined", "packed": None}
    return {
        **row,
        **outcome,
        "thumb": bytes.fromhex(outcome["thumb"]),
        "notes": json.dumps(outcome["notes"]),
    }


def quarantine(table: pd.DataFrame, row: Any, kind: str, reason: str, remedy: str) -> None:
    """Mark a row of the catalogue as quarantined, with kind (a key of problems.KINDS), reason and remedy."""
    columns = ["status", "kind", "reason", "remedy", "packed"]
    table.loc[row, columns] = ["quarantined", kind, reason, remedy, None]


def _compare(table: pd.DataFrame) -> None:
    """Quarantine items whose number of bands or dtype is not the usual one, and note mixed coordinate systems."""
    for column, kind, what in (("bands", "band-count", "bands"), ("dtype", "other-dtype", "dtype")):
        accepted = table[table["status"] == "accepted"]
        counts = (
            accepted[column].value_counts(sort=False).sort_index().sort_values(ascending=False, kind="stable")
        )
        if len(counts) < 2:
            continue
        usual = counts.index[0]
        for index, value in accepted[column][accepted[column] != usual].items():
            name = Path(str(table.at[index, "image"])).name
            value, most = (int(v) if kind == "band-count" else v for v in (value, usual))
            quarantine(
                table,
                index,
                kind,
                f"{name}: {what} is {value}, most others have {most}",
                "convert it, select bands with data.bands, set data.grey_to_rgb, or use another data.name for these",
            )
    crs = table.loc[table["status"] == "accepted", "crs"].dropna().value_counts()
    for index, value in table["crs"].items() if len(crs) > 1 else ():
        if table.at[index, "status"] == "accepted" and value not in (None, crs.index[0]):
            note = ["mixed-crs", f"has {value}, most others have {crs.index[0]}"]
            table.at[index, "notes"] = json.dumps([*json.loads(table.at[index, "notes"]), note])


def require_enough(table: pd.DataFrame, data: Data) -> None:
    """Check that enough items can be used.

    Raises:
        DataError: no item can be used, or a larger fraction than data.max_quarantined cannot.
    """
    bad = table[table["status"] == "quarantined"]
    if len(bad) < len(table) and len(bad) / len(table) <= data.max_quarantined:
        return
    shown = "\n  ".join(bad["reason"].head(20)) + (f"\n  and {len(bad) - 20} more" if len(bad) > 20 else "")
    raise DataError(
        f"{len(bad)} of {len(table)} items cannot be used:\n  {shown}",
        "; ".join(dict.fromkeys(bad["remedy"].head(3)))
        + f"; data.max_quarantined accepts up to {data.max_quarantined:.0%} unusable items",
        kind="all-bad",
    )


def build(
    data: Data,
    folder: Path,
    work: Path,
    progress: Callable[..., Iterable[Any]] = lambda results, total: results,
    batches: Mapping[str, Path] | None = None,
) -> pd.DataFrame:
    """Build the catalogue: one row per item, accepted or quarantined with kind, reason and remedy.

    Args:
        data: settings.
        folder: source folder.
        work: folder of packed items (`items/`) and of the rows of the last ingest (`rows/`).
        progress: wraps the iterator of results; called with their number as `total`.
        batches: folders of later batches by name, laid out as `folder`.

    Raises:
        DataError: a folder is missing or has no images, or the disk is full.
    """
    items = _find(data, folder, batches or {})
    outcomes = _read_all(items, data, work, progress)
    rows = [_row(batch_item, outcomes[batch_item.item.id]) for batch_item in items]
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    table = table.astype(dict.fromkeys(_WHOLE, "Int64") | dict.fromkeys(_FRACTIONS, "Float64"))
    text = [c for c in COLUMNS if c not in (*_WHOLE, *_FRACTIONS)]
    table[text] = table[text].astype(object).where(table[text].notna(), None)
    _compare(table)
    return table
