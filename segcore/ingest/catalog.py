"""The catalogue: one row an item, each checked before a second of training; what is bad is quarantined.

An item whose files have not changed since the last ingest is not read again: its row comes from the cache,
and its packed file is there already.
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
    *("status", "kind", "reason", "remedy", "notes"),
]
FIRST = "0"  # the batch that data.source itself is
_WHOLE = ["bytes", "height", "width", "depth", "bands", "axis", "ignored_pixels", "objects"]
_FRACTIONS = ["nodata", "valid_share"]
_SECONDS, _BYTES_A_SECOND = 120.0, 2e6  # what a sound file takes at most


def is_sample(data: Data) -> bool:
    """Whether the source is a sample's manifest and not a folder."""
    return Path(data.source).suffix in (".yaml", ".yml") and not Path(data.source).is_dir()


def batch_folders(data: Data) -> dict[str, Path]:
    """Name -> folder of the batches that came after the source, the oldest first (their names begin with a date)."""
    parent = Path(data.batches) / data.name
    if not parent.is_dir():
        return {}
    return {p.name: p for p in sorted(parent.iterdir()) if p.is_dir() and not p.name.startswith(".")}


def files_folder(data: Data, ingested: Path) -> Path:
    """Folder that the catalogue's paths are relative to: the user's, or where a sample was unpacked."""
    return ingested / "files" if is_sample(data) else Path(data.source)


def _seconds(stamp: str) -> float:
    """What reading may take, by the sizes of an item's files."""
    return float(_SECONDS + sum(fact[1] for fact in json.loads(stamp)) / _BYTES_A_SECOND)


class Found(NamedTuple):
    """An item, the folder that its paths are relative to, and the batch that brought it."""

    item: Item
    folder: Path
    batch: str


def _find(data: Data, folder: Path, batches: Mapping[str, Path]) -> list[Found]:
    """Items of the source, and those of later batches, whose ids begin with the batch's name."""
    found = [Found(item, folder, FIRST) for item in layouts.find(data, folder)]
    for batch, its_folder in batches.items():
        for item in layouts.find(data, its_folder):
            found.append(Found(replace(item, id=f"{batch}-{item.id}"), its_folder, batch))
    return found


def _read_all(
    items: list[Found], data: Data, work: Path, progress: Callable[..., Iterable[Any]]
) -> dict[str, dict[str, Any] | DataError]:
    """Row or error of each item by its id; unchanged ones come from the cache."""
    store = work / "items"
    store.mkdir(parents=True, exist_ok=True)
    cache, names, todo = IngestCache(work, data), listed(), []
    found: dict[str, dict[str, Any] | DataError] = {}
    stamps: dict[str, str] = {}
    for one in items:
        item = one.item
        try:
            if item.problem:
                raise item.problem
            stamps[item.id] = stamp(item, one.folder, names)
        except DataError as error:
            found[item.id] = error
            continue
        row = cache.recall(item.id, stamps[item.id], names(store))
        if row is None:
            todo.append(one)
        else:
            found[item.id] = row
    if todo:
        # Before any packed file is written: its name depends on settings and content, not on the code that reads it.
        cache.start()
    settings = settings_fingerprint(data)
    jobs = [(one.item, one.folder, data, store, settings) for one in todo]
    limits = [_seconds(stamps[one.item.id]) for one in todo]
    results = run_each(inspection.inspect_job, jobs, [one.item.image.name for one in todo], limits)

    def keep(item: str, row: dict[str, Any]) -> None:
        fsync(store / row["packed"])
        cache.add(item, stamps[item], row)

    with ThreadPoolExecutor(2) as disk:  # writes one item while the next is read
        kept = []
        for index, result in progress(results, total=len(todo)):
            name = todo[index].item.id
            found[name] = result
            if isinstance(result, dict):
                kept.append(disk.submit(keep, name, result))
        for done in kept:
            done.result()
    rows = {k: v for k, v in found.items() if isinstance(v, dict)}
    cache.save({k: {"stamp": stamps[k], "row": v} for k, v in rows.items()})
    named = {row["packed"] for row in rows.values()}
    for path in store.iterdir():  # of items that are gone or have changed, and of runs that were killed
        if path.name not in named:
            path.unlink()
    return found


def _row(one: Found, found: dict[str, Any] | DataError) -> dict[str, Any]:
    item, batch = one.item, one.batch
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
    }
    if isinstance(found, DataError):
        problem = {"kind": found.kind, "reason": found.what, "remedy": found.remedy}
        return {**row, **problem, "status": "quarantined", "packed": None}
    return {**row, **found, "thumb": bytes.fromhex(found["thumb"]), "notes": json.dumps(found["notes"])}


def quarantine(table: pd.DataFrame, row: Any, kind: str, reason: str, remedy: str) -> None:
    """Set a row of the catalogue aside, with the kind of problem (problems.KINDS), the reason and the remedy."""
    columns = ["status", "kind", "reason", "remedy", "packed"]
    table.loc[row, columns] = ["quarantined", kind, reason, remedy, None]


def _compare(table: pd.DataFrame) -> None:
    """Quarantine items whose bands or dtype differ from most others', and note mixed coordinate systems."""
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
    """Check that enough items can be used to go on.

    Raises:
        DataError: no item can be used, or a larger share than data.max_quarantined cannot.
    """
    bad = table[table["status"] == "quarantined"]
    if len(bad) < len(table) and len(bad) / len(table) <= data.max_quarantined:
        return
    shown = "\n  ".join(bad["reason"].head(20)) + (f"\n  and {len(bad) - 20} more" if len(bad) > 20 else "")
    raise DataError(
        f"{len(bad)} of {len(table)} items cannot be used:\n  {shown}",
        "; ".join(dict.fromkeys(bad["remedy"].head(3)))
        + f"; up to {data.max_quarantined:.0%} bad items (data.max_quarantined) would be let pass",
        kind="all-bad",
    )


def build(
    data: Data,
    folder: Path,
    work: Path,
    progress: Callable[..., Iterable[Any]] = lambda found, total: found,
    batches: Mapping[str, Path] | None = None,
) -> pd.DataFrame:
    """The catalogue of a folder, every item accepted or quarantined with kind, reason and remedy.

    Args:
        data: what the folder holds.
        folder: of the images.
        work: where packed items (`items/`) and the rows of the last ingest (`rows/`) are kept.
        progress: wraps the results as they come; called with their number as `total`.
        batches: name -> folder of what came later, each laid out as `folder` is.

    Raises:
        DataError: missing or empty folder, or more bad items than data.max_quarantined allows; it lists them.
    """
    items = _find(data, folder, batches or {})
    found = _read_all(items, data, work, progress)
    rows = [_row(one, found[one.item.id]) for one in items]
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    table = table.astype(dict.fromkeys(_WHOLE, "Int64") | dict.fromkeys(_FRACTIONS, "Float64"))
    text = [c for c in COLUMNS if c not in (*_WHOLE, *_FRACTIONS)]
    table[text] = table[text].astype(object).where(table[text].notna(), None)
    _compare(table)
    return table
