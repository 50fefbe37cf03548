"""Reads the items of a folder; those whose files have not changed since the last time come from the cache."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from segcore.errors import DataError
from segcore.files import fsync
from segcore.ingest import inspection
from segcore.ingest.cache import IngestCache, settings_fingerprint
from segcore.ingest.problems import KINDS
from segcore.ingest.reader_pool import run_each
from segcore.ingest.source_files import listed, stamp, time_limit
from segcore.io.layouts._item import Item
from segcore.params.data import Data

Outcome = dict[str, Any] | DataError


class BatchItem(NamedTuple):
    """An item, the folder that its paths are relative to, and the name of its batch."""

    item: Item
    folder: Path
    batch: str


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


def read_all(
    items: list[BatchItem], data: Data, work: Path, progress: Callable[..., Iterable[Any]]
) -> dict[str, Outcome]:
    """Row or error by item id; rows of unchanged items come from the cache.

    Raises:
        DataError: the disk is full, or the settings fit no item (a kind that fails the whole ingest).
    """
    store = work / "items"
    store.mkdir(parents=True, exist_ok=True)
    cache = IngestCache(work, data)
    stamps, outcomes, unread = _recall(items, cache, store)
    if unread:
        # Before any packed file is written: its name depends on settings and content, not on the code that reads it.
        cache.start()
    settings = settings_fingerprint(data)
    jobs = [(batch_item.item, batch_item.folder, data, store, settings) for batch_item in unread]
    limits = [time_limit(stamps[batch_item.item.id]) for batch_item in unread]

    def keep(item: str, row: dict[str, Any]) -> None:
        fsync(store / row["packed"])
        cache.add(item, stamps[item], row)

    # Threads flush one item to disk while the next is read.
    names = [batch_item.item.image.name for batch_item in unread]
    with (
        closing(run_each(inspection.inspect_job, jobs, names, limits)) as results,
        ThreadPoolExecutor(2) as disk,
    ):
        writes = []
        for index, outcome in progress(results, total=len(unread)):
            if isinstance(outcome, DataError) and KINDS[outcome.kind].outcome == "fails":
                raise outcome
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
