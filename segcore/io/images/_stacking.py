"""Order of the slices of a DICOM series, and the affine of their volume."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segcore.errors import DataError

# Largest deviation of a gap from the usual one, as a fraction: positions are often rounded.
UNEVEN = 0.1
_RESTORE = "export the whole series again, or remove it"


@dataclass(frozen=True)
class Frame:
    """One slice.

    Attributes:
        file: of the slice.
        number: of the frame in the file, from 0.
        uid: SOPInstanceUID.
        instance: InstanceNumber; None where missing.
        position: (3,), of the first pixel, LPS in mm.
        directions: (6,), of increasing column index, then of increasing row index, LPS.
        spacing: in mm, between rows, between columns.
        thickness: in mm.
        slope: RescaleSlope.
        intercept: RescaleIntercept.
    """

    file: Path
    number: int
    uid: str
    instance: int | None
    position: np.ndarray | None
    directions: np.ndarray | None
    spacing: tuple[float, float] | None
    thickness: float
    slope: float
    intercept: float


def in_order(name: str, frames: list[Frame]) -> list[Frame]:
    """Slices sorted along their normal, or by InstanceNumber where none has a position.

    Raises:
        DataError: slices that are missing, duplicated, of different orientation or spacing, or cannot be ordered.
    """
    complete = [f.position is not None and f.directions is not None and f.spacing is not None for f in frames]
    if all(complete):
        return _by_position(name, frames)
    if any(complete):
        incomplete = frames[complete.index(False)].file.name
        raise DataError(
            f"{name}: position, orientation or spacing is missing in {complete.count(False)} of {len(frames)} slices, "
            f"first in {incomplete}",
            _RESTORE,
            kind="bad-affine",
        )
    return _by_number(name, frames)


def _by_number(name: str, frames: list[Frame]) -> list[Frame]:
    # Frames of one file are stored in order.
    if len({f.file for f in frames}) == 1:
        return frames
    numbers = [f.instance for f in frames]
    if None in numbers:
        raise DataError(
            f"{name}: slices have neither position nor InstanceNumber, so their order is unknown",
            "export the series with ImagePositionPatient, or convert it to NIfTI",
            kind="bad-affine",
        )
    # Frames of a multi-frame file share its InstanceNumber and are stored in order.
    ordered = sorted(frames, key=lambda f: (f.instance or 0, f.number))
    present = sorted({(f.instance or 0) for f in frames})
    duplicated = [n for n, count in Counter((f.instance, f.number) for f in frames).items() if count > 1]
    missing = sorted(set(range(present[0], present[-1] + 1)) - set(present)) if len(present) < 10**6 else []
    if duplicated or missing:
        text = f"{len(missing)} missing" if missing else f"{len(duplicated)} duplicated"
        which = missing if missing else sorted({n[0] or 0 for n in duplicated})
        raise DataError(
            f"{name}: slices {text} by InstanceNumber: {', '.join(map(str, which[:8]))}",
            _RESTORE,
            kind="missing-slice",
        )
    return ordered


def _by_position(name: str, frames: list[Frame]) -> list[Frame]:
    directions = np.array([f.directions for f in frames])
    spacing = np.array([f.spacing for f in frames])
    for what, values, close in (("orientation", directions, 1e-3), ("pixel spacing", spacing, 1e-3)):
        odd = np.flatnonzero(np.abs(values - values[0]).max(axis=1) > close * max(1, np.abs(values[0]).max()))
        if len(odd):
            raise DataError(
                f"{name}: {what} differs between slices: {values[0].tolist()} in {frames[0].file.name}, "
                f"{values[odd[0]].tolist()} in {frames[odd[0]].file.name}",
                "remove the slices that do not belong to the series (a localizer, perhaps)",
                kind="mixed-series",
            )
    normal = np.cross(directions[0, :3], directions[0, 3:])
    along = np.array([f.position for f in frames]) @ normal
    if not np.isfinite(along).all():
        raise DataError(f"{name}: positions of slices are not finite numbers", _RESTORE, kind="bad-affine")
    order = np.argsort(along, kind="stable")
    _check_gaps(name, along[order])
    return [frames[i] for i in order]


def _check_gaps(name: str, along: np.ndarray) -> None:
    """Check that ascending positions (N,) in mm are evenly spaced.

    Raises:
        DataError: of kind "missing-slice".
    """
    gaps = np.diff(along)
    if not len(gaps):
        return
    duplicated = along[1:][gaps < 1e-3]
    if len(duplicated):
        raise DataError(
            f"{name}: {len(duplicated)} slices duplicated, at {_list(duplicated)} mm along the slice normal",
            "keep one slice per position (put phases, echoes and b-values into separate folders)",
            kind="missing-slice",
        )
    usual = float(np.median(gaps))
    odd = np.flatnonzero(np.abs(gaps - usual) > UNEVEN * usual)
    if len(odd):
        where = ", ".join(f"{gaps[i]:g} mm between {along[i]:g} and {along[i + 1]:g}" for i in odd[:4])
        raise DataError(
            f"{name}: slices missing or unevenly spaced: gaps of {where} (mm along the slice normal), "
            f"where {usual:g} mm is usual",
            "add the missing slices; resample a series of uneven spacing",
            kind="missing-slice",
        )


def _list(values: np.ndarray) -> str:
    return ", ".join(f"{v:g}" for v in values[:8]) + (" ..." if len(values) > 8 else "")


def affine_of(name: str, frames: list[Frame]) -> np.ndarray | None:
    """Affine (4, 4) from (column, row, slice) to LPS in mm; None where the slices have no position.

    Raises:
        DataError: the slices are not on a line.
    """
    first, last = frames[0], frames[-1]
    if first.position is None or last.position is None or first.directions is None or first.spacing is None:
        return None
    along, down = first.directions[:3], first.directions[3:]
    step = np.cross(along, down) * first.thickness
    # With a tilted gantry the step is not along the normal.
    if len(frames) > 1:
        step = (last.position - first.position) / (len(frames) - 1)
        even = first.position + np.arange(len(frames))[:, None] * step
        off = np.linalg.norm(np.array([f.position for f in frames]) - even, axis=1)
        if off.max() > np.linalg.norm(step) * 0.5:
            raise DataError(
                f"{name}: slices are not on a line: {frames[int(off.argmax())].file.name} is {off.max():.3g} mm off",
                "resample the series to a regular grid",
                kind="bad-affine",
            )
    affine = np.eye(4)
    affine[:3] = np.stack([along * first.spacing[1], down * first.spacing[0], step, first.position], axis=1)
    return affine
