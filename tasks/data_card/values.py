"""Values, colours and categories found in annotations, with the classes that they become."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from segcore.class_colors import hex_color
from segcore.constants import IGNORE
from segcore.io.annotations import is_raster
from segcore.params.data import Data
from tasks.data_card.facts import parsed, plural

MOST_VALUES = 30
_RANGE = re.compile(r"(-?\d+)-(-?\d+)")
_NUMBER = re.compile(r"\d+|#[0-9A-F]{6}")


def found(good: pd.DataFrame, data: Data) -> dict[str, Any] | None:
    """The most frequent values in annotations, summed over all items; None where no item has any.

    Values of masks that are object numbers are one row per class.

    Returns:
        rows: value, count (pixels of a mask, objects of other annotations), share of all counts, items, class and its
        colour, "" and None where `data.label_values` has no entry; other: number and sum of the values left out;
        annotations and objects: their numbers where there are objects of annotations and the two differ, else None.
    """
    # an object number stands under its class
    counts: Counter[str | int] = Counter()
    items: Counter[str | int] = Counter()
    numbers: dict[int, set[str]] = {}
    # catalogues of earlier versions have no such column
    texts, labels = good.get("label_counts", ()), good["label"]
    for text, label in zip(texts, labels, strict=False):
        one: Counter[str | int] = Counter()
        for value, count in (parsed(text) or {}).items():
            index = _class_of_number(value, data) if is_raster(Path(label)) else None
            one[value if index is None else index] += count
            if index is not None:
                numbers.setdefault(index, set()).add(value)
        counts.update(one)
        items.update(one.keys())
    if not counts:
        return None
    total = max(1, sum(counts.values()))
    rows = []
    for value, count in counts.most_common(MOST_VALUES):
        named = _class_of(value, data) if isinstance(value, str) else value
        shown = value if isinstance(value, str) else plural(len(numbers[value]), "object number")
        row = {"value": shown, "count": count, "share": count / total, "items": items[value]}
        rows.append(row | _named(named, data))
    rest = counts.most_common()[MOST_VALUES:]
    table = {"rows": rows, "other": len(rest), "other_count": sum(count for _, count in rest)}
    return table | _differing(sum(counts.values()), good, data)


def _differing(annotations: int, good: pd.DataFrame, data: Data) -> dict[str, int | None]:
    """Numbers of annotations and of their objects, if they differ."""
    of_annotations = data.instances != "components" and data.objects is None
    if (
        of_annotations
        and good["objects"].notna().all()
        and not any(is_raster(Path(p)) for p in good["label"])
    ):
        objects = int(good["objects"].sum())
        if objects != annotations:
            return {"annotations": annotations, "objects": objects}
    return {"annotations": None, "objects": None}


def _class_of_number(value: str, data: Data) -> int | None:
    """Foreground class of a value or colour of a mask that is an object number; None where it is a key or no number."""
    if not data.masks_have_numbers or not _NUMBER.fullmatch(value):
        return None
    index = None if value in map(str, data.label_table) else _class_of(value, data)
    return index if index in data.foreground else None


def _named(index: int | None, data: Data) -> dict[str, str | None]:
    if index is None:
        return {"class": "", "colour": None}
    if index == IGNORE:
        return {"class": "ignored", "colour": None}
    return {"class": data.classes[index], "colour": hex_color(data.colors[index])}


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
