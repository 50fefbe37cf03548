"""Keys of data.label_values, and classes of data.masks, that no mask of the whole data set has."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from segcore.constants import IGNORE
from segcore.errors import DataError
from segcore.io import annotations
from segcore.io.annotations._shared import OTHERS, listed
from segcore.params._label_keys import span_of
from segcore.params.data import Data

if TYPE_CHECKING:
    import pandas as pd


def note_unused(table: "pd.DataFrame", data: Data) -> None:
    """Note at the first accepted item the unmatched keys that do no harm: of `ignore`, or of a class with other keys.

    Args:
        table: catalogue of the whole data set; changed in place.
        data: settings.
    """
    unmatched = _unmatched(_found(table, data), data)
    unused = [key for key in unmatched if not _is_lost(key, unmatched, data)]
    if unused:
        row = table.index[table["status"] == "accepted"][0]
        note = ["unused-key", f"no mask of the data set has {', '.join(unused)} of data.label_values"]
        table.at[row, "notes"] = json.dumps([*json.loads(table.at[row, "notes"]), note])


def require_matched(table: "pd.DataFrame", data: Data) -> None:
    """Check that each class with keys in data.label_values, or files in data.masks, is in a mask of the data set.

    Data sets with polygons or other annotations are not checked.

    Args:
        table: catalogue of the whole data set.
        data: settings.

    Raises:
        DataError: no mask has a class that is declared (kind "unmatched-key").
    """
    found = _found(table, data)
    unmatched = _unmatched(found, data)
    lost = [key for key in unmatched if _is_lost(key, unmatched, data)]
    if not lost:
        return
    bad = int((table["status"] == "quarantined").sum())
    first = f"correct the {bad} quarantined items, which may have them, or " if bad else ""
    setting = "data.masks" if isinstance(data.masks, dict) else "data.label_values"
    raise DataError(
        f"{setting}: {', '.join(lost)} match{'es' if len(lost) == 1 else ''} no pixel of any mask, so that "
        f"{', '.join(dict.fromkeys(_class_name(key, data) for key in lost))} would never be learned; found are "
        f"{listed(found.items())} pixels",
        f"{first}correct {setting} in params.yaml, or remove from it what the data do not have (data.classes may keep "
        "the class)",
        kind="unmatched-key",
    )


def _found(table: "pd.DataFrame", data: Data) -> dict[str, int]:
    """Pixels by value, colour or class over all accepted masks; empty where not all of them are rasters."""
    total: dict[str, int] = {}
    for label, counts in table.loc[table["status"] == "accepted", ["label", "label_counts"]].itertuples(
        index=False
    ):
        if not isinstance(counts, str) or not (
            isinstance(data.masks, dict) or annotations.is_raster(Path(label))
        ):
            return {}
        for value, count in json.loads(counts).items():
            total[value] = total.get(value, 0) + count
    return total


def _unmatched(found: dict[str, int], data: Data) -> list[str]:
    if not found:
        return []
    if isinstance(data.masks, dict):
        return [name for name in data.masks if name != "ignore" and not found.get(name)]
    values = [int(value) for value in found if re.fullmatch(r"-?\d+", value)]
    unmatched = []
    for key in data.label_table:
        low, high = span_of(key) or (1, 0)
        if key != OTHERS and str(key) not in found and not any(low <= value <= high for value in values):
            unmatched.append(str(key))
    return unmatched


def _class_name(key: str, data: Data) -> str:
    if isinstance(data.masks, dict):
        return key
    index = {str(k): v for k, v in data.label_table.items()}[key]
    return "ignore" if index == IGNORE else data.classes[index]


def _is_lost(key: str, unmatched: list[str], data: Data) -> bool:
    """Whether the class of an unmatched key has no other key that matches."""
    name = _class_name(key, data)
    if isinstance(data.masks, dict) or name == "ignore":
        return isinstance(data.masks, dict)
    same = {str(k) for k, index in data.label_table.items() if data.classes[index : index + 1] == [name]}
    return same.issubset(unmatched)
