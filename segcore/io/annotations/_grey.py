"""Recognises masks that were saved with smoothing or lossy compression, and writes the ranges that read them."""

from collections.abc import Mapping
from io import BytesIO
from itertools import pairwise
from pathlib import Path

from segcore.constants import IGNORE
from segcore.params.data import Data

# Undeclared values that a mask has at least, and the share of its pixels that are near a level.
_MANY, _SHARE = 16, 0.6


def ranges(data: Data, highest: int = 255, nodata: float | None = None) -> str:
    """Entry `label_values` with ranges instead of single values; empty where the classes have no distinct levels.

    Args:
        data: settings.
        highest: value of a mask.
        nodata: value of the mask for pixels without data, which is in no range; None: none.
    """
    levels = _levels(data, highest)
    if not levels:
        return ""
    names = {IGNORE: "ignore", **dict(enumerate(data.classes))}
    values = sorted(levels)
    if len(values) == 2:
        middle, top = (values[0] + values[1] + 1) // 2, max(255, highest)
        spans = [(0, middle - 1, values[0]), (middle, top, values[1])]
    else:
        # Between two classes, smoothing makes values of a third one.
        reach = min(b - a for a, b in pairwise(values)) // 4
        spans = [(max(value - reach, 0), value + reach, value) for value in values]
    keys = [
        f'"{span}": {names[levels[value]]}'
        for low, high, value in spans
        for span in _without(low, high, nodata)
    ]
    declared = (
        data.label_spans.get((int(nodata), int(nodata))) if nodata is not None and nodata == nodata else None
    )
    if nodata is not None and declared is not None:
        keys.append(f'"{int(nodata)}": {names[declared]}')
    return f"label_values: {{{', '.join([*keys, *(['others: ignore'] if len(values) > 2 else [])])}}}"


def _without(low: int, high: int, value: float | None) -> list[str]:
    """Keys for the whole numbers from low to high except for one value."""
    if value is None or not low <= value <= high:
        return [f"{low}-{high}"]
    parts = [(low, int(value) - 1), (int(value) + 1, high)]
    return [f"{first}-{last}" if first < last else str(first) for first, last in parts if first <= last]


def is_smoothed(counts: Mapping[int, int], undeclared: int, data: Data) -> bool:
    """Whether a mask has many grey values, most of its pixels near few levels.

    Args:
        counts: pixels of all its values.
        undeclared: number of values without a key.
        data: settings.
    """
    if undeclared <= _MANY or min(counts) < 0:
        return False
    levels = sorted(_levels(data, max(counts)) or (0, max(counts)))
    reach = max(1, min(b - a for a, b in pairwise(levels)) // 8)
    near = sum(n for value, n in counts.items() if any(abs(value - level) <= reach for level in levels))
    return near >= _SHARE * sum(counts.values())


def few_bits(path: Path, data: Data) -> str:
    """Remedy for a grey PNG of 2 or 4 bits, whose values are read as 0 to 255; empty for other files.

    Args:
        path: of a mask.
        data: settings, whose keys are the stored values.
    """
    with path.open("rb") if path.is_file() else BytesIO() as file:
        header = file.read(26)
    if not header.startswith(b"\x89PNG") or header[25:] != b"\0" or header[24] not in (2, 4):
        return ""
    highest = 2 ** header[24] - 1
    keys = {low: code for (low, high), code in data.label_spans.items() if low == high}
    if not keys or min(keys) < 0 or max(keys) > highest:
        return ""
    names = {IGNORE: "ignore", **dict(enumerate(data.classes))}
    declared = ", ".join(f"{low * 255 // highest}: {names[code]}" for low, code in keys.items())
    return (
        f"the file has {header[24]} bits per pixel, and its values 0 to {highest} are read as 0 to 255: declare what "
        f"is read, label_values: {{{declared}}}, or save the mask with 8 bits"
    )


def _levels(data: Data, highest: int) -> dict[int, int]:
    """Class index by the grey value that it is saved as; empty where it is not evident."""
    levels = {low: code for (low, high), code in data.label_spans.items() if low == high and low >= 0}
    if len(levels) < 2:
        return {}
    if max(levels) - min(levels) < 32 and highest > 64:
        # Numbers of classes; two of them are saved as black and white.
        top = 255 if highest < 256 else highest
        first, second, *more = sorted(levels)
        return {} if more else {0: levels[first], top: levels[second]}
    gaps = [b - a for a, b in pairwise(sorted(levels))]
    return levels if min(gaps) >= 8 else {}
