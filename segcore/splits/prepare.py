"""From the catalogue to the prepared data: splits that cannot leak, training windows, statistics of the training split.

What was computed for an item is kept in a cache under `work`, so that new data cost what the new data cost.
"""

import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segcore.cache import CODE, Cache, code_digest
from segcore.data.packed import Packed
from segcore.errors import DataError
from segcore.files import atomic_write
from segcore.params import Params
from segcore.splits import assignment, leakage, normalization, windows
from segcore.splits.regions import assign

_ROWS = 4096  # of windows written at a time
_THREADS = 8  # each holds some 20 MB


class LabelRows:
    """Labels (H, W) of a plane whose row slices are read from disk; its file is opened for the first of them."""

    def __init__(self, row: Any, opened: Callable[[str], Packed]) -> None:
        self._row, self._opened = row, opened
        self.shape: tuple[int, int] = (row.height, row.width)

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(self.shape[0])
        packed = self._opened(self._row.packed)
        return packed.rows("labels", (self._row.plane,), first, last - first)


def _write(windows: pd.DataFrame, path: Path) -> None:
    """The one table that grows with a scene's area, a few rows at a time: the writer holds several copies of them."""
    windows.to_parquet(path, index=False, row_group_size=_ROWS, use_dictionary=["item"])


class PrepareCache(Cache):
    """Windows and sums of the last preparation, valid as long as settings and code are the same.

    Packed items are known by their names, which change with content and settings but not with the code that read
    them: so the results depend on the code of the ingest as well.

    Args:
        parent: folder of the cache.
        p: the settings.
    """

    def __init__(self, parent: Path, p: Params) -> None:
        settings = p.model_dump(mode="json", include={"split", "prepare"})
        code = code_digest(*CODE["ingest"], *CODE["prepare"])
        super().__init__(parent, json.dumps([settings, p.data.classes]), code)
        self.sums: dict[str, dict[str, Any]] = {}
        self.keys: list[str] = []  # of the items whose windows are known; most of them may have none
        self.windows = pd.DataFrame({"key": []})  # `key` is a position in `keys`
        path = self.folder / "sums.json"
        if path.exists():
            kept = json.loads(path.read_text())
            self.sums, self.keys = kept["sums"], kept["keys"]
            self.windows = pd.read_parquet(self.folder / "windows.parquet")

    def save(self, sums: dict[str, dict[str, Any]], keys: list[str], windows: pd.DataFrame) -> None:
        """Keep these, and no others; sums last, because they say that all is there."""
        self.start()
        (self.folder / "sums.json").unlink(missing_ok=True)
        with atomic_write(self.folder / "windows.parquet") as part:
            _write(windows, part)
        with atomic_write(self.folder / "sums.json") as part:
            part.write_text(json.dumps({"sums": sums, "keys": keys}))


def planes(accepted: pd.DataFrame) -> pd.DataFrame:
    """One row a picture or plane of a volume: id, volume, plane, group, and what the catalogue says of the item."""
    columns = ["group", "batch", "packed", "height", "width", "depth", "bands", "dtype", "sha256", "crs"]
    place = ["transform", "spacing", "affine", "orientation", "axis"]
    table = accepted[["id", *columns, *place]].rename(columns={"id": "volume"})
    table = table.loc[table.index.repeat(table["depth"].astype(int))].reset_index(drop=True)
    table["plane"] = table.groupby("volume", sort=False).cumcount()
    numbered = table["volume"] + "_z" + table["plane"].astype(str).str.zfill(3)
    table.insert(0, "id", table["volume"].where(table["depth"] == 1, numbered))
    for column in ("height", "width", "depth", "bands", "axis"):
        table[column] = table[column].astype("int64")
    return table


def _each(
    function: Callable[[Any], Any], jobs: list[Any], progress: Callable[[list[Any]], Iterable[Any]] = iter
) -> list[Any]:
    """What the function gives for each job, in threads: numpy lets others work while it counts."""
    with ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), _THREADS)) as pool:
        return [found.result() for found in progress([pool.submit(function, job) for job in jobs])]


def _windows(
    items: pd.DataFrame,
    opened: Callable[[str], Packed],
    p: Params,
    decision: assignment.Assignment,
    cache: PrepareCache,
    progress: Callable[[list[Any]], Iterable[Any]],
) -> tuple[list[str], pd.DataFrame]:
    """A key for each item that says all its windows depend on, and the windows with the position of their key."""
    rows = list(items.itertuples(index=False))
    keys = [f"{r.packed}|{r.plane}|{decision.groups[r.group]}|{decision.anchors.get(r.volume)}" for r in rows]
    place = {key: index for index, key in enumerate(keys)}
    here = pd.Series([place.get(key, -1) for key in cache.keys], dtype="int64")
    kept = cache.windows.assign(key=here.reindex(cache.windows["key"]).to_numpy())
    known, classes = set(cache.keys), len(p.data.classes)
    new = [index for index, key in enumerate(keys) if key not in known]

    def fresh(index: int) -> np.ndarray:
        label = LabelRows(rows[index], opened)
        return windows.index_item(rows[index], label, classes, p.prepare, p.split, decision)

    cells = _each(fresh, new, progress)
    fresh_rows = windows.tabulated([rows[i].id for i in new], cells, classes)
    fresh_rows["key"] = np.repeat(np.array(new, np.int64), [len(c) for c in cells])
    table = pd.concat([t for t in (kept[kept["key"] >= 0], fresh_rows) if len(t)] or [fresh_rows])
    return keys, table.sort_values("key", kind="stable", ignore_index=True)


