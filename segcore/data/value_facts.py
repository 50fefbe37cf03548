"""Facts of the values of images: where they are, how far they spread, their sign."""

from collections.abc import Sequence
from typing import Any

import numpy as np

# decimal digits that are stored
DIGITS = 6
# of whole numbers that float64 represents exactly
_LARGEST = 2**53


def value_facts(values: np.ndarray) -> dict[str, np.ndarray]:
    """Facts of the values of one image, each (C,).

    Args:
        values: (n, C) valid pixels, n > 0.

    Returns:
        low, middle and high: the 1 %, 50 % and 99 % quantile. spread: high - low. level: the larger of |low| and
        |high|. negative: share of values below 0. whole: whether all values are whole numbers. step: the greatest
        number that divides all values; 0 where they are not whole, or all 0.
    """
    values = np.asarray(values, np.float64)
    low, middle, high = np.quantile(values, (0.01, 0.5, 0.99), axis=0)
    whole = (values == np.round(values)).all(axis=0) & (np.abs(values) < _LARGEST).all(axis=0)
    step = [np.gcd.reduce(band.astype(np.int64)) if w else 0 for band, w in zip(values.T, whole, strict=True)]
    return {
        "low": low,
        "middle": middle,
        "high": high,
        "spread": high - low,
        "level": np.maximum(np.abs(low), np.abs(high)),
        "negative": (values < 0).mean(axis=0),
        "whole": whole,
        "step": np.array(step, np.int64),
    }


def value_ranges(images: Sequence[dict[str, np.ndarray]]) -> dict[str, Any]:
    """The smallest and largest of each fact over all images, as [smallest, largest], each (C,), for JSON.

    Images of a single value do not count for spread and level. "medians" are medians over the images, each (C,).
    "whole" is whether all values are whole numbers, and "step" the greatest number that divides all of them, or 0.
    """

    def rounded(limit: np.ndarray) -> list[float]:
        return [float(f"{value:.{DIGITS}g}") for value in limit]

    def varied(name: str) -> np.ndarray:
        table = np.stack([facts[name] for facts in images])
        if name in ("spread", "level"):
            spreads = np.stack([facts["spread"] for facts in images])
            without = np.where(spreads > 0, table, np.nan)
            table = np.where(np.isnan(without).all(axis=0), table, without)
        return table

    names = ("low", "middle", "high", "spread", "level", "negative")
    tables = {name: varied(name) for name in names}
    extremes = {n: [rounded(np.nanmin(t, axis=0)), rounded(np.nanmax(t, axis=0))] for n, t in tables.items()}
    medians = {n: rounded(np.nanmedian(t, axis=0)) for n, t in tables.items() if n != "negative"}
    whole = bool(all(facts["whole"].all() for facts in images))
    step = int(np.gcd.reduce(np.concatenate([facts["step"] for facts in images]))) if whole else 0
    return {**extremes, "medians": medians, "whole": whole, "step": step}
