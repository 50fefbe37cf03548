"""Objects of the planes of packed items, cached, so that only new items need time."""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from segcore.data.packed import Packed, PlaneRows
from segcore.files import atomic_write, cached_json
from segcore.objects.ceiling import ceiling
from segcore.objects.index import OF_PLANE, Columns, index
from segcore.objects.runs import read_runs

# a scene of 10,000 x 10,000 pixels with 70,000 objects takes about 1 GB
_THREADS = 8
COUNTS = ("class_index", "true", "predicted", "matched", "iou")


class Plane(NamedTuple):
    """A plane of a packed item: name of the file, index of the plane."""

    packed: str
    plane: int


class Found(NamedTuple):
    """Objects of several planes.

    Attributes:
        objects: one row per object: `at` (position of its plane), the columns of `segcore.objects.index.OF_PLANE`, and
            `merged`.
        ceiling: one row per plane and foreground class: `at` and COUNTS; see `segcore.objects.ceiling`.
    """

    objects: pd.DataFrame
    ceiling: pd.DataFrame


def found(planes: Sequence[Plane], folder: Path, foreground: Sequence[int], cache: Path) -> Found:
    """Objects of planes, in the order of the planes and of first pixels.

    Args:
        planes: with the tensors `instances` and `labels`, each once.
        folder: of the packed items.
        foreground: indices of the classes that have objects; at least one.
        cache: folder of the results of earlier calls, valid for these classes and this code. Results of other planes
            are removed from it.

    Raises:
        DataError: a packed item is missing or damaged.
    """
    keys = [f"{packed}|{plane}" for packed, plane in planes]
    before, known = _cached(cache, keys)
    new = [at for at, key in enumerate(keys) if key not in known]
    opened = lru_cache(maxsize=64)(lambda name: Packed(folder / name))
    with ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), _THREADS)) as pool:
        parts = list(
            pool.map(lambda at: _of_plane(opened(planes[at].packed), planes[at].plane, foreground), new)
        )
    result = Found(
        _joined(before.objects, new, [objects for objects, _ in parts]),
        _joined(before.ceiling, new, [counts for _, counts in parts]),
    )
    if new or len(known) != len(keys):
        _save(result, keys, cache)
    return result


def _of_plane(packed: Packed, plane: int, foreground: Sequence[int]) -> tuple[Columns, Columns]:
    height, width = packed.shapes["labels"][1][1:]
    numbers, labels = (
        PlaneRows(lambda: packed, name, plane, (height, width)) for name in ("instances", "labels")
    )
    runs = read_runs(numbers, labels, foreground)
    objects = index(runs, foreground)
    counts, merged = ceiling(runs, objects, foreground)
    return {**objects, "merged": merged}, counts


def _joined(before: pd.DataFrame, at: list[int], parts: list[Columns]) -> pd.DataFrame:
    """Rows of earlier results and of new ones at these positions, sorted by position."""
    if not parts:
        return before
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    lengths = [len(next(iter(part.values()))) for part in parts]
    table = pd.DataFrame({"at": np.repeat(np.array(at, np.int64), lengths), **columns})
    both = pd.concat([before, table]) if len(before) else table
    return both.sort_values("at", kind="stable", ignore_index=True)


def _cached(cache: Path, keys: list[str]) -> tuple[Found, set[str]]:
    """Cached results of planes with these keys, `at` their positions in `keys`; and the keys of all cached planes."""
    cached: list[str] = cached_json(cache / "keys.json", list) or []
    if not cached:
        return Found(
            *(pd.DataFrame(columns=["at", *names]) for names in ([*OF_PLANE, "merged"], COUNTS))
        ), set()
    place = {key: at for at, key in enumerate(keys)}
    now = np.array([place.get(key, -1) for key in cached], np.int64)

    def read(name: str) -> pd.DataFrame:
        table = pd.read_parquet(cache / f"{name}.parquet")
        table["at"] = now[table["at"].to_numpy()]
        return table[table["at"] >= 0].sort_values("at", kind="stable", ignore_index=True)

    return Found(read("objects"), read("ceiling")), set(cached)


def _save(result: Found, keys: list[str], cache: Path) -> None:
    """Replace the cached results; keys.json is written last, because it marks them as complete."""
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "keys.json").unlink(missing_ok=True)
    for name, table in result._asdict().items():
        with atomic_write(cache / f"{name}.parquet") as part:
            table.to_parquet(part, index=False)
    with atomic_write(cache / "keys.json") as part:
        part.write_text(json.dumps(keys))
