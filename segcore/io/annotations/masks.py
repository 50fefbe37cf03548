"""Masks: rasters, pictures or volumes whose values or colours are classes or object numbers."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from segcore.constants import IGNORE
from segcore.data.raster import Info, Note, Raster, Window, pieces
from segcore.errors import DataError
from segcore.io import images
from segcore.io.annotations import LOSSY, Labels
from segcore.io.annotations._shared import OTHERS, background_index, declared, listed
from segcore.io.annotations._unlabelled import Unlabelled
from segcore.io.grid import open_on_grid
from segcore.params.data import Data

# Any extension that no other format has.
EXTENSIONS: tuple[str, ...] = ()

# No class has this index, because there are at most 254 classes.
_UNKNOWN = 254
# Limit of distinct values that are counted for a message.
_MOST_DISTINCT = 100_000
# A picture with more colours is not a colour-coded mask.
_MOST_COLORS = 64


class _Lookup:
    """Maps integers to class indices, _UNKNOWN for those without a key, without sorting pixels."""

    def __init__(self, codes: dict[int, int]) -> None:
        # A sentinel key, so that every search ends at a valid index.
        last = np.iinfo(np.int64).max
        keys = sorted(k for k in codes if -last <= k < last)
        self._keys = np.array([*keys, last], np.int64)
        self._codes = np.array([*(codes[k] for k in keys), _UNKNOWN], np.uint8)
        self._tables: dict[str, np.ndarray] = {}

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Class indices (H, W) uint8 of (H, W) integers."""
        size = values.dtype.itemsize
        if size > 2:
            return self._search(values)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        index = np.dtype(f"u{size}")
        table = self._tables.get(values.dtype.str)
        if table is None:
            table = self._search(np.arange(2 ** (8 * size), dtype=index).view(values.dtype))
            self._tables[values.dtype.str] = table
        # Twice as fast as indexing.
        classes: np.ndarray = np.take(table, values.view(index))
        return classes

    def _search(self, values: np.ndarray) -> np.ndarray:
        if values.dtype == np.uint64:
            values = np.minimum(values, np.uint64(np.iinfo(np.int64).max))
        values = values.astype(np.int64, copy=False)
        positions = np.searchsorted(self._keys, values)
        return np.where(self._keys[positions] == values, self._codes[positions], np.uint8(_UNKNOWN))


class _Masks:
    """An open mask."""

    def __init__(self, path: Path, image_path: Path, source: images.Source, data: Data) -> None:
        self.notes: list[Note] = [
            (kind, text if path.name in text else f"{path.name}: {text}") for kind, text in source.info.notes
        ]
        self._unlabelled = Unlabelled(path.name, image_path.name, data, self.notes, IGNORE, is_mask=True)
        self.found: dict[str, int] = {}
        self._name, self._source, self._data = path.name, source, data
        table = data.label_table
        colors = {int(str(k)[1:], 16): v for k, v in table.items() if _is_color(k)}
        values = {int(k): v for k, v in table.items() if _is_integer(k)}
        info = source.info
        # Where both are declared, colours apply to masks that have colours, and values to the others.
        self._colored = bool(colors) and (not values or info.bands == 3 or info.palette is not None)
        self._palette = _palette(info) if self._colored and info.palette and info.bands == 1 else None
        self._lookup = _Lookup(colors if self._colored else values)
        self._table = values
        self._others = table.get(OTHERS)
        self._background = background_index(data)

    def read(self, window: Window, plane: int = 0) -> Labels:
        """Class indices, and with data.instances the object numbers, of a window of a plane.

        Raises:
            DataError: fractions, bands that differ, or values or colours that label_values does not declare (these
                are counted over the whole file).
        """
        raster = self._source.read(window, plane)
        values = self._values(raster)
        classes, valid = self._lookup(values), raster.valid
        unknown = classes == _UNKNOWN
        if self._data.unlabelled is not None and self._others is None:
            # Rasterising tools write 0 where nothing was drawn.
            valid = valid & ~(unknown & (values == 0))
        nodata = raster.info.nodata
        if nodata is not None and not valid.all():
            # A declared value keeps its declared class even if the file marks it as nodata, because rasterising
            # tools write 0 for both.
            valid = valid | (~unknown & (raster.pixels == nodata).all(axis=0))
        if unknown.any():
            if self._others is not None:
                classes = np.where(unknown, np.uint8(self._others), classes)
            elif (unknown & valid).any():
                raise self._undeclared()
        self._unlabelled.add(valid.size - int(np.count_nonzero(valid)), window, plane)
        classes = np.where(valid, classes, np.uint8(self._unlabelled.fill))
        if not self._data.instances:
            return Labels(classes)
        is_object = valid & (classes != self._background) & (classes != IGNORE)
        return Labels(classes, self._numbers(values, is_object))

    def _values(self, raster: Raster) -> np.ndarray:
        """Values of a raster, or its colours as 0xRRGGBB: (H, W) integers."""
        whole = _whole(raster, self._name)
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
        return _packed(whole)

    def _one_band(self, whole: np.ndarray) -> np.ndarray:
        if any(not np.array_equal(whole[0], other) for other in whole[1:]):
            raise DataError(
                f"{self._name}: has {len(whole)} bands that differ where index values are expected",
                self._color_remedy() or "provide a mask of one band with class values",
                kind="label-bands",
            )
        band: np.ndarray = whole[0]
        return band

    def _color_remedy(self) -> str:
        """Remedy for a colour-coded mask, with the colours of the whole file; empty if the mask is not colour-coded."""
        info = self._source.info
        if (info.bands, info.dtype) != (3, "uint8"):
            return ""
        counts: Counter[int] = Counter()
        for window in pieces(info):
            raster = self._source.read(window)
            counts.update(_count(_packed(raster.pixels)[raster.valid]))
            if len(counts) > _MOST_COLORS:
                return ""
        colors = listed((f"#{value:06X}", count) for value, count in counts.items())
        return f'it looks colour-coded: declare its colours in data.label_values as "#RRGGBB"; found {colors}'

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
        counts: Counter[int] = Counter()
        info = self._source.info
        for plane in range(info.depth):
            for window in pieces(info):
                raster = self._source.read(window, plane)
                values = self._values(raster)
                counts.update(_count(values[raster.valid & (self._lookup(values) == _UNKNOWN)]))
            if len(counts) > _MOST_DISTINCT:
                break
        if self._colored:
            colors = listed((f"#{value:06X}", count) for value, count in counts.items())
            return DataError(
                f"{self._name}: colours outside the declared classes: {colors}",
                f"declare them in data.label_values (now {declared(self._data)}), as a class or as `ignore`, "
                "or correct the mask",
                kind="label-colors",
            )
        return DataError(
            f"{self._name}: label values outside the declared classes: {listed(counts.items())} pixels",
            self._remedy(set(counts)),
            kind="label-values",
        )

    def _remedy(self, unknown: set[int]) -> str:
        if unknown == {255} and 1 in self._table:
            code = self._table[1]
            name = "ignore" if code == IGNORE else self._data.classes[code]
            return f"if the mask marks {name!r} with 255 instead of 1, declare `255: {name}` in data.label_values"
        remedy = f"declare them in data.label_values (now {declared(self._data)}), as a class or as `ignore`"
        if self._source.info.palette is not None:
            remedy += ', or declare the colours of its palette as "#RRGGBB"'
        return remedy + ", or correct the mask"


