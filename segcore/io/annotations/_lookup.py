"""Maps integers to class indices by ranges of values, and counts the values of a mask."""

from typing import Any

import numpy as np

from segcore.io.annotations._shared import listed

# No class has this index, because there are at most 254 classes.
UNKNOWN = 254
# A mask with more values is counted by the keys of data.label_values.
MOST_VALUES = 1000
_REST = "other values"
# Lowest and highest value of a key.
Span = tuple[int, int]


class Lookup:
    """Maps integers to class indices, UNKNOWN for those without a key, without sorting pixels.

    Args:
        spans: class index of each range of values; ranges have no value in common.
    """

    def __init__(self, spans: dict[Span, int]) -> None:
        least, most = np.iinfo(np.int64).min, np.iinfo(np.int64).max - 1
        self.spans = sorted(
            (max(low, least + 1), min(high, most)) for low, high in spans if low <= most and high > least
        )
        codes = {(max(low, least + 1), min(high, most)): code for (low, high), code in spans.items()}
        # A first range for every search that ends below all others.
        self._low = np.array([least, *(low for low, _ in self.spans)], np.int64)
        self._high = np.array([least, *(high for _, high in self.spans)], np.int64)
        self.codes = np.array([UNKNOWN, *(codes[span] for span in self.spans)], np.uint8)
        self._tables: dict[str, np.ndarray] = {}

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Class indices (H, W) uint8 of (H, W) integers."""
        size = values.dtype.itemsize
        if size > 2:
            return np.take(self.codes, self.keys(values))
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        index = np.dtype(f"u{size}")
        table = self._tables.get(values.dtype.str)
        if table is None:
            table = self.codes[self.keys(np.arange(2 ** (8 * size), dtype=index).view(values.dtype))]
            self._tables[values.dtype.str] = table
        # Twice as fast as indexing.
        classes: np.ndarray = np.take(table, values.view(index))
        return classes

    def keys(self, values: np.ndarray) -> np.ndarray:
        """Number of the range that each integer is in, counted from 1; 0 for none."""
        if values.dtype == np.uint64:
            values = np.minimum(values, np.uint64(np.iinfo(np.int64).max))
        values = values.astype(np.int64, copy=False)
        positions = np.searchsorted(self._low, values, side="right") - 1
        return np.where(values <= self._high[positions], positions, 0)


class Found:
    """Number of pixels of each value of a mask, as it is stored; of many values or wide types, of each key.

    Args:
        lookup: the keys.
        colored: whether values are colours 0xRRGGBB.
    """

    def __init__(self, lookup: Lookup, colored: bool) -> None:
        self._lookup, self._colored = lookup, colored
        self._by_key = np.zeros(len(lookup.spans) + 1, np.int64)
        self._by_value: np.ndarray | None = None
        self._dtype = np.dtype(np.uint8)
        # lowest and highest value without a key
        self._rest: Span | None = None

    def classes(self, values: np.ndarray) -> np.ndarray:
        """Class indices (H, W) uint8 of (H, W) integers, which are counted."""
        size = values.dtype.itemsize
        if size > 2:
            keys = self._lookup.keys(values)
            self._by_key += np.bincount(keys.ravel(), minlength=len(self._by_key))
            return np.take(self._lookup.codes, keys)
        self._dtype = values.dtype.newbyteorder("=")
        if self._by_value is None:
            self._by_value = np.zeros(2 ** (8 * size), np.int64)
        self._by_value += self._counted(values.astype(self._dtype, copy=False))
        return self._lookup(values)

    def add_rest(self, values: np.ndarray) -> None:
        """Note the range of values (N,) without a key, where not all values are counted."""
        if values.dtype.itemsize > 2 and values.size:
            low, high = self._rest or (int(values[0]), int(values[0]))
            self._rest = min(low, int(values.min())), max(high, int(values.max()))

    def _counted(self, values: np.ndarray) -> np.ndarray:
        """Pixels of each value of 8 or 16 bits; one comparison per key is much faster if all values have a key."""
        size = self._dtype.itemsize
        counts = np.zeros(2 ** (8 * size), np.int64)
        limits = np.iinfo(self._dtype)
        single = [low for low, high in self._lookup.spans if low == high and limits.min <= low <= limits.max]
        if len(single) <= 8:
            for value in single:
                counts[value] = np.count_nonzero(values == value)
            if counts.sum() == values.size:
                return counts
        return np.bincount(values.view(f"u{size}").ravel(), minlength=len(counts))

    def _values(self) -> dict[int, int]:
        """Pixels by value; empty where values are not counted one by one."""
        if self._by_value is None:
            return {}
        found = np.flatnonzero(self._by_value)
        values = found.astype(f"u{self._dtype.itemsize}").view(self._dtype)
        return dict(zip(values.tolist(), self._by_value[found].tolist(), strict=True))

    def counts(self) -> dict[str, int]:
        """Pixels by value or colour, or by key where there are many values or they are wide."""
        values = self._values()
        if 0 < len(values) <= MOST_VALUES:
            return {str(value): count for value, count in values.items()}
        by_key = self._by_key.copy()
        if values:
            keys = self._lookup.keys(np.array(list(values), np.int64))
            np.add.at(by_key, keys, np.array(list(values.values()), np.int64))
        names = [_REST, *(self._text(span) for span in self._lookup.spans)]
        return {name: int(count) for name, count in zip(names, by_key, strict=True) if count}

    def _text(self, span: Span) -> str:
        low, high = span
        if self._colored:
            return f"#{low:06X}"
        return str(low) if low == high else f"{low}-{high}"

    def several_without_key(self, but: float | None) -> str:
        """Values without a key as text, if they are more than one.

        Args:
            but: a value that does not count, such as nodata.
        """
        if self._rest:
            low, high = (f"#{v:06X}" if self._colored else v for v in self._rest)
            return f"from {low} to {high}" if low != high else ""
        values = self._values()
        keys = self._lookup.keys(np.array(list(values), np.int64))
        rest: list[Any] = [
            pair for pair, key in zip(values.items(), keys, strict=True) if key == 0 and pair[0] != but
        ]
        return listed(rest) if len(rest) > 1 else ""
