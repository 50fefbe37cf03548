"""From the catalogue to the prepared data: splits without leakage, training windows, statistics of the training split.

Results per item are cached under `work`, so that only new data need time.
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
from segcore.data.packed import Packed, PlaneRows
from segcore.data.prepared import RESAMPLED
from segcore.errors import DataError
from segcore.files import atomic_write, cached_json
from segcore.params import Data, Params
from segcore.splits import assignment, leakage, normalization, windows
from segcore.splits.objects import object_table
from segcore.splits.regions import assign
from segcore.splits.spacing import training_items

# rows of the window table that are written at a time
_ROWS = 4096
# each thread needs about 20 MB
_THREADS = 8


def _write(windows: pd.DataFrame, path: Path) -> None:
    """Write the window table, which grows with the area of scenes, in parts, because the writer copies them."""
    windows.to_parquet(path, index=False, row_group_size=_ROWS, use_dictionary=["item"])


class PrepareCache(Cache):
    """Windows and sums of the last preparation, valid while settings and code are unchanged.

    Results are found by the names of packed items, which change with content and settings but not with the code that
    reads images. Therefore the results also depend on the code of the ingest.

    Args:
        parent: folder of the cache.
        p: settings.
    """

    def __init__(self, parent: Path, p: Params) -> None:
        settings = p.model_dump(mode="json", include={"split", "prepare"})
        code = code_digest(*CODE["ingest"], *CODE["prepare"])
        super().__init__(parent, json.dumps([settings, p.data.classes]), code)
        self.sums: dict[str, dict[str, Any]] = {}
        # items whose windows are cached, including items without windows
        self.keys: list[str] = []
        # the column `key` is a position in `keys`
        self.windows = pd.DataFrame({"key": []})
        path = self.folder / "sums.json"
        cached = cached_json(path)
        if cached:
            self.sums, self.keys = cached["sums"], cached["keys"]
            self.windows = pd.read_parquet(self.folder / "windows.parquet")

    def save(self, sums: dict[str, dict[str, Any]], keys: list[str], windows: pd.DataFrame) -> None:
        """Replace the cached results; sums.json is written last, because it marks the cache as complete."""
        self.start()
        (self.folder / "sums.json").unlink(missing_ok=True)
        with atomic_write(self.folder / "windows.parquet") as part:
            _write(windows, part)
        with atomic_write(self.folder / "sums.json") as part:
            part.write_text(json.dumps({"sums": sums, "keys": keys}))


def planes(accepted: pd.DataFrame) -> pd.DataFrame:
    """One row per picture or plane of a volume: id, volume, plane, group, and columns of the catalogue."""
    columns = ["group", "batch", "packed", "height", "width", "depth", "bands", "dtype", "sha256", "crs"]
    place = ["transform", "spacing", "affine", "orientation", "axis"]
    # Without words there is no such column, so that the prepared data are those of earlier versions.
    words = ["words"] if "words" in accepted and (accepted["words"] != "{}").any() else []
    table = accepted[["id", *columns, *place, *words]].rename(columns={"id": "volume"})
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
    """Results of the function for all jobs, in threads, because numpy releases the GIL."""
    with ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), _THREADS)) as pool:
        return [future.result() for future in progress([pool.submit(function, job) for job in jobs])]


def _windows(
    items: pd.DataFrame,
    opened: Callable[[str], Packed],
    p: Params,
    decision: assignment.Assignment,
    cache: PrepareCache,
    progress: Callable[[list[Any]], Iterable[Any]],
) -> tuple[list[str], pd.DataFrame]:
    """Key of each item, which contains everything that its windows depend on, and windows with their key's position."""
    rows = list(items.itertuples(index=False))
    keys = [f"{r.packed}|{r.plane}|{decision.groups[r.group]}|{decision.anchors.get(r.volume)}" for r in rows]
    place = {key: index for index, key in enumerate(keys)}
    # position of each cached key among the current keys, -1 if it is not needed any more
    current = pd.Series([place.get(key, -1) for key in cache.keys], dtype="int64")
    cached = cache.windows.assign(key=current.reindex(cache.windows["key"]).to_numpy())
    cached_keys, classes = set(cache.keys), len(p.data.classes)
    new = [index for index, key in enumerate(keys) if key not in cached_keys]

    def fresh(index: int) -> np.ndarray:
        row = rows[index]
        label = PlaneRows(lambda: opened(row.packed), "labels", row.plane, (row.height, row.width))
        return windows.index_item(row, label, classes, p.prepare, p.split, decision)

    cells = _each(fresh, new, progress)
    fresh_rows = windows.tabulated([rows[i].id for i in new], cells, classes)
    fresh_rows["key"] = np.repeat(np.array(new, np.int64), [len(c) for c in cells])
    table = pd.concat([t for t in (cached[cached["key"] >= 0], fresh_rows) if len(t)] or [fresh_rows])
    return keys, table.sort_values("key", kind="stable", ignore_index=True)


