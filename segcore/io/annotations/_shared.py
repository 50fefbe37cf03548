"""What all kinds of ground truth share: from declared values to class indices, and how errors list what they found."""

from collections.abc import Iterable

import numpy as np

from segcore.constants import IGNORE
from segcore.errors import DataError
from segcore.io.annotations import Labels
from segcore.params.data import Data

OTHERS = "others"  # key of label_values for every value that has no key of its own
_SHOWN = 8


def background_index(data: Data) -> int:
    """Class of pixels that no object covers: background, or the first class where none is the background."""
    return 0 if data.background is None else data.classes.index(data.background)


def object_index(data: Data) -> int:
    """Class of objects that say nothing of what they are: the first class that is not `background_index`."""
    outside = background_index(data)
    return next(i for i in data.foreground if i != outside)


def class_of(value: object, table: dict[int | str, int]) -> int | None:
    """Class of a category or property value; None where it is not declared, by itself or as "others".

    Numbers and their texts mean the same: 3, 3.0 and "3" find a key 3 or "3". Truth values are "true" and
    "false", none at all is "null".
    """
    for key in _keys(value):
        if key in table:
            return table[key]
    return table.get(OTHERS)


def _keys(value: object) -> list[int | str]:
    if shown(value) == "null":
        return ["null"]
    if isinstance(value, bool | np.bool_):
        return [str(bool(value)).lower()]
    if isinstance(value, int | np.integer) or (
        isinstance(value, float | np.floating) and value == value // 1
    ):
        return [int(value), str(int(value))]
    text = str(value)
    return [text, int(text)] if text.removeprefix("-").isdecimal() else [text]


def shown(value: object) -> str:
    """A category or property value in a message."""
    return "null" if value is None or value != value else str(value)


def listed(counts: Iterable[tuple[object, int]], most: int = _SHOWN) -> str:
    """'a (12), b (3) and 4 more', the most frequent first."""
    ordered = sorted(counts, key=lambda pair: -pair[1])
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(f"{value} ({count})" for value, count in ordered[:most]) + more


def ids(numbers: Iterable[object], most: int = _SHOWN) -> str:
    """'3, 7, 9 and 4 more'."""
    all_of = [str(n) for n in numbers]
    return ", ".join(all_of[:most]) + (f" and {len(all_of) - most} more" if len(all_of) > most else "")


def unknown_category(name: str, what: str, counts: dict[str, int], data: Data) -> DataError:
    """The error for categories or property values that label_values does not declare.

    Args:
        name: of the file.
        what: they are, such as "categories".
        counts: value -> polygons of this image that have it.
        data: whose label_values lacks them.
    """
    return DataError(
        f"{name}: {what} that data.label_values does not declare: {listed(counts.items())}",
        f"declare them in data.label_values (now {declared(data)}), as a class or as `ignore`, "
        f"or declare `{OTHERS}`",
        kind="unknown-category",
    )


def declared(data: Data) -> str:
    """Keys of label_values, for a message."""
    return ids(map(repr, data.label_values), most=20)


def from_numbers(numbers: np.ndarray, codes: np.ndarray, background: int) -> Labels:
    """Labels of a window of numbered objects.

    Args:
        numbers: (H, W) unsigned integers, 0 outside all objects.
        codes: uint8 class of each number.
        background: class that makes no object.
    """
    is_object = (codes != background) & (codes != IGNORE)
    kept = np.where(is_object, np.arange(len(codes), dtype=np.uint32), np.uint32(0))
    return Labels(codes[numbers], kept[numbers])
