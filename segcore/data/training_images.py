"""What the images of a training have in common: their values, and the size of their pixels.

A model's description stores it, so that scenes in other units or of another resolution are recognised.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from segcore.data.packed import Packed
from segcore.data.prepared import PreparedData
from segcore.data.raster import Info
from segcore.data.resolution import pixel_sizes

# at most this many images are read, evenly spaced
_IMAGES = 2000
# decimal digits that are stored
_DIGITS = 6


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
        return [[float(f"{value:.{_DIGITS}g}") for value in limit] for limit in limits]

    names = ("low", "middle", "high", "spread", "level", "negative")
    whole = bool(all(facts["whole"].all() for facts in images))
    return {**{name: extremes(name) for name in names}, "whole": whole}


def facts_of_training(data: PreparedData) -> dict[str, Any]:
    """Facts of the images that a model is trained on, for JSON.

    Returns:
        images: their number. values: as `value_ranges`; missing without a valid pixel. pixel_sizes: smallest, median
        and largest of each entry of `segcore.data.resolution.pixel_sizes`, where all images have it.
    """
    regions = data.regions[data.regions["split"] == "train"]
    rows = data.items.loc[sorted(regions["item"].unique())]
    volumes = rows.groupby("volume", sort=True)
    facts: dict[str, Any] = {"images": len(volumes)}
    if values := [value_facts(v) for v in _values(data, regions, rows) if len(v)]:
        facts["values"] = value_ranges(values)
    sizes = pd.DataFrame([_pixel_sizes(part.iloc[0]) for _, part in volumes])
    facts["pixel_sizes"] = {
        str(name): [float(f"{f(column):.{_DIGITS}g}") for f in (np.min, np.median, np.max)]
        for name, column in sizes.items()
        if column.notna().all()
    }
    return facts


def _values(data: PreparedData, regions: pd.DataFrame, rows: pd.DataFrame) -> Iterator[np.ndarray]:
    """Valid pixels (n, C) of the even sample of each picture or volume, within its training regions."""
    names = sorted(rows["volume"].unique())
    chosen = set(names[:: -(-len(names) // _IMAGES)])
    by_item = dict(list(regions.groupby("item")))
    for _, part in rows[rows["volume"].isin(chosen)].groupby("volume", sort=True):
        packed = Packed(data.packed / part["packed"].iloc[0])
        samples = packed.array("sample")
        planes = zip(part["item"], part["plane"], strict=True)
        yield np.concatenate(
            [
                samples[plane][packed.sample_mask(plane, by_item[item].itertuples())]
                for item, plane in ((str(item), int(plane)) for item, plane in planes)
            ]
        )


def _pixel_sizes(row: Any) -> dict[str, float]:
    transform, spacing = json.loads(row["transform"]), json.loads(row["spacing"])
    return pixel_sizes(
        Info(
            height=int(row["height"]),
            width=int(row["width"]),
            bands=int(row["bands"]),
            dtype=str(row["dtype"]),
            crs=row["crs"] if isinstance(row["crs"], str) else None,
            transform=tuple(transform) if transform else None,
            spacing=tuple(spacing) if spacing else None,
        )
    )
