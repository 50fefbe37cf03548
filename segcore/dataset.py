"""The prepared data: few large memory-mapped files, and an index that says what lies where.

Layout of the folder: `items.parquet` (where each item lies in the packed files), `regions.parquet` (what trains,
selects and tests), `windows.parquet` (training windows), `statistics.json`, `prepared.json` (classes and colours),
and for each ingest batch `batch-<name>.{pixels,labels,valid}` plus one file of labels a baseline.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segcore.constants import IGNORE
from segcore.errors import DataError


@dataclass(frozen=True)
class Patch:
    """Pixels with labels and validity.

    Attributes:
        image: (H, W, C), raw values in the file's dtype; 0 where invalid.
        label: (H, W) uint8 class indices, IGNORE where not scored.
        valid: (H, W) bool, False where the image has no data.
    """

    image: np.ndarray
    label: np.ndarray
    valid: np.ndarray


class PreparedData:
    """Read access to a folder of prepared data.

    Raises:
        DataError: the folder is missing or incomplete.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        try:
            meta = json.loads((self.folder / "prepared.json").read_text())
            self.statistics: dict[str, Any] = json.loads((self.folder / "statistics.json").read_text())
            self.regions = pd.read_parquet(self.folder / "regions.parquet")
            self.windows = pd.read_parquet(self.folder / "windows.parquet")
            self.items = pd.read_parquet(self.folder / "items.parquet").set_index("item", drop=False)
        except FileNotFoundError as error:
            raise DataError(
                f"{self.folder}: no prepared data ({Path(error.filename).name} is missing)",
                "run `dvc repro prepare` first",
            ) from error
        self.classes: list[str] = meta["classes"]
        self.colors: list[list[int]] = meta["colors"]
        self.foreground: list[int] = meta["foreground"]
        self.baselines: list[str] = meta["baselines"]
        self._map = lru_cache(maxsize=None)(self._open)

    @property
    def bands(self) -> int:
        """Number of image bands."""
        return int(self.items["bands"].iloc[0])

    def _open(self, item: str, kind: str) -> np.ndarray:
        """Memory map of one item: pixels (H, W, C), or labels / valid (H, W)."""
        row = self.items.loc[item]
        height, width = int(row["height"]), int(row["width"])
        shape: tuple[int, ...] = (height, width)
        dtype, offset = np.dtype(np.uint8), int(row["offset"])
        if kind == "pixels":
            dtype = np.dtype(row["dtype"])
            shape = (height, width, int(row["bands"]))
            offset *= dtype.itemsize * int(row["bands"])
        return np.memmap(self.folder / f"batch-{row['batch']}.{kind}", dtype, "r", offset, shape)

    def crop(self, item: str, row: int, col: int, height: int, width: int) -> Patch:
        """A rectangle of an item; what lies outside the item is invalid and ignored."""
        shape = (int(self.items.at[item, "height"]), int(self.items.at[item, "width"]))
        inside = (
            slice(max(row, 0), min(row + height, shape[0])),
            slice(max(col, 0), min(col + width, shape[1])),
        )
        image, label = self._map(item, "pixels")[inside], self._map(item, "labels")[inside]
        valid = self._map(item, "valid")[inside] > 0
        if label.shape == (height, width):
            return Patch(np.array(image), np.array(label), valid)
        top, left = inside[0].start - row, inside[1].start - col
        pad = ((top, height - top - label.shape[0]), (left, width - left - label.shape[1]))
        return Patch(
            np.pad(image, (*pad, (0, 0))), np.pad(label, pad, constant_values=IGNORE), np.pad(valid, pad)
        )

    def region(self, region_id: str) -> dict[str, Any]:
        """One row of the region table.

        Raises:
            DataError: there is no such region.
        """
        rows = self.regions[self.regions["id"] == region_id]
        if rows.empty:
            raise DataError(f"{region_id}: no such region in {self.folder}", "take an id of regions.parquet")
        return rows.iloc[0].to_dict()

    def read(self, region_id: str) -> Patch:
        """All of a region."""
        r = self.region(region_id)
        return self.crop(r["item"], r["row"], r["col"], r["height"], r["width"])

    def read_baseline(self, name: str, region_id: str) -> np.ndarray:
        """Another annotator's labels of a region, (H, W) uint8."""
        r = self.region(region_id)
        labels = self._map(r["item"], f"baseline-{self.baselines.index(name)}")
        return np.array(labels[r["row"] : r["row"] + r["height"], r["col"] : r["col"] + r["width"]])
