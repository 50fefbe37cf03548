"""The prepared data: an index of training, validation and test regions over memory-mapped packed items.

`prepared/` contains `items.parquet` (packed file of each picture or plane of a volume), `regions.parquet` (regions and
their splits), `windows.parquet` (training windows), `statistics.json` and `prepared.json` (classes, colours); also
`objects.parquet` (one row per object), where the ground truth has objects. `packed/` beside it contains one file per
item, which never changes once written.

With the folds of a cross-validation, `prepared/fold-<k>/` is such a folder for each fold, and `prepared/` itself has
the regions that are tested in any of them, with the column `fold`; it has no windows and no statistics.
"""

import json
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from segcore.constants import IGNORE
from segcore.data.annotators import encoded
from segcore.data.object_columns import OBJECT_COLUMNS
from segcore.data.packed import Packed
from segcore.data.raster import Info, Window
from segcore.data.volumes import canonical_affine
from segcore.errors import DataError
from segcore.files import read_json

# largest number of files that are mapped at once; Linux allows about 65,000 maps per process
_OPEN_FILES = 4096
# folder of the training items that are resampled to one spacing
RESAMPLED = "resampled"


@dataclass(frozen=True)
class LabelledImage:
    """Pixels with labels and validity.

    Attributes:
        image: (H, W, C), raw values in the file's dtype; 0 where invalid.
        label: (H, W) uint8 class indices, IGNORE where not scored; where asked for, the number of classes is the index
            of pixels near two objects.
        valid: (H, W) bool, False where the image has no data.
        instances: (H, W) uint32 object numbers, 0 for none; None where they were not asked for.
        steps: pixels per pixel that a network sees, along rows and columns; None: it sees these pixels.
    """

    image: np.ndarray
    label: np.ndarray
    valid: np.ndarray
    instances: np.ndarray | None = None
    steps: tuple[float, float] | None = None


def steps_to(spacing: tuple[float, float] | None, own: str) -> tuple[float, float] | None:
    """Own pixels per pixel of a spacing, along rows and columns; None where one of the two is not known.

    Args:
        spacing: of the rows and of the columns in mm.
        own: of the item: JSON of (planes, rows, columns) in mm, or null.
    """
    sizes = json.loads(own)
    if spacing is None or sizes is None or min(sizes[1:]) <= 0:
        return None
    return spacing[0] / sizes[1], spacing[1] / sizes[2]


def neighbouring_planes(plane: int, neighbours: int, depth: int, apart: float = 1.0) -> list[int]:
    """Indices of a plane and its neighbours on both sides, in order; the first and last plane are repeated.

    Args:
        plane: index.
        neighbours: on each side.
        depth: number of planes.
        apart: distance of neighbours in planes; the nearest plane is taken.
    """
    steps = range(-neighbours, neighbours + 1)
    return [min(max(plane + round(step * apart), 0), depth - 1) for step in steps]


