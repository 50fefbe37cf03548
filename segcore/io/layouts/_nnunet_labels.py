"""Compares the labels of dataset.json with data.classes and data.label_values."""

from typing import Any

from segcore.constants import IGNORE
from segcore.errors import DataError
from segcore.params.data import Data


def check_labels(name: str, labels: dict[str, Any], data: Data) -> None:
    """Check that params.yaml gives each label a class, and not that of another label.

    A label may have a class of another name, or be joined with others, but not with the class that has the name of
    another label while its own name is a class too.

    Args:
        name: of the file, for errors.
        labels: name: number of each label, or number: name as in older files.
        data: settings.

    Raises:
        DataError: the labels differ, or a label is a list of regions (kind "other-labels").
    """
    numbers = _numbers(name, labels)
    classes = [text.casefold() for text in data.classes]
    wrong = []
    for label, number in numbers.items():
        index = _class_of(number, data)
        if index is None:
            wrong.append(f"{number} ({label}) is not in data.label_values")
        elif label.casefold() in classes and index not in (IGNORE, classes.index(label.casefold())):
            wrong.append(f"{number} is {label}, in data.label_values {data.classes[index]}")
    if wrong:
        names = sorted((n for n in numbers if n.casefold() != "ignore"), key=lambda label: numbers[label])
        table = {
            number: "ignore" if label.casefold() == "ignore" else label for label, number in numbers.items()
        }
        values = ", ".join(f"{number}: {label}" for number, label in sorted(table.items()))
        raise DataError(
            f"{name}: its labels are not those of params.yaml: {'; '.join(wrong)}",
            f"use the lines of the file in the section data, classes: [{', '.join(names)}] and "
            f"label_values: {{{values}}}, or correct the file",
            kind="other-labels",
        )


def _numbers(name: str, labels: dict[str, Any]) -> dict[str, int]:
    """Number of each label by its name."""
    numbers = {}
    for key, value in labels.items():
        if isinstance(value, list | tuple) and len(value) != 1:
            raise DataError(
                f"{name}: the label {key!r} is a region of the values {value}; regions overlap, and a pixel has one "
                "class here",
                "list each value as a label of its own in the file, and join values in data.label_values",
                kind="other-labels",
            )
        single = value[0] if isinstance(value, list | tuple) else value
        label, number = (single, key) if str(key).isdecimal() and isinstance(single, str) else (key, single)
        try:
            numbers[str(label)] = int(number)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{name}: the label {label!r} has the value {number!r}, which is not a whole number",
                "correct labels in the file",
                kind="other-labels",
            ) from error
    return numbers


def _class_of(number: int, data: Data) -> int | None:
    """Class index or IGNORE of a mask value; None if it has none."""
    for (low, high), index in data.label_spans.items():
        if low <= number <= high:
            return index
    return data.label_table.get("others")
