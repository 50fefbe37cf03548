"""Writes the prepared data: pixels, labels and validity packed into few flat files, a band of rows at a time."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from segcore import catalog, formats
from segcore.constants import IGNORE
from segcore.errors import DataError
from segcore.params import Data, Params
from segcore.splits import assign, check
from segcore.windows import index_item

_ROWS_AT_ONCE = 512


class BandStatistics:
    """Mean, standard deviation and class counts of training pixels, summed in float64."""

    def __init__(self, bands: int, classes: int) -> None:
        self.count = 0
        self.total = np.zeros(bands)
        self.squares = np.zeros(bands)
        self.class_pixels = np.zeros(classes, dtype=np.int64)

    def update(self, image: np.ndarray, label: np.ndarray, valid: np.ndarray) -> None:
        """Add pixels (h, w, C) float64-able, labels (h, w) and validity (h, w)."""
        pixels = image[valid].astype(np.float64)
        self.count += len(pixels)
        self.total += pixels.sum(axis=0)
        self.squares += (pixels**2).sum(axis=0)
        counts = np.bincount(label[valid].ravel(), minlength=256)
        self.class_pixels += counts[: len(self.class_pixels)]

    def result(self) -> dict[str, Any]:
        """mean and std a band (std at least 1e-6), pixels, pixels a class.

        Raises:
            DataError: no training pixel is valid.
        """
        if self.count == 0:
            raise DataError(
                "the training split has no valid pixel", "check nodata of the images, or the split"
            )
        mean = self.total / self.count
        std = np.sqrt(np.maximum(self.squares / self.count - mean**2, 1e-12))
        return {
            "mean": mean.tolist(),
            "std": std.tolist(),
            "pixels": self.count,
            "class_pixels": self.class_pixels.tolist(),
        }


def _row_bands(height: int) -> Iterator[tuple[int, int]]:
    for row in range(0, height, _ROWS_AT_ONCE):
        yield row, min(_ROWS_AT_ONCE, height - row)


def _label_with_field(row: Any, folder: Path, data: Data) -> np.ndarray:
    label = catalog.read_label(folder / row.label, data)
    if data.valid:
        label[(formats.read(folder / row.valid).pixels == 0).all(axis=0)] = IGNORE
    return label


def pack_item(row: Any, folder: Path, data: Data, out: Mapping[str, BinaryIO]) -> np.ndarray:
    """Append one item to the packed files; nodata becomes 0, invalid and IGNORE.

    Returns:
        (H, W) uint8 label as written.
    """
    label = _label_with_field(row, folder, data)
    for first, count in _row_bands(int(row.height)):
        raster = formats.read(folder / row.image, (first, 0, count, int(row.width)))
        pixels = np.where(raster.valid, raster.pixels, np.zeros((), raster.pixels.dtype))
        label[first : first + count][~raster.valid] = IGNORE
        out["pixels"].write(np.ascontiguousarray(np.moveaxis(pixels, 0, -1)).tobytes())
        out["valid"].write(raster.valid.astype(np.uint8).tobytes())
    out["labels"].write(label.tobytes())
    for index, path in enumerate(json.loads(row.baselines).values()):
        other = catalog.read_label(folder / path, data)
        out[f"baseline-{index}"].write(np.where(label == IGNORE, IGNORE, other).astype(np.uint8).tobytes())
    return label


def _index(table: pd.DataFrame) -> pd.DataFrame:
    items = table.rename(columns={"id": "item"})
    areas = items["height"].astype("int64") * items["width"]
    items["offset"] = areas.groupby(items["batch"]).cumsum() - areas
    columns = [
        "item",
        "group",
        "batch",
        "height",
        "width",
        "bands",
        "dtype",
        "offset",
        "sha256",
        "crs",
        "transform",
    ]
    return items[columns]


def _fit_statistics(target: Path, items: pd.DataFrame, regions: pd.DataFrame, classes: int) -> dict[str, Any]:
    """Statistics of the training regions alone, read back from the packed files."""
    statistics = BandStatistics(int(items["bands"].iloc[0]), classes)
    where = items.set_index("item")
    for region in regions[regions["split"] == "train"].itertuples():
        item = where.loc[region.item]
        shape, offset = (int(item["height"]), int(item["width"])), int(item["offset"])
        part = (slice(region.row, region.row + region.height), slice(region.col, region.col + region.width))
        stem = target / f"batch-{item['batch']}"
        bands, dtype = int(item["bands"]), np.dtype(item["dtype"])
        pixels = np.memmap(f"{stem}.pixels", dtype, "r", offset * bands * dtype.itemsize, (*shape, bands))
        label = np.memmap(f"{stem}.labels", np.uint8, "r", offset, shape)
        valid = np.memmap(f"{stem}.valid", np.uint8, "r", offset, shape)
        statistics.update(pixels[part], label[part], valid[part] > 0)
    return statistics.result()


def pack(
    table: pd.DataFrame,
    folder: Path,
    p: Params,
    target: Path,
    progress: Callable[[list[Any]], Iterable[Any]] = iter,
) -> dict[str, Any]:
    """Split, pack, index and measure the catalogue's accepted items into `target`.

    Args:
        table: the catalogue.
        folder: what the catalogue's paths are relative to.
        p: parameters; `data`, `split` and `prepare` are used.
        target: an existing empty folder.

    Returns:
        The statistics as saved.

    Raises:
        DataError: a file cannot be read, or a split is empty.
        LeakError: something of one split reaches another.
    """
    accepted = table[table["status"] == "accepted"].reset_index(drop=True)
    regions = assign(accepted, p.split)
    classes = len(p.data.classes)
    kinds = ["pixels", "labels", "valid"] + [f"baseline-{i}" for i in range(len(p.data.baselines))]
    windows = []
    for batch, rows in accepted.groupby("batch"):
        with ExitStack() as stack:
            out = {k: stack.enter_context((target / f"batch-{batch}.{k}").open("wb")) for k in kinds}
            for row in progress(list(rows.itertuples())):
                label = pack_item(row, folder, p.data, out)
                windows.append(index_item(row.id, row.group, label, classes, p.prepare, p.split))
    index = pd.concat(windows, ignore_index=True)
    if index.empty:
        raise DataError(
            "no training window fits between the blocks of other splits",
            "make prepare.window smaller, split.block larger, or split.buffer smaller",
        )
    check(regions, index, accepted, p.split)
    items = _index(accepted)
    statistics = _fit_statistics(target, items, regions, classes)
    items.to_parquet(target / "items.parquet", index=False)
    regions.to_parquet(target / "regions.parquet", index=False)
    index.to_parquet(target / "windows.parquet", index=False)
    (target / "statistics.json").write_text(json.dumps(statistics, indent=2))
    meta = {
        "classes": p.data.classes,
        "colors": [list(c) for c in p.data.colors],
        "foreground": p.data.foreground,
        "baselines": list(p.data.baselines),
        "cluster_kind": "block" if (regions["id"] != regions["item"]).any() else "group",
    }
    (target / "prepared.json").write_text(json.dumps(meta, indent=2))
    return statistics
