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
    """Index of the class that a value becomes by data.label_values; None where the value alone does not show it.

    Keys may be ranges such as "0-127". A value may be a number with a name, such as "3 kidney" or "id 3". Polygons
    without data.label_property have the value 1, or are of class 1.
    """
    table = {str(key): index for key, index in data.label_table.items()}
    others = table.get("others")
    if value == "polygons" and data.label_property is None:
        return table.get("1", 1 if others is None else others)
    number = re.fullmatch(r"(?:id )?(-?\d+)(?:\.0+)?(?: (.*))?", value)
    keys = [value, value.upper(), *([number[1], number[2]] if number else [])]
    known = next((table[key] for key in keys if key in table), None)
    if known is not None:
        return known
    for key, index in table.items():
        ends = _RANGE.fullmatch(key)
        if ends and number and int(ends[1]) <= int(number[1]) <= int(ends[2]):
            return index
    # a category may have been found by its id, which is not known here
    by_id = number is None and not value.startswith("#") and any(re.fullmatch(r"-?\d+", key) for key in table)
    return None if by_id else others
