"""An image whose bands are in several files, joined on the grid of the first.

Rasters of another resolution are resampled: bilinear, and averaged with the same weights where the first is coarser.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from rasterio import Affine
from scipy import sparse

from segcore.data.raster import Info, Note, Raster, Window
from segcore.errors import DataError
from segcore.io import images
from segcore.io.crs import same_on_map, short_name
from segcore.io.grid import same_voxels, size_text
from segcore.params.data import Data

# Largest distance of the edges of two bands in pixels of the coarser one, and of values that are the same by rounding.
_APART, _SAME = 1.0, 1e-3


class _Axis:
    """Places of the pixels of the first file along one axis of another file, whose pixels are numbered from 0.

    Args:
        scale: pixels of the other file per pixel of the first.
        offset: place of the outer edge of the first pixel.
        length: of the other file in pixels.
    """

    def __init__(self, scale: float, offset: float, length: int) -> None:
        self._scale, self._offset, self._length = scale, offset, length

    def weights(self, first: int, count: int) -> tuple[int, sparse.csr_matrix]:
        """Weights of `count` pixels of the first file from `first` on.

        Returns:
            The first pixel of the other file that they use, and weights (count, used pixels), whose rows sum to 1.
        """
        reach = max(1.0, self._scale)
        centres = (np.arange(first, first + count) + 0.5) * self._scale + self._offset - 0.5
        # The files may differ by a pixel at their edges.
        centres = centres.clip(-0.5, self._length - 0.5)[:, None]
        taps = np.floor(centres - reach).astype(np.int64) + np.arange(int(2 * reach) + 3)
        values = np.maximum(0, 1 - np.abs(taps - centres) / reach) * ((taps >= 0) & (taps < self._length))
        start, end = int(taps[values > 0].min()), int(taps[values > 0].max()) + 1
        rows = np.repeat(np.arange(count), taps.shape[1])
        columns = (taps - start).clip(0, end - start - 1).ravel()
        shares = (values / values.sum(axis=1, keepdims=True)).ravel()
        return start, sparse.csr_matrix((shares, (rows, columns)), shape=(count, end - start))


class _Resampled:
    """A raster on the grid of another."""

    def __init__(self, source: images.Source, rows: _Axis, columns: _Axis) -> None:
        self._source, self._rows, self._columns, self.info = source, rows, columns, source.info

    def read(self, window: Window | None = None, plane: int = 0) -> Raster:
        """Pixels and validity of a window of the first file's grid; a pixel is valid if most of its weight is."""
        assert window is not None
        top, down = self._rows.weights(window[0], window[2])
        left, across = self._columns.weights(window[1], window[3])
        raster = self._source.read((top, left, down.shape[1], across.shape[1]), plane)
        dtype, valid = raster.pixels.dtype, raster.valid
        known = np.ones(window[2:], np.float64)
        if not valid.all():
            known = down @ valid.astype(np.float64) @ across.T
        bands = []
        for band in raster.pixels:
            values = down @ np.where(valid, band, 0).astype(np.float64) @ across.T
            values /= np.where(known > 0, known, 1)
            bands.append(values.astype(dtype) if dtype.kind == "f" else np.rint(values).astype(dtype))
        return Raster(np.stack(bands), known >= 0.5, self.info)


class _Joined:
    """An open image in several files."""

    def __init__(self, sources: Sequence[images.Source], notes: Sequence[Note]) -> None:
        self._sources = sources
        infos = [source.info for source in sources]
        self._dtype = np.result_type(*(info.dtype for info in infos))
        self.info = replace(
            infos[0],
            bands=sum(info.bands for info in infos),
            dtype=self._dtype.name,
            lossy=any(info.lossy for info in infos),
            notes=tuple(dict.fromkeys([note for info in infos for note in info.notes] + [*notes])),
        )

    def read(self, window: Window | None = None, plane: int = 0) -> Raster:
        """Pixels (bands, height, width) of a window of a plane: those of all files.

        As in one file with these bands, a nodata value that can be a regular value (of 8 bits, or 0) makes a pixel
        invalid only where all bands have it; all else that makes a pixel of a file invalid does so here.

        Raises:
            DataError: a file cannot be read.
        """
        window = window or (0, 0, self.info.height, self.info.width)
        rasters = [source.read(window, plane) for source in self._sources]
        pixels = np.concatenate([raster.pixels.astype(self._dtype, copy=False) for raster in rasters])
        if all(raster.valid.all() for raster in rasters):
            return Raster(pixels, rasters[0].valid, self.info)
        missing = [~raster.valid for raster in rasters]
        certain = [gap & ~_is_regular(raster) for gap, raster in zip(missing, rasters, strict=True)]
        invalid = np.logical_or.reduce(certain) | np.logical_and.reduce(missing)
        return Raster(pixels, ~invalid, self.info)


