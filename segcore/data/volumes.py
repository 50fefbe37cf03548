"""Volumes: planes in the same orientation for all patients, and predictions back on the stored grid.

A volume is stored as (i, j, k) with an affine from voxel indices to mm in RAS+ (x to the right, y to the front, z to
the head of the patient). It is read as upright planes (D, H, W): plane numbers increase along +R, +A or +S; rows run
from head to foot (in planes across z: from front to back); columns run towards the patient's right (in planes across
x: from back to front). Oblique volumes get the closest of these orientations; nothing is resampled.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from segcore.data.axes import AS_STORED
from segcore.data.raster import Info, Note, Order, Raster, Window
from segcore.errors import DataError, ParamsError

# directions of planes, rows and columns for each axis that planes are numbered along
_DIRECTIONS = {0: ("R", "I", "A"), 1: ("A", "I", "R"), 2: ("S", "P", "R")}
Loader = Callable[[], tuple[np.ndarray, np.ndarray | None]]


def check_affine(name: str, affine: np.ndarray) -> None:
    """Check that an affine (4, 4) can be inverted.

    Raises:
        DataError: of kind "bad-affine": it has NaN or infinite values or an axis of length 0, or is singular.
    """
    reason = None
    linear = affine[:3, :3]
    sizes = np.linalg.norm(linear, axis=0)
    if not np.isfinite(affine).all():
        reason = "has NaN or infinite values"
    elif (sizes == 0).any():
        reason = "has an axis of length 0"
    elif abs(np.linalg.det(linear / sizes)) < 1e-3:
        reason = "is singular: its axes are in one plane"
    if reason:
        raise DataError(
            f"{name}: affine {reason}: {_numbers(affine)}",
            "correct the header (sform, qform and pixdim of a NIfTI file) or export the volume again",
            kind="bad-affine",
        )


def is_default(affine: np.ndarray) -> bool:
    """Whether an affine (4, 4) is the identity in RAS or LPS: what libraries write for an array without a position."""
    return any(np.allclose(affine, np.diag([*signs, 1, 1])) for signs in ((1, 1), (-1, -1)))


def describe(
    shape: tuple[int, ...],
    affine: np.ndarray | None,
    bands: int,
    dtype: str,
    slices: str | int,
    placed: bool = True,
    notes: tuple[Note, ...] = (),
    backwards: bool = False,
) -> Info:
    """Header of a volume as it is read.

    Args:
        shape: (i, j, k) as stored.
        affine: (4, 4) voxel index as stored to mm in RAS+; None: unknown. Planes are then along k, rows along j and
            columns along i.
        bands: values per voxel.
        dtype: numpy name of the data type.
        slices: RAS axis that planes are numbered along, or "auto": the axis of coarsest spacing, the last of equal
            ones. An axis of a single voxel always takes precedence, because other planes would be lines.
        placed: False where the affine is only the default of a format, because the file has no position.
        backwards: whether the slices of the file are in descending order of k.
        notes: what the reader did; planes that are turned or mirrored are added to them.

    Raises:
        ParamsError: no such axis.
    """
    if slices not in ("auto", 0, 1, 2):
        raise ParamsError(f"data.slices: {slices!r} is not an axis of a volume", "use auto, 0, 1 or 2")
    common: dict[str, Any] = {"bands": bands, "dtype": dtype, "placed": placed}
    if affine is None:
        return Info(height=shape[1], width=shape[0], depth=shape[2], notes=notes, **common)
    from nibabel.affines import voxel_sizes
    from nibabel.orientations import aff2axcodes, io_orientation

    # RAS axis of each stored axis
    axes = io_orientation(affine)[:, 0].astype(int)
    in_ras = np.argsort(axes)
    size, spacing = np.array(shape)[in_ras], voxel_sizes(affine)[in_ras]
    axis = _axis(size, spacing) if slices == "auto" or 1 in size else int(slices)
    order = _stored_axes(affine, axis)
    depth, height, width = (int(shape[i]) for i in order)
    steps = voxel_sizes(affine)[order]
    codes, to = "".join(aff2axcodes(affine)), _order(affine, axis, backwards)
    if to != AS_STORED:
        rows, columns = _DIRECTIONS[axis][1:]
        text = f"stored as {codes}, planes are read with rows towards {rows} and columns towards {columns}"
        notes = (*notes, ("turned", text))
    return Info(
        height=height,
        width=width,
        depth=depth,
        spacing=(float(steps[0]), float(steps[1]), float(steps[2])),
        affine=tuple(float(v) for v in np.ravel(affine)),
        canonical=canonical_affine(affine, axis, (depth, height, width)),
        orientation=codes,
        axis=axis,
        order=to,
        notes=notes,
        **common,
    )


def _axis(size: np.ndarray, spacing: np.ndarray) -> int:
    single = np.flatnonzero(size == 1)
    if len(single):
        return int(single[-1])
    return int(np.flatnonzero(spacing >= spacing.max() * (1 - 1e-3))[-1])


def _to_planes(affine: np.ndarray, axis: int) -> np.ndarray:
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    transform: np.ndarray = ornt_transform(io_orientation(affine), axcodes2ornt(_DIRECTIONS[axis]))
    return transform


def _order(affine: np.ndarray, axis: int, backwards: bool) -> Order:
    """Order of planes, rows and columns as read; a volume (i, j, k) is stored as planes k of rows j and columns i."""
    order = [0, 0, 0]
    for stored, (to, sign) in enumerate(_to_planes(affine, axis).astype(int).tolist()):
        order[to] = (3 - stored) * (-sign if stored == 2 and backwards else sign)
    return order[0], order[1], order[2]


def _stored_axes(affine: np.ndarray, axis: int) -> np.ndarray:
    """Stored axes of planes, rows and columns."""
    return np.argsort(_to_planes(affine, axis)[:, 0])


def affine_of(info: Info) -> np.ndarray | None:
    """Affine (4, 4) of a volume as stored, voxel index to mm in RAS+; None if unknown."""
    return None if info.affine is None else np.reshape(info.affine, (4, 4))


def canonical_affine(affine: np.ndarray, axis: int, size: tuple[int, int, int]) -> tuple[float, ...]:
    """Affine of a volume as read, (plane, row, column) to mm in RAS+, 16 numbers row by row.

    Args:
        affine: (4, 4) of the volume as stored.
        axis: RAS axis that planes are numbered along.
        size: planes, rows and columns.
    """
    from nibabel.orientations import inv_ornt_aff

    shape = np.empty(3, int)
    shape[_stored_axes(affine, axis)] = size
    back = inv_ornt_aff(_to_planes(affine, axis), tuple(shape))
    return tuple(float(v) for v in np.ravel(affine @ back))


def to_planes(stored: np.ndarray, info: Info) -> np.ndarray:
    """View (D, H, W, ...) in plane order of an array (i, j, k, ...) as stored."""
    from nibabel.orientations import apply_orientation

    affine = affine_of(info)
    if affine is None:
        return np.swapaxes(stored, 0, 2)
    planes: np.ndarray = apply_orientation(stored, _to_planes(affine, info.axis))
    return planes


def from_planes(planes: np.ndarray, info: Info) -> np.ndarray:
    """View (i, j, k, ...) as stored of an array (D, H, W, ...) in plane order; the exact inverse of `to_planes`."""
    from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

    affine = affine_of(info)
    if affine is None:
        return np.swapaxes(planes, 0, 2)
    back = ornt_transform(axcodes2ornt(_DIRECTIONS[info.axis]), io_orientation(affine))
    stored: np.ndarray = apply_orientation(planes, back)
    return stored


class VolumeSource:
    """An open volume; the first `read` loads all voxels.

    Args:
        info: header from `describe`.
        load: returns the voxels (i, j, k, bands) as stored, in the dtype of `info`, and their validity, (i, j, k)
            bool, or None if all are valid.
    """

    def __init__(self, info: Info, load: Loader) -> None:
        self.info = info
        self._load = load
        self._planes: tuple[np.ndarray, np.ndarray | None] | None = None

    def read(self, window: Window | None = None, plane: int = 0) -> Raster:
        """Pixels (bands, height, width) of a window of a plane; NaN and infinite voxels are not valid.

        Raises:
            DataError: the file is truncated or damaged.
        """
        if self._planes is None:
            stored, stored_valid = self._load()
            self._planes = (
                to_planes(stored, self.info),
                None if stored_valid is None else to_planes(stored_valid, self.info),
            )
        row, column, height, width = window or (0, 0, self.info.height, self.info.width)
        area = (plane, slice(row, row + height), slice(column, column + width))
        pixels = np.ascontiguousarray(np.moveaxis(self._planes[0][area], -1, 0))
        valid = np.ones(pixels.shape[1:], bool) if self._planes[1] is None else self._planes[1][area].copy()
        if pixels.dtype.kind == "f":
            valid &= np.isfinite(pixels).all(axis=0)
        return Raster(pixels, valid, self.info)


def _numbers(values: np.ndarray) -> str:
    return "[" + ", ".join(f"{v:.6g}" for v in np.ravel(values)) + "]"
