"""Keys of data.label_values as written in params.yaml: ranges, and texts that look like numbers but are none."""

import re
from typing import Any

# a key that stands for several mask values
RANGE = re.compile(r"(-?\d+)-(-?\d+)")
_NUMBER = r"[-−]?\d+(?:\.\d+)?"
_LOOSE_RANGE = re.compile(rf"\s*({_NUMBER})\s*(?:[-–—−:~…]|\.\.+|to)\s*({_NUMBER})\s*")
_LIST = re.compile(rf"\s*{_NUMBER}(?:\s*[,;|/]\s*{_NUMBER})+\s*")
_OPEN = re.compile(rf"\s*(?:(?:[<>≤≥]=?|=)\s*{_NUMBER}|{_NUMBER}\s*[-–+])\s*")
_SINGLE = re.compile(rf"\s*({_NUMBER})\s*")


def span_of(key: int | str) -> tuple[int, int] | None:
    """Lowest and highest mask value of a key, which is an integer or a range; None for colours and words."""
    if isinstance(key, int):
        return key, key
    bounds = RANGE.fullmatch(key)
    return (int(bounds[1]), int(bounds[2])) if bounds else None


def require_blanks(values: dict[Any, Any]) -> None:
    """Raise a ValueError for `{0:background}`, which YAML reads as a text without a value."""
    for key, value in values.items():
        if value is None and isinstance(key, str) and ":" in key:
            before, _, after = key.partition(":")
            raise ValueError(f"{key!r} has no blank after the colon: write {before}: {after}")


def require_whole(key: str) -> None:
    """Raise a ValueError for a text that looks like numbers, but is neither a number nor a range of mask values."""
    if re.fullmatch(r"-?\d+", key) or RANGE.fullmatch(key):
        return
    bounds = _LOOSE_RANGE.fullmatch(key)
    if bounds:
        low, high = (bound.replace("−", "-") for bound in bounds.groups())
        if "." in low + high:
            _raise(
                key,
                'a range has whole numbers at both ends, such as "0-127"; masks of fractions are not read',
            )
        _raise(key, f'write the range as "{low}-{high}"')
    if _LIST.fullmatch(key):
        numbers = re.findall(_NUMBER, key)
        keys = ", ".join(f'"{number}": CLASS' for number in numbers[:2])
        _raise(key, f"write a key for each value, such as {{{keys}}}")
    if _OPEN.fullmatch(key):
        _raise(
            key,
            'write a range with both ends, such as "128-255", or the key `others` for all remaining values',
        )
    single = _SINGLE.fullmatch(key)
    if single:
        number = float(single[1].replace("−", "-"))
        _raise(key, f'write "{number:.0f}"' if number.is_integer() else "values of masks are whole numbers")


def _raise(key: str, remedy: str) -> None:
    raise ValueError(f"label_values: {key!r} is no value and no range of values; {remedy}")
