"""Values, colours and categories found in annotations, with the classes that they become."""

import re
from collections import Counter
from typing import Any

import pandas as pd

from segcore.constants import IGNORE
from segcore.params.data import Data
from tasks.data_card.facts import parsed
from tasks.formatting import hexcolour

MOST_VALUES = 30
_RANGE = re.compile(r"(-?\d+)-(-?\d+)")


def found(good: pd.DataFrame, data: Data) -> dict[str, Any] | None:
    """The most frequent values in annotations, summed over all items; None where no item has any.

    Returns:
        rows: value, count (pixels of a mask, objects of other annotations), share of all counts, items, class and its
        colour, "" and None where `data.label_values` has no entry; other: number and sum of the values left out.
    """
    counts: Counter[str] = Counter()
    items: Counter[str] = Counter()
    # catalogues of earlier versions have no such column
    for text in good.get("label_counts", ()):
        one = parsed(text) or {}
        counts.update(one)
        items.update(one.keys())
    if not counts:
        return None
    total = max(1, sum(counts.values()))
    rows = []
    for value, count in counts.most_common(MOST_VALUES):
        index = _class_of(value, data)
        row = {"value": value, "count": count, "share": count / total, "items": items[value]}
        rows.append(row | _named(index, data))
    rest = counts.most_common()[MOST_VALUES:]
    return {"rows": rows, "other": len(rest), "other_count": sum(count for _, count in rest)}


def _named(index: int | None, data: Data) -> dict[str, str | None]:
    if index is None:
        return {"class": "", "colour": None}
    if index == IGNORE:
        return {"class": "ignored", "colour": None}
    return {"class": data.classes[index], "colour": hexcolour(data.colors[index])}


def _class_of(value: str, data: Data) -> int | None:
    """Index of the class that a value becomes by data.label_values, whose keys may be ranges such as "0-127"."""
    table = {str(key): index for key, index in data.label_table.items()}
    for key in (value, value.upper()):
        if key in table:
            return table[key]
    for key, index in table.items():
        ends = _RANGE.fullmatch(key)
        if ends and re.fullmatch(r"-?\d+", value) and int(ends[1]) <= int(value) <= int(ends[2]):
            return index
    return table.get("others")
