"""What the images of a training have in common: their values, and the size of their pixels.

A model's description stores it, so that scenes in other units or of another resolution are recognised.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from segcore.data.packed import Packed
from segcore.data.prepared import PreparedData
from segcore.data.resolution import pixel_sizes_of
from segcore.data.value_facts import DIGITS, value_facts, value_ranges

# at most this many images are read, evenly spaced
_IMAGES = 2000


def facts_of_training(data: PreparedData) -> dict[str, Any]:
    """Facts of the images that a model is trained on, for JSON.

    Returns:
        images: their number; a volume is one. regions: number of training regions.
        values: as `value_ranges`; missing without a valid pixel. pixel_sizes: smallest, median
        and largest of each entry of `segcore.data.resolution.pixel_sizes`, where all images have it. spacing: of the
        rows and of the columns in mm, to which volumes are resampled; missing if they are not.
    """
    regions = data.regions[data.regions["split"] == "train"]
    rows = data.items.loc[sorted(regions["item"].unique())]
    volumes = rows.groupby("volume", sort=True)
    facts: dict[str, Any] = {"images": len(volumes), "regions": len(regions)}
    if values := [value_facts(v) for v in _values(data, regions, rows) if len(v)]:
        facts["values"] = value_ranges(values)
    sizes = pd.DataFrame([pixel_sizes_of(part.iloc[0].to_dict()) for _, part in volumes])
    facts["pixel_sizes"] = {
        str(name): [float(f"{f(column):.{DIGITS}g}") for f in (np.min, np.median, np.max)]
        for name, column in sizes.items()
        if column.notna().all()
    }
    if data.spacing is not None:
        facts["spacing"] = list(data.spacing)
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
