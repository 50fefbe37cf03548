"""Objects of an item: counted and compared with the class map; once a plane is packed, numbered and marked there."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segcore.data.packed import Packed, PackedWriter
from segcore.data.raster import Note, Window
from segcore.io.annotations import Labels
from segcore.io.annotations._shared import ids
from segcore.objects.components import BandedComponents
from segcore.objects.contacts import RADIUS, near_two
from segcore.params.data import Data

# pixels of a plane that are in memory at once
_PIXELS = 2**21


class _Tally(NamedTuple):
    """Pairs of object number and class (N,), and the pixels (N,) that have them."""

    numbers: np.ndarray
    classes: np.ndarray
    pixels: np.ndarray


class ItemObjects:
    """Objects of one item, plane by plane.

    An object has one class, that of most of its pixels. Its pixels of other classes belong to no object, and so do
    pixels of no foreground class, which a raster of object numbers may number.

    Args:
        data: settings.
        name: of the raster of object numbers, for notes; empty where the ground truth itself has the numbers.

    """

    def __init__(self, data: Data, name: str = "") -> None:
        self._data, self._name = data, name
        self._is_foreground = np.isin(np.arange(256), data.foreground)
        self._keys: list[np.ndarray] = []
        self._pixels: list[np.ndarray] = []
        self._found: set[int] = set()
        self._components = 0
        # of a raster: objects with pixels of no foreground class, these pixels, and foreground pixels without a number
        self._beside: set[int] = set()
        self._beside_pixels, self._unnumbered = 0, 0
        self._mixed: set[int] = set()
        self._mixed_pixels = 0

    @property
    def count(self) -> int:
        """Objects of all finished planes; components of each plane of a volume are objects of their own."""
        return self._components + len(self._found)

    def add(self, labels: Labels) -> np.ndarray:
        """Count a window of the current plane; its numbers as they are packed, (h, w) uint32."""
        assert labels.instances is not None
        rows = max(1, _PIXELS // max(labels.classes.shape[1], 1))
        for row in range(0, len(labels.classes), rows):
            part = slice(row, row + rows)
            self._tally(labels.instances[part], labels.classes[part])
        if not self._name:
            return labels.instances
        return np.where(self._is_foreground[labels.classes], labels.instances, np.uint32(0))

    def _tally(self, numbers: np.ndarray, classes: np.ndarray) -> None:
        """Count pairs of number and class by their runs of equal pixels, which are far fewer than pixels."""
        keys = (numbers.astype(np.uint64) << np.uint64(8) | classes).ravel()
        starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        found, run = np.unique(keys[starts], return_inverse=True)
        self._keys.append(found)
        self._pixels.append(np.bincount(run, np.diff(np.append(starts, keys.size))))

    def finish(self, writer: PackedWriter, path: Path, plane: int) -> None:
        """Complete the tensors of a plane whose windows have been written.

        Args:
            writer: of the packed file.
            path: of the packed file.
            plane: index of the plane.
        """
        packed = Packed(path)
        if self._data.instances == "components":
            self._number(writer, packed, plane)
        else:
            self._settle(writer, packed, plane)
        if self._data.touching:
            _mark(writer, packed, plane)

    def _number(self, writer: PackedWriter, packed: Packed, plane: int) -> None:
        """Write the components of the plane's classes as its objects."""
        bands = BandedComponents(self._data.foreground)
        for window in _bands(packed):
            classes = packed.window("labels", (plane,), window)
            writer.write("instances", (plane,), window, bands.add(classes))
        table = bands.table()
        self._components += int(table.max())
        for window in _bands(packed):
            numbers = packed.window("instances", (plane,), window)
            writer.write("instances", (plane,), window, table[numbers])

    def _settle(self, writer: PackedWriter, packed: Packed, plane: int) -> None:
        """Count the plane's objects, and take from each the pixels that are not of its class."""
        tally = self._plane_tally()
        numbered, foreground = tally.numbers > 0, self._is_foreground[tally.classes]
        if self._name:
            beside = numbered & ~foreground
            self._beside.update(tally.numbers[beside].tolist())
            self._beside_pixels += int(tally.pixels[beside].sum())
            self._unnumbered += int(tally.pixels[~numbered & foreground].sum())
            numbered &= foreground
        numbers = tally.numbers[numbered]
        self._found.update(numbers.tolist())
        # pairs are sorted by number, so those of an object of several classes are neighbours
        mixed = np.unique(numbers[1:][numbers[1:] == numbers[:-1]])
        if mixed.size:
            of_mixed = numbered & np.isin(tally.numbers, mixed)
            self._unmix(writer, packed, plane, mixed, _Tally(*(values[of_mixed] for values in tally)))

    def _unmix(
        self, writer: PackedWriter, packed: Packed, plane: int, mixed: np.ndarray, tally: _Tally
    ) -> None:
        order = np.lexsort((tally.classes, -tally.pixels, tally.numbers))
        first = np.flatnonzero(np.diff(tally.numbers[order], prepend=0))
        main = tally.classes[order][first]
        self._mixed.update(mixed.tolist())
        self._mixed_pixels += int(tally.pixels.sum() - tally.pixels[order][first].sum())
        for window in _bands(packed):
            numbers = packed.window("instances", (plane,), window)
            classes = packed.window("labels", (plane,), window)
            place = np.minimum(np.searchsorted(mixed, numbers), len(mixed) - 1)
            other = (mixed[place] == numbers) & (main[place] != classes)
            if other.any():
                numbers[other] = 0
                writer.write("instances", (plane,), window, numbers)

    def _plane_tally(self) -> _Tally:
        """The tally of the current plane, sorted by number, after which that of the next one begins."""
        keys, place = np.unique(np.concatenate(self._keys), return_inverse=True)
        pixels = np.bincount(place, np.concatenate(self._pixels)).astype(np.int64)
        self._keys, self._pixels = [], []
        return _Tally(
            (keys >> np.uint64(8)).astype(np.uint32), (keys & np.uint64(255)).astype(np.uint8), pixels
        )

    def notes(self) -> list[Note]:
        """Where numbers and classes contradict each other; complete once every plane is finished."""
        name, notes = f"{self._name}: " if self._name else "", list[Note]()
        if self._beside_pixels:
            text = f"{self._beside_pixels} pixels with an object number are of no foreground class and in no object"
            gone = sorted(self._beside - self._found)
            more = f"; {len(gone)} objects have no other pixel: {ids(gone)}" if gone else ""
            notes.append(("numbers-beside", f"{name}{text}{more}"))
        if self._unnumbered:
            text = (
                f"{self._unnumbered} pixels of foreground classes have no object number and are in no object"
            )
            notes.append(("numbers-missing", f"{name}{text}"))
        if self._mixed:
            text = f"{len(self._mixed)} objects have pixels of several classes: {ids(sorted(self._mixed))}; each is of "
            text += f"the class of most of its pixels, and its other pixels, {self._mixed_pixels} in total, are in no "
            notes.append(("mixed-objects", f"{name}{text}object"))
        return notes


def _bands(packed: Packed) -> Iterator[Window]:
    """Windows of full width that cover a plane, from its first row to its last."""
    height, width = packed.shapes["labels"][1][1:]
    rows = max(1, _PIXELS // width)
    for row in range(0, height, rows):
        yield row, 0, min(rows, height - row), width


def _mark(writer: PackedWriter, packed: Packed, plane: int) -> None:
    """Write which pixels of a plane are near two objects."""
    height = packed.shapes["instances"][1][1]
    for row, _, rows, width in _bands(packed):
        first = max(0, row - RADIUS)
        numbers = packed.rows("instances", (plane,), first, min(row + rows + RADIUS, height) - first)
        near = near_two(numbers)[row - first : row - first + rows]
        writer.write("touching", (plane,), (row, 0, rows, width), near)
