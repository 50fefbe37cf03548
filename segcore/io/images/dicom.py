"""DICOM: a folder with one series, or a file with one or more frames.

Values are rescaled (RescaleSlope, RescaleIntercept): to int16 if they are whole numbers that fit, else to float32;
without rescaling they keep their stored type. MONOCHROME1, where low values are bright, is inverted, so that brightness
is consistent between images; rescaled values have a unit and are not inverted. Colours are converted to RGB.
PixelPaddingValue marks invalid pixels. A file without a position is a picture, not a volume; whether its frames are
planes or channels is a setting.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from segcore.data.raster import Note
from segcore.data.volumes import VolumeSource, describe
from segcore.errors import DataError
from segcore.io.images._elements import frames
from segcore.io.images._frames import chosen_pages
from segcore.io.images._series import Series, read_series

EXTENSIONS = (".dcm",)

_INT16 = np.iinfo(np.int16)


def _rescaled(series: Series) -> bool:
    return any((f.slope, f.intercept) != (1, 0) for f in series.frames)


def _whole(series: Series) -> bool:
    return all(f.slope.is_integer() and f.intercept.is_integer() for f in series.frames)


def _limits(series: Series) -> tuple[int, int]:
    """Lowest and highest value that the stored bits can represent."""
    if series.dtype.kind == "i":
        return -(2 ** (series.bits - 1)), 2 ** (series.bits - 1) - 1
    return 0, 2**series.bits - 1


def _surely_int16(series: Series) -> bool:
    ends = [v * f.slope + f.intercept for f in series.frames for v in _limits(series)]
    return min(ends) >= _INT16.min and max(ends) <= _INT16.max


def _load(series: Series, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray | None]:
    """Voxels (column, row, slice, bands), and validity (column, row, slice) bool; None where all are valid."""
    shape = (len(series.frames), series.rows, series.columns)
    out = np.empty((*shape, series.samples), dtype)
    valid = np.ones(shape, bool) if series.padding else None
    inverted = series.photometric == "MONOCHROME1" and not _rescaled(series)
    slices_of: dict[Path, list[int]] = {}
    for k, frame in enumerate(series.frames):
        slices_of.setdefault(frame.file, []).append(k)
    for file, slices in slices_of.items():
        decoded = frames(file, indices=[series.frames[k].number for k in slices])
        for k, stored in zip(slices, decoded, strict=True):
            frame = series.frames[k]
            values = stored.reshape(series.rows, series.columns, series.samples)
            if valid is not None and series.padding is not None:
                low, high = series.padding
                valid[k] = ~((values >= low) & (values <= high)).all(axis=-1)
            if _rescaled(series):
                values = values * np.float64(frame.slope) + np.float64(frame.intercept)
            elif inverted:
                values = (sum(_limits(series)) - values.astype(np.int64)).astype(dtype)
            # Padding values may be out of the range of int16.
            out[k] = values if valid is None else np.where(valid[k][..., None], values, 0)
    return out.transpose(2, 1, 0, 3), None if valid is None else valid.transpose(2, 1, 0)


def _rescaled_type(series: Series) -> tuple[np.dtype, tuple[np.ndarray, np.ndarray | None] | None]:
    """Data type of the values as read; and the voxels, if they had to be read to find it."""
    if not _rescaled(series):
        return series.dtype, None
    dtype = np.dtype(np.int16 if _whole(series) and _surely_int16(series) else np.float32)
    if dtype != np.float32 or not _whole(series) or series.bits > 16:
        return dtype, None
    voxels, valid = _load(series, dtype)
    if voxels.min() >= _INT16.min and voxels.max() <= _INT16.max:
        dtype = np.dtype(np.int16)
        voxels = voxels.astype(dtype)
    return dtype, (voxels, valid)


def _as_channels(loaded: tuple[np.ndarray, np.ndarray | None]) -> tuple[np.ndarray, np.ndarray | None]:
    """One slice whose bands are those of all slices."""
    voxels, valid = loaded
    columns, rows = voxels.shape[:2]
    return voxels.reshape(columns, rows, 1, -1), None if valid is None else np.logical_and.reduce(
        valid, axis=2, keepdims=True
    )


def _notes(series: Series, pages: str | None) -> tuple[Note, ...]:
    notes: list[Note] = []
    if pages:
        notes.append(("pages-read", f"{len(series.frames)} frames are read as {pages}"))
    if _rescaled(series):
        notes.append(("scaled", "stored values are scaled by RescaleSlope and RescaleIntercept"))
    elif series.photometric == "MONOCHROME1":
        notes.append(("scaled", "values are inverted, because low ones are bright (MONOCHROME1)"))
    return tuple(notes)


@contextmanager
def open_source(
    path: Path, slices: str | int = "auto", pages: str | None = None, bands: tuple[int, ...] | None = None
) -> Iterator[VolumeSource]:
    """Open a series; headers of all slices are read now, all pixels with the first plane.

    Exception: with up to 16 bits and whole-number rescaling the pixels are read now, because only their values show
    whether they fit into int16.

    Args:
        path: a file, or a folder with one series.
        slices: RAS axis that planes are numbered along, or "auto" (see `segcore.data.volumes.describe`).
        pages: what the frames of one file without positions are: "planes" or "channels".
        bands: not used, there is no alpha.

    Raises:
        DataError: no series or several, missing or duplicated slices, frames without positions while `pages` is None,
            damage, or a transfer syntax without a decoder.
    """
    series = read_series(path)
    shape = (series.columns, series.rows, len(series.frames))
    chosen = None
    if series.has_unknown_frames:
        chosen = chosen_pages(path.name, f"{shape[2]} frames without a position", pages)
    if series.affine is None and shape[2] > 1 and slices not in ("auto", 2):
        raise DataError(
            f"{path.name}: slices have no position, so axis {slices} of the patient is unknown",
            "set data.slices to auto, or export the series with ImagePositionPatient",
            kind="bad-affine",
        )
    dtype, loaded = _rescaled_type(series)
    notes, bands_read = _notes(series, chosen), series.samples
    if chosen == "channels":
        shape, bands_read = (*shape[:2], 1), series.samples * shape[2]
    info = describe(
        shape, series.affine, bands_read, dtype.name, slices, notes=notes, backwards=series.is_backwards
    )
    info = replace(info, is_stack=chosen == "planes")

    def load() -> tuple[np.ndarray, np.ndarray | None]:
        voxels = loaded or _load(series, dtype)
        return _as_channels(voxels) if chosen == "channels" else voxels

    yield VolumeSource(info, load)
