"""Facts of the values of images: where they are, how far they spread, their sign."""

from collections.abc import Sequence
from typing import Any

import numpy as np

# decimal digits that are stored
DIGITS = 6


def value_facts(values: np.ndarray) -> dict[str, np.ndarray]:
    """Facts of the values of one image, each (C,).

    Args:
        values: (n, C) valid pixels, n > 0.

    Returns:
        low, middle and high: the 1 %, 50 % and 99 % quantile. spread: high - low. level: the larger of |low| and
        |high|. negative: share of values below 0. whole: whether all values are whole numbers.
    """
    values = np.asarray(values, np.float64)
    low, middle, high = np.quantile(values, (0.01, 0.5, 0.99), axis=0)
    return {
        "low": low,
        "middle": middle,
        "high": high,
        "spread": high - low,
        "level": np.maximum(np.abs(low), np.abs(high)),
        "negative": (values < 0).mean(axis=0),
        "whole": (values == np.round(values)).all(axis=0),
    }


def value_ranges(images: Sequence[dict[str, np.ndarray]]) -> dict[str, Any]:
    """The smallest and largest of each fact over all images, as [smallest, largest], each (C,), for JSON.

    Images of a single value do not count for spread and level. "whole" is whether all values are whole numbers.
    """

    def extremes(name: str) -> list[list[float]]:
        table = np.stack([facts[name] for facts in images])
        if name in ("spread", "level"):
            spreads = np.stack([facts["spread"] for facts in images])
            varied = np.where(spreads > 0, table, np.nan)
            table = np.where(np.isnan(varied).all(axis=0), table, varied)
        limits = np.nanmin(table, axis=0), np.nanmax(table, axis=0)
        return [[float(f"{value:.{DIGITS}g}") for value in limit] for limit in limits]

    names = ("low", "middle", "high", "spread", "level", "negative")
    whole = bool(all(facts["whole"].all() for facts in images))
    return {**{name: extremes(name) for name in names}, "whole": whole}
