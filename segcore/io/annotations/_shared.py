"""Shared by all ground truth formats: mapping of declared values to class indices, and lists in error messages."""

from collections.abc import Iterable

import numpy as np

from segcore.data.raster import Note
from segcore.errors import DataError
from segcore.params.data import Data

# Key of label_values for every value without a separate key.
OTHERS = "others"
# Longest list in a message.
_SHOWN = 8


def background_index(data: Data) -> int:
    """Class of pixels that no object covers: background, or the first class where no class is the background."""
    return 0 if data.background is None else data.classes.index(data.background)


def class_of(value: object, table: dict[int | str, int]) -> int | None:
    """Class of a category or property value; None where neither the value nor "others" is declared.

    Numbers and their texts are equivalent: 3, 3.0 and "3" match a key 3 or "3". Booleans are "true" and "false", a
    missing value is "null".
    """
    for key in _keys(value):
        if key in table:
            return table[key]
    return table.get(OTHERS)


def _keys(value: object) -> list[int | str]:
    if value_text(value) == "null":
        return ["null"]
    if isinstance(value, bool | np.bool_):
        value = str(bool(value))
    if isinstance(value, int | np.integer) or (
        isinstance(value, float | np.floating) and value == value // 1
    ):
        return [int(value), str(int(value))]
    text = str(value)
    if text.lower() in ("true", "false"):
        # Keys without quotes are in lower case; programs also write True and TRUE.
        return [text, text.lower(), text.capitalize(), text.upper()]
    return [text, int(text)] if text.removeprefix("-").isdecimal() else [text]


def value_text(value: object) -> str:
    """A category or property value as a key of label_values, for messages; "null" for None and NaN."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    return "null" if value is None or value != value else str(value)


def _visible(text: str) -> str:
    """A text in quotes if it has blanks that are not seen."""
    return repr(text) if text != " ".join(text.split()) or not text else text


def listed(counts: Iterable[tuple[object, int]], most: int = _SHOWN) -> str:
    """Values with their counts, most frequent first: 'a (12), b (3) and 4 more'."""
    ordered = sorted(counts, key=lambda pair: -pair[1])
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(f"{value} ({count})" for value, count in ordered[:most]) + more


def ids(numbers: Iterable[object], most: int = _SHOWN) -> str:
    """The first values: '3, 7, 9 and 4 more'."""
    texts = [str(n) for n in numbers]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def named(name: str, notes: Iterable[Note]) -> list[Note]:
    """Notes with the name of a file before texts that do not have it."""
    return [(kind, text if name in text else f"{name}: {text}") for kind, text in notes]


def unknown_category(name: str, what: str, counts: dict[str, int], data: Data) -> DataError:
    """The error for categories or property values that label_values does not declare.

    Args:
        name: of the file.
        what: what has the values, such as "annotations of a.png have categories".
        counts: value -> number of polygons of this image with it.
        data: its label_values lacks them.
    """
    values = listed((_visible(value), count) for value, count in counts.items())
    return DataError(
        f"{name}: {what} that data.label_values does not declare: {values}",
        f"declare them in data.label_values (now {declared(data)}), as a class or as `ignore`, "
        f"or declare `{OTHERS}`",
        kind="unknown-category",
    )


def declared(data: Data) -> str:
    """Keys of label_values as text, for messages."""
    return ids(map(repr, data.label_values), most=20)