def _sums(
    items: pd.DataFrame,
    regions: pd.DataFrame,
    opened: Callable[[str], Packed],
    p: Params,
    cache: PrepareCache,
) -> dict[str, dict[str, Any]]:
    """Sums over each training region, by a key that says all they depend on."""
    where = items.set_index("id")[["packed", "plane"]].to_dict("index")
    places = {}
    for region in regions[regions["split"] == "train"].itertuples():
        item = where[region.item]
        place = f"{region.row},{region.col},{region.height},{region.width}"
        places[f"{item['packed']}|{item['plane']}|{place}"] = (item["packed"], item["plane"], region)

    def fresh(key: str) -> dict[str, Any]:
        name, plane, region = places[key]
        return normalization.region_sums(opened(name), plane, region, len(p.data.classes))

    new = [key for key in places if key not in cache.sums]
    found = cache.sums | dict(zip(new, _each(fresh, new), strict=True))
    return {key: found[key] for key in places}


def _statistics(
    items: pd.DataFrame,
    regions: pd.DataFrame,
    sums: dict[str, dict[str, Any]],
    opened: Callable[[str], Packed],
    p: Params,
) -> dict[str, Any]:
    total = normalization.BandStatistics(int(items["bands"].iloc[0]), len(p.data.classes))
    for part in sums.values():
        total.add(part)
    statistics = {**total.result(), "range": None}
    if normalization.is_scaled(p.data, str(items["dtype"].iloc[0])):
        where = items.set_index("id")[["packed", "plane"]].to_dict("index")
        train = regions[regions["split"] == "train"].groupby("item", sort=True)
        samples = [
            normalization.sample_of(opened(where[i]["packed"]), where[i]["plane"], r) for i, r in train
        ]
        statistics |= normalization.scaled(np.concatenate(samples), p.data)
    return statistics


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """The same with Python's own strings: Arrow's take ten times as long where rows are looked at one by one."""
    return table.astype({c: object for c, t in table.dtypes.items() if isinstance(t, pd.StringDtype)})


def prepare(
    catalogue: pd.DataFrame,
    links: pd.DataFrame,
    p: Params,
    packed: Path,
    target: Path,
    registry: Path,
    work: Path,
    progress: Callable[[list[Any]], Iterable[Any]] = iter,
) -> assignment.Assignment:
    """Split, index and measure the catalogue's accepted items into `target`.

    Args:
        catalogue: rows of the ingest.
        links: pairs that must share a split.
        p: parameters; `data`, `split` and `prepare` are used.
        packed: folder of the packed items.
        target: an existing empty folder.
        registry: file of the splits decided so far; written last.
        work: folder where results are kept for the next time.

    Returns:
        What was decided for each group, and what was set aside.

    Raises:
        DataError: a packed item is missing, a split is empty, or no window fits.
        LeakError: something of one split reaches another.
    """
    accepted = _plain(catalogue[catalogue["status"] == "accepted"].reset_index(drop=True))
    links = links[links["kind"].isin(p.split.links)]
    decision = assignment.decide(accepted, links, p.split, assignment.read_registry(registry, p.split))
    used = accepted[~accepted["id"].isin(list(decision.aside))]
    absent = [name for name in used["packed"] if not (packed / name).is_file()]
    if absent:
        raise DataError(
            f"{absent[0]}: is missing from {packed} (and {len(absent) - 1} more)",
            "restore it, or run the step ingest again",
        )
    items, has_objects = planes(used), bool(used["objects"].notna().all())
    opened = lru_cache(maxsize=64)(lambda name: Packed(packed / name))
    cache = PrepareCache(work, p)
    regions = assign(items, p.split, decision)
    keys, windowed = _windows(items, opened, p, decision, cache, progress)
    index = windowed.drop(columns="key")
    if index.empty:
        raise DataError(
            "no training window fits between the blocks of other splits",
            "make prepare.window smaller, split.block larger, or split.buffer smaller",
        )
    leakage.check(regions, index, items, p.split, links)
    sums = _sums(items, regions, opened, p, cache)
    statistics = _statistics(items, regions, sums, opened, p)
    cache.save(sums, keys, windowed)
    items.rename(columns={"id": "item"}).to_parquet(target / "items.parquet", index=False)
    regions.to_parquet(target / "regions.parquet", index=False)
    _write(index, target / "windows.parquet")
    (target / "statistics.json").write_text(json.dumps(statistics, indent=2))
    (target / "prepared.json").write_text(json.dumps(_meta(p, has_objects, regions), indent=2))
    assignment.write_registry(registry, p.split, decision.registry)
    return decision


def _meta(p: Params, has_objects: bool, regions: pd.DataFrame) -> dict[str, Any]:
    divided = (regions["id"] != regions["item"]).any()
    return {
        "classes": p.data.classes,
        "colors": [list(c) for c in p.data.colors],
        "foreground": p.data.foreground,
        "baselines": list(p.data.baselines),
        "instances": has_objects,
        "neighbours": p.data.neighbours,
        "cluster_kind": "block" if divided else "group",
    }
