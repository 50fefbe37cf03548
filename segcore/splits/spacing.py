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
from segcore.errors import DataError

# planes of fewer rows or columns than this are not made, nor planes with this many times their own
_LEAST, _MOST = 16, 16
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

    Raises:
        DataError: the spacing does not fit to these images.
    """
    if spacing is None:
        return items
    changed = _new_sizes(items.drop_duplicates("packed"), spacing)
    trained = regions.loc[regions["split"] == "train", "item"]
    of_training = items["id"].isin(set(trained)) & items["packed"].isin(list(changed))
    names = items.loc[of_training, "packed"]
    if names.empty:
        return items
    (target / RESAMPLED).mkdir()
    list(
        each(
            lambda name: resample(packed / name, target / RESAMPLED / name, changed[name]),
            list(names.unique()),
        )
    )
    new = items.copy()
    new.loc[of_training, ["height", "width"]] = [changed[name] for name in names]
    new.loc[of_training, "packed"] = f"{RESAMPLED}/" + names
    return new


def _new_sizes(volumes: pd.DataFrame, spacing: tuple[float, float]) -> dict[str, Size]:
    """Packed file -> rows and columns of its planes in a spacing, of volumes that have another one.

    Raises:
        DataError: no image has a spacing, or planes would become absurdly small or large.
    """
    known, sizes = 0, {}
    for row in volumes.itertuples():
        steps, own = steps_to(spacing, str(row.spacing)), (int(row.height), int(row.width))
        if steps is None:
            continue
        known += 1
        new = new_size(own, steps)
        pairs = list(zip(new, own, strict=True))
        if any(a < min(b, _LEAST) or a > _MOST * b for a, b in pairs):
            raise DataError(
                f"{row.id}: planes of {own[0]} x {own[1]} pixels would become {new[0]} x {new[1]} with "
                f"prepare.spacing: {list(spacing)}",
                "correct prepare.spacing in params.yaml (in mm, rows and columns), or set it to null or auto",
            )
        if new != own:
            sizes[str(row.packed)] = new
    if not known:
        raise DataError(
            f"prepare.spacing: {list(spacing)}: no image has a spacing in mm",
            "set prepare.spacing to null in params.yaml; train.common.magnify enlarges images of any kind",
        )
    return sizes


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
