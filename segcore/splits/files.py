"""The files of the prepared data (`segcore.data.prepared`)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from segcore.params import Data, Params
from segcore.splits.objects import object_table

# rows of the window table that are written at a time
_ROWS = 4096


def write_windows(windows: pd.DataFrame, path: Path) -> None:
    """Write the window table, which grows with the area of scenes, in parts, because the writer copies them."""
    windows.to_parquet(path, index=False, row_group_size=_ROWS, use_dictionary=["item"])


class Written(NamedTuple):
    """Prepared data of a split: items, regions, windows, prepared.json, and the folder of the cached results."""

    items: pd.DataFrame
    regions: pd.DataFrame
    windows: pd.DataFrame
    meta: dict[str, Any]
    cache: Path


def write_tested(parts: list[Written], p: Params, packed: Path, target: Path) -> None:
    """Write the regions that are tested in any fold, for comparison and report; nothing is trained on them."""
    tested = [
        part.regions[part.regions["split"] == "test"].assign(fold=fold) for fold, part in enumerate(parts)
    ]
    meta = {key: value for key, value in parts[0].meta.items() if key != "fold"} | {"folds": len(parts)}
    regions = pd.concat(tested).sort_values("id", ignore_index=True)
    write_tables(
        parts[0]._replace(regions=regions, windows=parts[0].windows[:0], meta=meta), {}, p, packed, target
    )


def write_tables(
    written: Written, statistics: Mapping[str, Any], p: Params, packed: Path, target: Path
) -> None:
    """Write all files of a folder of prepared data.

    Args:
        written: tables and content of prepared.json.
        statistics: content of statistics.json.
        p: parameters; `data` is used.
        packed: folder of the packed items.
        target: an existing folder.

    Raises:
        DataError: a packed item is missing or damaged.
    """
    items, regions, meta = written.items, written.regions, written.meta
    items.rename(columns={"id": "item"}).to_parquet(target / "items.parquet", index=False)
    regions.to_parquet(target / "regions.parquet", index=False)
    write_windows(written.windows, target / "windows.parquet")
    (target / "statistics.json").write_text(json.dumps(statistics, indent=2))
    if p.data.has_objects and meta["instances"]:
        objects = object_table(items, regions, packed, p.data.foreground, written.cache / "objects")
        objects.to_parquet(target / "objects.parquet", index=False)
        meta = meta | _of_objects(p.data)
    (target / "prepared.json").write_text(json.dumps(meta, indent=2))


def meta_of(p: Params, has_objects: bool, regions: pd.DataFrame) -> dict[str, Any]:
    """Content of prepared.json, without the keys of objects."""
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