def _is_regular(raster: Raster) -> np.ndarray:
    """Where pixels of a file have nodata that could be a regular value, (height, width) bool."""
    nodata = raster.info.nodata
    if nodata is None or not (raster.pixels.dtype == np.uint8 or nodata == 0):
        return np.zeros(raster.valid.shape, bool)
    regular: np.ndarray = (raster.pixels == nodata).all(axis=0)
    return regular


def _place(first: Info, other: Info, names: tuple[str, str]) -> tuple[_Axis, _Axis] | None:
    """How a file lies on the grid of the first; None if it has the same grid.

    Raises:
        DataError: it does not cover the same area, or cannot be compared.
    """
    pair = f"{names[0]} and {names[1]}"
    is_volume = first.affine is not None or other.affine is not None or max(first.depth, other.depth) > 1
    sizes = size_text(first), size_text(other)
    if first.crs and other.crs and not same_on_map(first.crs, other.crs):
        raise DataError(
            f"{pair}: coordinate systems of the bands differ: {short_name(first.crs)} and {short_name(other.crs)}",
            "reproject one of them, so that all bands have the same system",
            kind="crs-mismatch",
        )
    if is_volume or first.transform is None or other.transform is None:
        if sizes[0] != sizes[1]:
            raise DataError(
                f"{pair}: sizes of the bands differ: {sizes[0]} and {sizes[1]}",
                "resample one of them to the grid of the other; only rasters with a transform are resampled on reading",
                kind="size-mismatch",
            )
        if first.affine and other.affine and not same_voxels(first, other):
            raise DataError(
                f"{pair}: the voxels of the channels do not coincide, {first.orientation} {first.affine} and "
                f"{other.orientation} {other.affine}",
                "register and resample the channels to the grid of the first",
                kind="affine-mismatch",
            )
        return None
    to_other = ~Affine(*other.transform) @ Affine(*first.transform)
    a, b, c, d, e, f = to_other[:6]
    turned = max(abs(b) * first.width, abs(d) * first.height) > _SAME
    ends = ((c, a * first.width + c - other.width), (f, e * first.height + f - other.height))
    apart = max(abs(end) / max(scale, 1) for scale, pair in ((a, ends[0]), (e, ends[1])) for end in pair)
    if turned or min(a, e) <= 0 or apart > _APART:
        raise DataError(
            f"{pair}: the bands do not cover the same area, affine transforms {first.transform} (size {sizes[0]}) and "
            f"{other.transform} (size {sizes[1]})",
            "crop or resample one of them to the area of the other",
            kind="transform-mismatch",
        )
    if sizes[0] == sizes[1] and max(abs(end) for pair in ends for end in pair) <= _SAME:
        return None
    return _Axis(e, f, other.height), _Axis(a, c, other.width)


def _pixel(info: Info) -> str:
    transform = info.transform or (0, 0, 0, 0, 0)
    return f"{abs(transform[0]):g} x {abs(transform[4]):g}"


def _names(first: Path, other: Path) -> tuple[str, str]:
    """Names of two files; the second with its folder if they are equal."""
    same = first.name == other.name
    return first.name, f"{other.parent.name}/{other.name}" if same else other.name


@contextmanager
def open_joined(paths: Sequence[Path], data: Data) -> Iterator[images.Source]:
    """Open an image in several files as one with the bands of all of them, in their order.

    Args:
        paths: of the files; the first has the grid.
        data: the data section of params.yaml.

    Raises:
        DataError: a file cannot be read, has a palette, or is not on the grid of the first or, for rasters with a
            transform, not in its area.
    """
    with ExitStack() as stack:
        sources: list[images.Source] = []
        notes: list[Note] = []
        for path in paths:
            slices = sources[0].info.axis if sources and sources[0].info.canonical else data.slices
            source = stack.enter_context(images.open_source(path, slices, data.pages))
            if source.info.palette is not None:
                raise DataError(
                    f"{path.name}: has a palette, whose index values cannot be joined with other bands",
                    "save it as grey or RGB",
                    kind="unusable",
                )
            grid = _place(sources[0].info, source.info, _names(paths[0], path)) if sources else None
            if grid:
                sizes = f"from pixels of {_pixel(source.info)} to {_pixel(sources[0].info)}"
                first, name = _names(paths[0], path)
                notes.append(("resampled-bands", f"{name} is resampled {sizes}, as {first}"))
                source = _Resampled(source, *grid)
            sources.append(source)
        yield _Joined(sources, notes)
