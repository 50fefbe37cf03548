"""Slices of a DICOM series in order, and the affine of the volume that they make."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segcore.errors import DataError

UNEVEN = 0.1  # of the usual gap; positions are often rounded, a missing slice is a whole gap
_RESTORE = "export the whole series anew, or remove it"


@dataclass(frozen=True)
class Frame:
    """One slice: frame `number` of `file`; position and directions in mm, LPS, as DICOM has them."""

    file: Path
    number: int
    uid: str
    instance: int | None
    position: np.ndarray | None
    directions: np.ndarray | None  # (6,): along columns' index, along rows' index
    spacing: tuple[float, float] | None  # between rows, between columns
    thickness: float
    slope: float
    intercept: float


def in_order(name: str, frames: list[Frame]) -> list[Frame]:
    """Slices sorted along their normal, or by InstanceNumber where none tells a position.

    Raises:
        DataError: slices missing or doubled, of different orientation or spacing, or without any order.
    """
    told = [f.position is not None and f.directions is not None and f.spacing is not None for f in frames]
    if all(told):
        return _by_position(name, frames)
    if any(told):
        lost = frames[told.index(False)].file.name
        raise DataError(
            f"{name}: position, orientation or spacing is missing in {told.count(False)} of {len(frames)} slices, "
            f"first in {lost}",
            _RESTORE,
            kind="bad-affine",
        )
    return _by_number(name, frames)


def _by_number(name: str, frames: list[Frame]) -> list[Frame]:
    if len(frames) == 1:
        return frames
    numbers = [f.instance for f in frames]
    if None in numbers:
        raise DataError(
            f"{name}: slices tell neither position nor InstanceNumber, so their order is not known",
            "export the series with ImagePositionPatient, or convert it to NIfTI",
            kind="bad-affine",
        )
    # Frames of one multi-frame file share its number and are in order within it.
    ordered = sorted(frames, key=lambda f: (f.instance or 0, f.number))
    seen = sorted({(f.instance or 0) for f in frames})
    doubled = [n for n, count in Counter((f.instance, f.number) for f in frames).items() if count > 1]
    missing = sorted(set(range(seen[0], seen[-1] + 1)) - set(seen)) if len(seen) < 10**6 else []
    if doubled or missing:
        text = f"{len(missing)} missing" if missing else f"{len(doubled)} doubled"
        which = missing if missing else sorted({n[0] or 0 for n in doubled})
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
        raise DataError(f"{name}: positions of slices are no numbers", _RESTORE, kind="bad-affine")
    order = np.argsort(along, kind="stable")
    _check_gaps(name, along[order])
    return [frames[i] for i in order]


def _check_gaps(name: str, along: np.ndarray) -> None:
    """Positions (N,) in mm, ascending, are evenly spaced."""
    gaps = np.diff(along)
    if not len(gaps):
        return
    doubled = along[1:][gaps < 1e-3]
    if len(doubled):
        raise DataError(
            f"{name}: {len(doubled)} slices doubled, at {_list(doubled)} mm along the slice normal",
            "keep one slice a position (phases, echoes and b-values each belong into a folder of their own)",
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
    """(column, row, slice) to mm, LPS; (4, 4), or None where the slices tell no position.

    Raises:
        DataError: slices do not lie on a line.
    """
    first, last = frames[0], frames[-1]
    if first.position is None or last.position is None or first.directions is None or first.spacing is None:
        return None
    along, down = first.directions[:3], first.directions[3:]
    step = np.cross(along, down) * first.thickness
    if len(frames) > 1:  # slants with a tilted gantry
        step = (last.position - first.position) / (len(frames) - 1)
        even = first.position + np.arange(len(frames))[:, None] * step
        off = np.linalg.norm(np.array([f.position for f in frames]) - even, axis=1)
        if off.max() > np.linalg.norm(step) * 0.5:
            raise DataError(
                f"{name}: slices do not lie on a line: {frames[int(off.argmax())].file.name} is {off.max():.3g} mm off",
                "resample the series to a regular grid",
                kind="bad-affine",
            )
    affine = np.eye(4)
    affine[:3] = np.stack([along * first.spacing[1], down * first.spacing[0], step, first.position], axis=1)
    return affine
