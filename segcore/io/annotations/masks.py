"""Masks: rasters, pictures or volumes whose values or colours are classes or object numbers."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from segcore.constants import IGNORE
from segcore.data.raster import Info, Note, Raster, Window, pieces
from segcore.errors import DataError
from segcore.io import images
from segcore.io.annotations import LOSSY, Labels, extensions
from segcore.io.annotations._colors import color_remedy, counted, is_color, packed, palette
from segcore.io.annotations._grey import few_bits, is_smoothed, ranges
from segcore.io.annotations._lookup import UNKNOWN, Found, Lookup
from segcore.io.annotations._planes_of_masks import SEPARATE, with_remedy
from segcore.io.annotations._shared import OTHERS, background_index, declared, listed, named
from segcore.io.annotations._unlabelled import Unlabelled
from segcore.io.annotations._whole import Whole
from segcore.io.grid import open_on_grid
from segcore.params.data import Data

# Any extension that no other format has.
EXTENSIONS: tuple[str, ...] = ()

# Limit of distinct values that are counted for a message.
_MOST_DISTINCT = 100_000
# More undeclared colours than this come from smoothing.
_MANY_COLORS = 16


class _Masks:
    """An open mask."""

    def __init__(self, path: Path, image_path: Path, source: images.Source, data: Data) -> None:
        self._noted = named(path.name, source.info.notes)
        self._unlabelled = Unlabelled(path.name, image_path.name, data, self._noted, IGNORE, is_mask=True)
        self._path, self._name, self._source, self._data = path, path.name, source, data
        table, values = data.label_table, data.label_spans
        colors = {(int(str(k)[1:], 16),) * 2: v for k, v in table.items() if is_color(k)}
        info = source.info
        # Where both are declared, colours apply to masks that have colours, and values to the others.
        self._colored = bool(colors) and (not values or info.bands == 3 or info.palette is not None)
        self._palette = palette(info) if self._colored and info.palette and info.bands == 1 else None
        self._lookup = Lookup(colors if self._colored else values)
        self._found = Found(self._lookup, self._colored)
        self._whole = Whole(self._name)
        self._table = {low: code for (low, high), code in values.items() if low == high}
        self._others = table.get(OTHERS)
        self._background = background_index(data)

    @property
    def found(self) -> dict[str, int]:
        """Pixels by value or colour, as stored."""
        return self._found.counts()

    @property
    def notes(self) -> list[Note]:
        """What was done to the mask."""
        notes = [*self._noted, *self._whole.notes]
        if self._others is not None and not self._data.masks_have_numbers:
            caught = self._found.several_without_key(self._source.info.nodata)
            if caught:
                name = "ignored" if self._others == IGNORE else self._data.classes[self._others]
                text = f"{self._name}: the key `others` makes several values {name}: {caught}"
                notes.append(("others-class", text))
        return notes

    def read(self, window: Window, plane: int = 0) -> Labels:
        """Class indices, and with data.instances the object numbers, of a window of a plane.

        Raises:
            DataError: fractions, bands that differ, or values or colours that label_values does not declare (these
                are counted over the whole file).
        """
        raster = self._source.read(window, plane)
        values = self._values(raster)
        classes, valid = self._found.classes(values), raster.valid
        unknown = classes == UNKNOWN
        if self._data.unlabelled is not None and self._others is None:
            # Rasterising tools write 0 where nothing was drawn.
            valid = valid & ~(unknown & (values == 0))
        nodata = raster.info.nodata
        if nodata is not None and not valid.all() and (self._colored or nodata in self._table):
            # A declared value keeps its declared class even if the file marks it as nodata, because rasterising
            # tools write 0 for both. A range may contain it by chance.
            valid = valid | (~unknown & (raster.pixels == nodata).all(axis=0))
        if unknown.any():
            if self._others is not None:
                self._found.add_rest(values[unknown & valid])
                classes = np.where(unknown, np.uint8(self._others), classes)
            elif (unknown & valid).any():
                raise self._undeclared()
        self._unlabelled.add(valid.size - int(np.count_nonzero(valid)), window, plane)
        classes = np.where(valid, classes, np.uint8(self._unlabelled.fill))
        if not self._data.masks_have_numbers:
            return Labels(classes)
        is_object = valid & (classes != self._background) & (classes != IGNORE)
        return Labels(classes, self._numbers(values, is_object))

    def _values(self, raster: Raster) -> np.ndarray:
        """Values of a raster, or its colours as 0xRRGGBB: (H, W) integers."""
        whole = self._whole.of(raster)
        if not self._colored:
            return self._one_band(whole)
        if len(whole) not in (1, 3):
            raise DataError(
                f"{self._name}: has {len(whole)} bands where colours are expected",
                "provide a mask with red, green and blue bands, or one with a palette",
                kind="label-bands",
            )
        if whole.dtype != np.uint8 and raster.valid.any():
            inside = whole[:, raster.valid]
            if inside.min() < 0 or inside.max() > 255:
                raise DataError(
                    f"{self._name}: colours range from {inside.min()} to {inside.max()} ({raster.info.dtype}) "
                    "where 8 bits are expected",
                    "provide 8-bit colours (0 to 255), or index values",
                    kind="label-colors",
                )
        if self._palette is not None:
            colors: np.ndarray = self._palette[whole[0]]
            return colors
        return packed(whole)

    def _one_band(self, whole: np.ndarray) -> np.ndarray:
        if any(not np.array_equal(whole[0], other) for other in whole[1:]):
            raise DataError(
                f"{self._name}: has {len(whole)} bands that differ where index values are expected",
                color_remedy(self._source) or f"provide a mask of one band with class values; {SEPARATE}",
                kind="label-bands",
            )
        band: np.ndarray = whole[0]
        return band

    def _numbers(self, values: np.ndarray, is_object: np.ndarray) -> np.ndarray:
        if self._colored:
            # Black is a valid colour, while object number 0 means no object.
            values = values + 1
        inside = values[is_object]
        if inside.size and (inside.min() < 0 or inside.max() > np.iinfo(np.uint32).max):
            raise DataError(
                f"{self._name}: object numbers range from {inside.min()} to {inside.max()}",
                "number objects from 1 to 4294967295; declare other values in data.label_values",
                kind="label-values",
            )
        numbers: np.ndarray = np.where(is_object, values, 0).astype(np.uint32)
        return numbers

    def _undeclared(self) -> DataError:
        """The error for undeclared values or colours, with their pixel counts in the whole file."""
        counts, known = Counter[int](), Counter[int]()
        info = self._source.info
        for plane in range(info.depth):
            for window in pieces(info):
                raster = self._source.read(window, plane)
                values = self._values(raster)
                unknown = self._lookup(values) == UNKNOWN
                counts.update(counted(values[raster.valid & unknown]))
                known.update(counted(values[raster.valid & ~unknown]))
            if len(counts) > _MOST_DISTINCT:
                break
        if self._colored:
            colors = listed((f"#{value:06X}", count) for value, count in counts.items())
            remedy = (
                f"declare them in data.label_values (now {declared(self._data)}), as a class or as `ignore`"
            )
            if len(counts) > _MANY_COLORS:
                remedy = (
                    "so many colours come from smoothing or compression: export the mask again without anti-aliasing, "
                    f"as PNG, or leave such pixels out with `{OTHERS}: ignore` in data.label_values"
                )
            return DataError(
                f"{self._name}: colours outside the declared classes: {colors}",
                remedy + ", or correct the mask",
                kind="label-colors",
            )
        if is_smoothed(counts + known, len(counts), self._data):
            return self._smoothed(counts + known)
        return DataError(
            f"{self._name}: label values outside the declared classes: {listed(counts.items())} pixels",
            self._remedy(set(counts)),
            kind="label-values",
        )

    def _smoothed(self, counts: Counter[int]) -> DataError:
        line = ranges(self._data, max(counts), self._source.info.nodata)
        return DataError(
            f"{self._name}: has {len(counts)} grey values from {min(counts)} to {max(counts)}, most pixels near few of "
            "them: it was saved with smoothing or compression",
            (f"declare ranges in params.yaml, {line}, or " if line else "")
            + "save the mask again without resampling, smoothing or compression",
            kind="label-values",
        )

    def _remedy(self, unknown: set[int]) -> str:
        if unknown == {255} and 1 in self._table:
            code = self._table[1]
            name = "ignore" if code == IGNORE else self._data.classes[code]
            return f"if the mask marks {name!r} with 255 instead of 1, declare `255: {name}` in data.label_values"
        if self._data.masks_have_numbers:
            names = [self._data.classes[index] for index in self._data.foreground]
            return (
                f"if they are numbers of objects, declare `{OTHERS}: {names[0] if len(names) == 1 else 'CLASS'}` in "
                f"data.label_values (now {declared(self._data)}), with the keys that are numbers in quotes; if not, "
                "declare each of them, or correct the mask"
            )
        line = few_bits(self._path, self._data)
        if line:
            return line
        remedy = f"declare them in data.label_values (now {declared(self._data)}), as a class or as `ignore`"
        if self._source.info.palette is not None:
            remedy += ', or declare the colours of its palette as "#RRGGBB"'
        return remedy + ", or correct the mask"


@contextmanager
def open_raster(path: Path, image_path: Path, image: Info, data: Data) -> Iterator[images.Source]:
    """Open the raster of a mask.

    Raises:
        DataError: the mask is a JPEG, cannot be read, or is not on the image's grid.
    """
    if not images.is_image(path.name) and not path.is_dir():
        raise images.unknown_format(path.name, f"use one of {', '.join(extensions())}")
    with ExitStack() as stack:
        try:
            source = stack.enter_context(open_on_grid(path, image_path, image, data))
        except DataError as error:
            raise with_remedy(error, path, image, data) from error
        if source.info.lossy or path.name.lower().endswith(LOSSY):
            line = ranges(data)
            raise DataError(
                f"{path.name}: is a JPEG or a lossy JPEG 2000, whose compression changes mask values",
                "provide the original mask as PNG or GeoTIFF, not converted from the JPEG"
                + (f"; if there is none, convert it to PNG and declare ranges, {line}" if line else ""),
                kind="jpeg-mask",
            )
        yield source


@contextmanager
def open_labels(path: Path, image_path: Path, image: Info, data: Data) -> Iterator[_Masks]:
    """Open a mask.

    The mask decides which keys of data.label_values apply: "#RRGGBB" for masks with three bands or a palette (and for
    grey masks if only colours are declared), integers and ranges for the others, and "others" for values without a key.
    Transparent pixels, NaN, and nodata without a key become IGNORE, or what data.unlabelled says; so does a 0 without
    a key where data.unlabelled is set and no key is "others". With data.instances, the values of classes other
    than background are object numbers; for colours, the number is 0xRRGGBB + 1.

    Raises:
        DataError: as `open_raster`.
    """
    with open_raster(path, image_path, image, data) as source:
        yield _Masks(path, image_path, source, data)