def _sums(
    items: pd.DataFrame,
    regions: pd.DataFrame,
    opened: Callable[[str], Packed],
    p: Params,
    cache: PrepareCache,
) -> dict[str, dict[str, Any]]:
    """Sums over each training region, by a key that contains everything that they depend on."""
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
    sums = cache.sums | dict(zip(new, _each(fresh, new), strict=True))
    return {key: sums[key] for key in places}


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
    """The table with Python strings instead of Arrow's, which are ten times as slow in access row by row."""
    return table.astype({c: object for c, t in table.dtypes.items() if isinstance(t, pd.StringDtype)})


def prepare(
    catalogue: pd.DataFrame,
    links: pd.DataFrame,
    p: Params,
    packed: Path,
    target: Path,
    split_file: Path,
    work: Path,
    progress: Callable[[list[Any]], Iterable[Any]] = iter,
) -> assignment.Assignment:
    """Write the prepared data of the accepted items of the catalogue to `target`.

    Args:
        catalogue: rows of the ingest.
        links: pairs that must share a split.
        p: parameters; `data`, `split` and `prepare` are used.
        packed: folder of the packed items.
        target: an existing empty folder.
        split_file: splits of earlier runs; written last.
        work: folder of the cache.
        progress: wraps the list of futures of the items whose windows are computed.

    Returns:
        Splits of all groups, and the items that were set aside.

    Raises:
        DataError: a packed item is missing, a group would leave its recorded split, a split is empty, or no window
            fits.
        LeakError: pixels, a group or linked items are in more than one split.
    """
    accepted = _plain(catalogue[catalogue["status"] == "accepted"].reset_index(drop=True))
    links = links[links["kind"].isin(p.split.links)]
    earlier = assignment.read_split_file(split_file, p.split)
    decision = assignment.decide(accepted, links, p.split, earlier, split_file)
    used = accepted[~accepted["id"].isin(list(decision.aside))]
    _require_packed(used, packed)
    items = planes(used)
    regions = assign(items, p.split, decision)
    trained = training_items(items, regions, p.prepare.spacing, packed, target, _each)
    opened = lru_cache(maxsize=64)(
        lambda name: Packed((target if name.startswith(RESAMPLED) else packed) / name)
    )
    cache = PrepareCache(work, p)
    keys, windowed = _windows(trained, opened, p, decision, cache, progress)
    index = windowed.drop(columns="key")
    if index.empty:
        raise DataError(
            "no training window fits between the blocks of other splits",
            "make prepare.window smaller, split.block larger, or split.buffer smaller",
        )
    leakage.check(regions, _on_own_grid(index, items, p), items, p.split, links)
    sums = _sums(items, regions, opened, p, cache)
    statistics = _statistics(items, regions, sums, opened, p)
    cache.save(sums, keys, windowed)
    items.rename(columns={"id": "item"}).to_parquet(target / "items.parquet", index=False)
    regions.to_parquet(target / "regions.parquet", index=False)
    _write(index, target / "windows.parquet")
    (target / "statistics.json").write_text(json.dumps(statistics, indent=2))
    meta = _meta(p, bool(used["objects"].notna().all()), regions)
    if p.data.has_objects and meta["instances"]:
        objects = object_table(items, regions, packed, p.data.foreground, cache.folder / "objects")
        objects.to_parquet(target / "objects.parquet", index=False)
        meta |= _of_objects(p.data)
    (target / "prepared.json").write_text(json.dumps(meta, indent=2))
    assignment.write_split_file(split_file, p.split, decision.entries)
    return decision


def _on_own_grid(index: pd.DataFrame, items: pd.DataFrame, p: Params) -> pd.DataFrame:
    """Windows in pixels of their items; those of resampled items count as the whole item."""
    if p.prepare.spacing is None:
        return index
    sizes = items.set_index("id").loc[index["item"], ["height", "width"]].to_numpy()
    return index.assign(row=0, col=0, height=sizes[:, 0], width=sizes[:, 1])


def _require_packed(used: pd.DataFrame, packed: Path) -> None:
    """Check that the packed file of each item exists."""
    missing = [name for name in used["packed"] if not (packed / name).is_file()]
    if missing:
        raise DataError(
            f"{missing[0]}: is missing from {packed} (and {len(missing) - 1} more)",
            "restore it, or run the step ingest again",
        )


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
        # all baselines are annotators then
        **({"annotators": True} if p.data.annotators else {}),
        **({"spacing": list(p.prepare.spacing)} if p.prepare.spacing else {}),
    }


def _of_objects(data: Data) -> dict[str, Any]:
    """Keys of prepared.json that only data with objects have."""
    truth = {"truth_of_objects": "components" if data.instances == "components" else "given"}
    return truth | ({"touching": True} if data.touching else {})