class PreparedData:
    """Read access to a folder of prepared data.

    Args:
        folder: folder of the index.
        packed: folder of the packed items; None: `packed` beside `folder`.

    Attributes:
        annotators: names of those whose masks are all the truth, and whose majority is the label; empty: there is one.
        instances: whether the ground truth has objects.
        truth_of_objects: "given", with numbers of their own; "components" of the classes; "none": there are no objects.
        touching: whether networks are trained with one more class, the pixels near two objects.
        spacing: of the rows and of the columns, in mm, that a network sees volumes in; None: their own.
        folds: number of the folds of a cross-validation whose test regions these are; None elsewhere.
        fold: index of the fold that these data are of; None without folds.

    Raises:
        DataError: the folder is missing or incomplete.
    """

    def __init__(self, folder: Path | str, packed: Path | None = None) -> None:
        self.folder = Path(folder)
        self.packed = packed or self.folder.parent / "packed"
        try:
            remedy = "restore the folder, or run the step prepare again"
            meta = read_json(self.folder / "prepared.json", remedy)
            self.statistics: dict[str, Any] = read_json(self.folder / "statistics.json", remedy)
            self.regions = pd.read_parquet(self.folder / "regions.parquet")
            self.windows = pd.read_parquet(self.folder / "windows.parquet")
            self.items = pd.read_parquet(self.folder / "items.parquet").set_index("item", drop=False)
        except FileNotFoundError as error:
            raise DataError(
                f"{self.folder}: no prepared data ({Path(error.filename).name} is missing)",
                "run the step prepare first",
            ) from error
        self.classes: list[str] = meta["classes"]
        self.colors: list[list[int]] = meta["colors"]
        self.foreground: list[int] = meta["foreground"]
        self.baselines: list[str] = meta["baselines"]
        self.annotators: list[str] = self.baselines if meta.get("annotators") else []
        self.truth_of_objects: Literal["none", "given", "components"] = meta.get("truth_of_objects", "none")
        self.instances = self.truth_of_objects != "none"
        self.touching: bool = meta.get("touching", False)
        self.neighbours: int = meta.get("neighbours", 0)
        self.spacing: tuple[float, float] | None = tuple(meta["spacing"]) if "spacing" in meta else None
        self.folds: int | None = meta.get("folds")
        self.fold: int | None = meta.get("fold")
        self._planes_seen = len(neighbouring_planes(0, self.neighbours, 1))
        self._where = {
            row.item: (row.packed, int(row.plane), int(row.height), int(row.width))
            for row in self.items[["item", "packed", "plane", "height", "width"]].itertuples()
        }
        self._regions: dict[str, dict[str, Any]] = {}
        self._file = lru_cache(maxsize=_OPEN_FILES)(lambda name: Packed(self.packed / name))

    def for_training(self) -> "PreparedData":
        """The same data for reading training windows: items that were resampled to one spacing are those copies."""
        if self.spacing is None:
            return self
        data = copy(self)
        data._where = {}
        for item, (name, plane, height, width) in self._where.items():
            path = (self.folder / RESAMPLED / name).resolve()
            if path.is_file():
                height, width = self._file(str(path)).shapes["labels"][1][1:]
                name = str(path)
            data._where[item] = (name, plane, height, width)
        return data

    @property
    def bands(self) -> int:
        """Number of image bands."""
        return int(self.items["bands"].iloc[0])

    @property
    def training_classes(self) -> int:
        """Number of classes that a network is trained with: one more where the data have pixels near two objects."""
        return len(self.classes) + self.touching

    @cached_property
    def objects(self) -> pd.DataFrame:
        """One row per object of an item, with the columns of `OBJECT_COLUMNS`; empty where there are no objects.

        Raises:
            DataError: the file is missing.
        """
        if not self.instances:
            return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in OBJECT_COLUMNS.items()})
        try:
            return pd.read_parquet(self.folder / "objects.parquet")
        except FileNotFoundError as error:
            raise DataError(
                f"{self.folder}: objects.parquet is missing", "run the step prepare again"
            ) from error

    @property
    def channels(self) -> int:
        """Number of input channels of a network: the bands of a plane, and of its neighbours in a volume."""
        return self.bands * self._planes_seen

    def of_channels(self, values: Sequence[float]) -> list[float]:
        """A statistic per band, repeated per input channel."""
        return list(values) * self._planes_seen

    def _plane(self, item: str, kind: str, index: int | None = None) -> np.ndarray:
        """View of one item: pixels (H, W, C), or labels, valid, instances or a baseline (H, W)."""
        name, plane, _, _ = self._where[item]
        array = self._file(name).array(kind)
        view: np.ndarray = array[plane] if index is None else array[index, plane]
        return view

    def _pixels(self, item: str) -> np.ndarray:
        """(H, W, channels) of a plane, or of it and its neighbours in order (see `neighbouring_planes`)."""
        if not self.neighbours:
            return self._plane(item, "pixels")
        name, plane, _, _ = self._where[item]
        planes = self._file(name).array("pixels")
        indices = neighbouring_planes(plane, self.neighbours, len(planes))
        return np.concatenate([planes[i] for i in indices], axis=-1)

    def training_bytes(self, instances: bool = False) -> int:
        """Bytes of all items with training windows: pixels, labels, validity and, if asked for, object numbers.

        Labels of several annotators are one int64.
        """
        rows, where = self.items.loc[self.windows["item"].unique()], self.for_training()._where
        pixels = np.array([where[item][2] * where[item][3] for item in rows["item"]], np.int64)
        value, label = (
            np.array([np.dtype(kind).itemsize for kind in rows["dtype"]]),
            8 if self.annotators else 1,
        )
        return int((pixels * (value * self.channels + label + 1 + 4 * instances)).sum())

    def whole(
        self, item: str, *, instances: bool = False, touching: bool = False, soft: bool = False
    ) -> LabelledImage:
        """A whole item, as a view of the file where that is possible; arguments as of `crop`."""
        label = self._label(item, (slice(None), slice(None)), touching, soft)
        numbers = self._plane(item, "instances") if instances else None
        return LabelledImage(self._pixels(item), label, self._plane(item, "valid") > 0, numbers)

    def crop(
        self,
        item: str,
        row: int,
        col: int,
        height: int,
        width: int,
        *,
        instances: bool = False,
        touching: bool = False,
        soft: bool = False,
    ) -> LabelledImage:
        """A rectangle of an item as network input; pixels outside the item are invalid and ignored.

        Args:
            item: id.
            row: first row, which may be negative.
            col: first column, which may be negative.
            height: in pixels.
            width: in pixels.
            instances: also read object numbers.
            touching: labelled pixels near two objects get the number of classes as their index, if the data have
                such pixels (the attribute `touching`).
            soft: labels are int64 numbers of the labels of all annotators (segcore.data.annotators), if there are any.
        """
        return self._cut(self._pixels(item), item, (row, col, height, width), instances, touching, soft)

    def _cut(
        self,
        pixels: np.ndarray,
        item: str,
        window: Window,
        instances: bool = False,
        touching: bool = False,
        soft: bool = False,
    ) -> LabelledImage:
        (row, col, height, width), (_, _, rows, cols) = window, self._where[item]
        inside = (slice(max(row, 0), min(row + height, rows)), slice(max(col, 0), min(col + width, cols)))
        image, label = pixels[inside], self._label(item, inside, touching, soft)
        valid = self._plane(item, "valid")[inside] > 0
        numbers = self._plane(item, "instances")[inside] if instances else None
        if label.shape == (height, width):
            numbers = None if numbers is None else np.array(numbers)
            return LabelledImage(np.array(image), np.array(label), valid, numbers)
        top, left = inside[0].start - row, inside[1].start - col
        pad = ((top, height - top - label.shape[0]), (left, width - left - label.shape[1]))
        return LabelledImage(
            np.pad(image, (*pad, (0, 0))),
            np.pad(label, pad, constant_values=IGNORE),
            np.pad(valid, pad),
            None if numbers is None else np.pad(numbers, pad),
        )

    def _label(
        self, item: str, inside: tuple[slice, slice], touching: bool, soft: bool = False
    ) -> np.ndarray:
        """Labels of a part of an item, a view of the file unless pixels near two objects have a class of their own."""
        if soft and self.annotators:
            each = [self._plane(item, "baselines", index)[inside] for index in range(len(self.annotators))]
            return encoded(np.stack(each), len(self.classes))
        label = self._plane(item, "labels")[inside]
        if not (touching and self.touching):
            return label
        near = (self._plane(item, "touching")[inside] > 0) & (label != IGNORE)
        return np.where(near, np.uint8(len(self.classes)), label)

    def volume_of(self, region_id: str) -> tuple[str, int, Info] | None:
        """(id, plane, header) of the volume that contains the region's plane; None for pictures and scenes."""
        row = self.items.loc[self.region(region_id)["item"]]
        affine, spacing = json.loads(row["affine"]), json.loads(row["spacing"])
        if affine is None or spacing is None:
            return None
        size = (int(row["depth"]), int(row["height"]), int(row["width"]))
        axis = int(row["axis"])
        info = Info(
            depth=size[0],
            height=size[1],
            width=size[2],
            bands=int(row["bands"]),
            dtype=row["dtype"],
            spacing=tuple(spacing),
            affine=tuple(affine),
            orientation=row["orientation"],
            axis=axis,
            canonical=canonical_affine(np.reshape(affine, (4, 4)), axis, size),
        )
        return row["volume"], int(row["plane"]), info

    def region(self, region_id: str) -> dict[str, Any]:
        """One row of the region table.

        Raises:
            DataError: there is no such region.
        """
        if not self._regions:
            self._regions = {str(r["id"]): r for r in self.regions.to_dict("records")}
        if region_id not in self._regions:
            raise DataError(f"{region_id}: no such region in {self.folder}", "use an id of regions.parquet")
        return self._regions[region_id]

    def read(self, region_id: str) -> LabelledImage:
        """A region as a picture: its bands, without those of neighbouring planes."""
        r = self.region(region_id)
        pixels = self._plane(r["item"], "pixels")
        return self._cut(pixels, r["item"], (r["row"], r["col"], r["height"], r["width"]))

    def read_input(self, region_id: str, *, instances: bool = False, touching: bool = False) -> LabelledImage:
        """A region as network input, with the neighbours of its plane; further arguments as of `crop`."""
        r = self.region(region_id)
        place = (r["item"], r["row"], r["col"], r["height"], r["width"])
        patch = self.crop(*place, instances=instances, touching=touching)
        if self.spacing is None:
            return patch
        return replace(patch, steps=steps_to(self.spacing, self.items.loc[r["item"], "spacing"]))

    def _part(self, region_id: str, kind: str, index: int | None = None) -> np.ndarray:
        r = self.region(region_id)
        rows = slice(r["row"], r["row"] + r["height"])
        return np.array(self._plane(r["item"], kind, index)[rows, r["col"] : r["col"] + r["width"]])

    def read_baseline(self, name: str, region_id: str) -> np.ndarray:
        """Another annotator's labels of a region, (H, W) uint8."""
        return self._part(region_id, "baselines", self.baselines.index(name))

    def read_instances(self, region_id: str) -> np.ndarray:
        """Object numbers of a region, (H, W) uint32, 0 where there is no object.

        Raises:
            DataError: the ground truth has no objects.
        """
        if not self.instances:
            raise DataError(
                f"{self.folder}: the ground truth has no objects",
                "set data.instances in params.yaml, then run the steps ingest and prepare again",
            )
        return self._part(region_id, "instances")


def fold_name(fold: int) -> str:
    """Name of a fold, also of its folder."""
    return f"fold-{fold}"


def of_seed(folder: Path | str, seed: int) -> PreparedData:
    """The data that a training with this seed reads: those of the folder, or with folds those of fold seed mod K.

    Raises:
        DataError: the folder is missing or incomplete.
    """
    data = PreparedData(folder)
    if data.folds is None:
        return data
    return PreparedData(data.folder / fold_name(seed % data.folds), data.packed)


def test_regions(data: PreparedData) -> pd.DataFrame:
    """Rows of the region table in the test split, sorted by id."""
    return data.regions[data.regions["split"] == "test"].sort_values("id")