def _is_color(key: int | str) -> bool:
    return (
        isinstance(key, str) and len(key) == 7 and key[0] == "#" and set(key[1:]) <= set("0123456789ABCDEF")
    )


def _is_integer(key: int | str) -> bool:
    return isinstance(key, int) or key.removeprefix("-").isdecimal()


def _packed(colors: np.ndarray) -> np.ndarray:
    """Colours (3, H, W), or grey (1, H, W), from 0 to 255 as (H, W) uint32 0xRRGGBB."""
    red, green, blue = (band.astype(np.uint32) for band in (colors if len(colors) == 3 else [colors[0]] * 3))
    packed: np.ndarray = (red << 16) | (green << 8) | blue
    return packed


def _palette(info: Info) -> np.ndarray:
    """Colours 0xRRGGBB of all index values; black past the end of the palette, as in viewers."""
    table = np.zeros(2 ** min(8 * np.dtype(info.dtype).itemsize, 16), np.uint32)
    for index, (red, green, blue) in enumerate((info.palette or ())[: len(table)]):
        table[index] = red << 16 | green << 8 | blue
    return table


def _whole(raster: Raster, name: str) -> np.ndarray:
    """Pixels (C, H, W) as integers, 0 where a float is no finite number.

    Raises:
        DataError: the values are not whole numbers.
    """
    pixels = raster.pixels
    if pixels.dtype == bool:
        return pixels.view(np.uint8)
    if not np.issubdtype(pixels.dtype, np.floating):
        return pixels
    pixels = np.where(np.isfinite(pixels), pixels, 0)
    fractions = (pixels != np.round(pixels)) & raster.valid
    if fractions.any():
        examples = ", ".join(f"{v:g}" for v in np.unique(pixels[fractions])[:4])
        raise DataError(
            f"{name}: holds fractions ({pixels.dtype}), such as {examples}",
            "provide a mask of whole class values; if it was resampled, resample it with nearest neighbour",
            kind="label-fractions",
        )
    whole: np.ndarray = np.clip(pixels.astype(np.float64), -(2.0**53), 2.0**53).astype(np.int64)
    return whole


def _count(values: np.ndarray) -> dict[int, int]:
    distinct, counts = np.unique(values, return_counts=True)
    return dict(zip(distinct.tolist(), counts.tolist(), strict=True))


@contextmanager
def open_labels(path: Path, image_path: Path, image: Info, data: Data) -> Iterator[_Masks]:
    """Open a mask.

    The mask decides which keys of data.label_values apply: "#RRGGBB" for masks with three bands or a palette (and for
    grey masks if only colours are declared), integers for the others, and "others" for values without a key.
    Transparent pixels, NaN, and nodata without a key become IGNORE, or what data.unlabelled says; so does a 0 without
    a key where data.unlabelled is set and no key is "others". With data.instances, the values of classes other
    than background are object numbers; for colours, the number is 0xRRGGBB + 1.

    Raises:
        DataError: the mask is a JPEG, cannot be read, or is not on the image's grid.
    """
    with open_on_grid(path, image_path, image, data) as source:
        if source.info.lossy or path.name.lower().endswith(LOSSY):
            raise DataError(
                f"{path.name}: is a JPEG or a lossy JPEG 2000, whose compression changes mask values",
                "provide the original mask as PNG or GeoTIFF, not converted from the JPEG",
                kind="jpeg-mask",
            )
        yield _Masks(path, image_path, source, data)
