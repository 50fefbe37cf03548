"""Training items on a grid of one spacing: resampled copies of volumes, whose windows a network is trained on.

Regions of validation and test stay on their own grid: there pixels are resampled for the network, and its probabilities
back (`segcore.inference.tiling`). Isensee et al. 2021 resample volumes to the median spacing of a dataset.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segcore.data.packed import Packed, PackedWriter
from segcore.data.prepared import RESAMPLED, steps_to
from segcore.data.resampling import Size, new_size, resized_labels, resized_pixels

Each = Callable[[Callable[[Any], Any], list[Any]], Iterable[Any]]


def training_items(
    items: pd.DataFrame,
    regions: pd.DataFrame,
    spacing: tuple[float, float] | None,
    packed: Path,
    target: Path,
    each: Each,
) -> pd.DataFrame:
    """Items with the packed file and the size that their training windows are cut from.

    Writes `target`/resampled/<packed file> for each volume of the training split that has another spacing.

    Args:
        items: prepared items.
        regions: the region table; regions are whole planes.
        spacing: of the rows and of the columns in mm; None: items stay as they are.
        packed: folder of the packed items.
        target: folder of the prepared data.
        each: results of a function for all jobs.
    """
    if spacing is None:
        return items
    trained = set(regions.loc[regions["split"] == "train", "item"])
    volumes = items[items["id"].isin(trained)].drop_duplicates("packed")
    sizes: dict[str, Size] = {}
    for row in volumes.itertuples():
        steps = steps_to(spacing, row.spacing)
        size = (int(row.height), int(row.width))
        if steps and new_size(size, steps) != size:
            sizes[str(row.packed)] = new_size(size, steps)
    if sizes:
        (target / RESAMPLED).mkdir()
    list(each(lambda name: resample(packed / name, target / RESAMPLED / name, sizes[name]), list(sizes)))
    changed = items["packed"].isin(list(sizes))
    new = items.copy()
    new.loc[changed, "height"] = [sizes[name][0] for name in items.loc[changed, "packed"]]
    new.loc[changed, "width"] = [sizes[name][1] for name in items.loc[changed, "packed"]]
    new.loc[changed, "packed"] = f"{RESAMPLED}/" + items.loc[changed, "packed"]
    return new


def resample(source: Path, target: Path, size: Size) -> None:
    """Write pixels, labels and validity of a packed item on a grid of other pixels, plane by plane.

    Args:
        source: packed item.
        target: new file.
        size: its rows and columns.
    """
    item = Packed(source)
    shapes = {}
    for name in ("pixels", "labels", "valid"):
        dtype, (depth, _, _, *rest) = item.shapes[name]
        shapes[name] = (dtype, (depth, *size, *rest))
    with PackedWriter(target, shapes) as writer:
        for plane in range(shapes["labels"][1][0]):
            pixels, valid = resized_pixels(item.array("pixels")[plane], item.array("valid")[plane] > 0, size)
            if np.issubdtype(shapes["pixels"][0], np.integer):
                pixels = pixels.round()
            made = {
                "pixels": pixels,
                "labels": resized_labels(item.array("labels")[plane], size),
                "valid": valid.astype(np.uint8),
            }
            for name, values in made.items():
                writer.write(name, (plane,), (0, 0, *size), values)
