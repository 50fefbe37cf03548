"""NIfTI-1 and NIfTI-2 in one file, plain or gzipped; headers through nibabel.

Values have their stored type; where the header scales them (scl_slope, scl_inter) they are float32. A file whose
sform and qform codes are 0, or whose affine is the identity, has no position; its planes are read as by the default
affine of nibabel. A fourth or fifth
dimension of up to 16 is read as bands (such as MR sequences); a longer one is a time series, which is refused.
"""

import gzip
import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from segcore.data.raster import Note
from segcore.data.volumes import VolumeSource, check_affine, describe, is_default
from segcore.errors import DataError
from segcore.io.images._checks import RESTORE, check_file
from segcore.io.images._declared import check_size, reading

EXTENSIONS = (".nii", ".nii.gz")

# More values per voxel are a time series, not channels.
MAX_BANDS = 16
# Bytes per read, so that memory grows with the content of the file and not with the size that its header declares.
_PIECE = 2**20
# In mm; any other unit is read as mm.
_UNITS = {"meter": 1000.0, "micron": 0.001}
# sizeof_hdr of NIfTI-1 and NIfTI-2.
_HEADER_SIZES = (348, 540)
# The default logger of nibabel would print each small fix to the terminal.
_quiet = logging.getLogger("segcore.nifti")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False


def _damaged(path: Path, reason: str, kind: str = "unreadable") -> DataError:
    return DataError(f"{path.name}: {reason}", RESTORE, kind=kind)


@contextmanager
def _bytes(path: Path) -> Iterator[BufferedReader | gzip.GzipFile]:
    with reading(path):
        try:
            if path.name.lower().endswith(".gz"):
                with gzip.open(path, "rb") as packed:
                    yield packed
            else:
                with path.open("rb") as plain:
                    yield plain
        # Before `reading`, because BadGzipFile is an OSError too.
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise _damaged(path, f"is damaged or truncated ({error})") from error


def _header(path: Path) -> Any:
    import nibabel
    from nibabel.spatialimages import HeaderDataError

    check_file(path)
    with _bytes(path) as stream:
        block = stream.read(540)
    declared = {int.from_bytes(block[:4], order): order for order in ("little", "big")}
    size = next((n for n in _HEADER_SIZES if n in declared), None)
    if size is None or len(block) < size:
        raise _damaged(path, "is not a NIfTI file: it does not begin with a NIfTI header")
    kind: Any = nibabel.Nifti1Header if size == 348 else nibabel.Nifti2Header
    endianness = "<" if declared[size] == "little" else ">"
    try:
        header = kind(block[:size], endianness=endianness, check=False)
        # Read before check_fix, which replaces 0 by 1.
        steps = np.abs(header["pixdim"][1:4])
        header.check_fix(logger=_quiet, error_level=40)
        header.get_data_shape(), header.get_data_dtype(), header.get_slope_inter(), header.get_data_offset()
    except (HeaderDataError, KeyError, ValueError) as error:
        raise _damaged(path, f"header is damaged ({error})") from error
    if bytes(header["magic"]).startswith((b"ni1", b"ni2")):
        raise DataError(
            f"{path.name}: is the header of a pair (.hdr and .img)",
            "save the volume as one .nii or .nii.gz file",
            kind="unreadable",
        )
    if not bytes(header["magic"]).startswith((b"n+1", b"n+2")):
        raise _damaged(path, "is not a NIfTI file: its magic string is missing")
    steps = steps[: len(header.get_data_shape())]
    if not (np.isfinite(steps).all() and (steps > 0).all()):
        raise DataError(
            f"{path.name}: voxel spacing (pixdim) is {' x '.join(f'{float(s):g}' for s in steps)}",
            "correct pixdim in the header, or export the volume again",
            kind="bad-affine",
        )
    return header


def _shape(path: Path, header: Any) -> tuple[tuple[int, ...], int]:
    """Stored size (i, j, k), and bands.

    Raises:
        DataError: of kind "not-3d" or "unreadable".
    """
    sizes = tuple(int(n) for n in header.get_data_shape())
    if len(sizes) < 2 or min(sizes) < 1:
        raise DataError(
            f"{path.name}: dimensions {' x '.join(map(str, sizes)) or 'none'} are not a volume",
            "export a volume with three dimensions, or restore the file from its source",
            kind="not-3d" if sizes and min(sizes) > 0 else "unreadable",
        )
    more = [n for n in sizes[3:] if n > 1]
    if len(more) > 1 or (more and more[0] > MAX_BANDS):
        raise DataError(
            f"{path.name}: has {len(sizes)} dimensions, {' x '.join(map(str, sizes))}",
            f"save each time step as a separate volume (up to {MAX_BANDS} channels may be the fourth dimension)",
            kind="not-3d",
        )
    return (*sizes, 1)[:3], (more or [1])[0]


def _affine(path: Path, header: Any) -> tuple[np.ndarray, bool]:
    """Affine (4, 4) to RAS in mm, and whether it is a position, not the default of a file without one.

    Raises:
        DataError: it cannot be read or used, for example because the qform is not a rotation.
    """
    from nibabel.spatialimages import HeaderDataError

    try:
        affine = np.array(header.get_best_affine(), dtype=np.float64)
        unit = header.get_xyzt_units()[0]
    except (HeaderDataError, KeyError, ValueError) as error:
        raise _damaged(path, f"affine cannot be read ({error})", "bad-affine") from error
    check_affine(path.name, affine)
    placed = bool(header["qform_code"] or header["sform_code"]) and not is_default(affine)
    affine[:3] *= _UNITS.get(unit, 1.0)
    return affine, placed


def _read(path: Path, needed: int, packed: bool) -> bytearray:
    """The first `needed` bytes, uncompressed; a gzip file is read to its end, where its checksum is.

    Raises:
        DataError: the file is damaged, truncated, or longer than its header declares.
    """
    data = bytearray()
    with _bytes(path) as stream:
        while len(data) < needed and (piece := stream.read(min(_PIECE, needed - len(data)))):
            data += piece
        if len(data) < needed:
            raise _damaged(path, f"is truncated: {len(data)} bytes, but its header declares {needed}")
        if packed and stream.read(_PIECE) and stream.read(1):
            raise _damaged(path, "unpacks to more than its header declares", "too-large")
    return data


@contextmanager
def open_source(
    path: Path, slices: str | int = "auto", pages: str | None = None, bands: tuple[int, ...] | None = None
) -> Iterator[VolumeSource]:
    """Open a volume; the header is read now, all voxels with the first plane.

    Args:
        path: of the file.
        slices: RAS axis that planes are numbered along, or "auto" (see `segcore.data.volumes.describe`).
        pages: not used, the header says what frames are.
        bands: not used, there is no alpha.

    Raises:
        DataError: the file is empty, damaged, truncated, too large or not a volume, or its spacing or affine cannot be
            used.
    """
    header = _header(path)
    shape, count = _shape(path, header)
    stored = header.get_data_dtype()
    if stored.names or stored.kind not in "iuf" or stored.itemsize > 8:
        raise DataError(
            f"{path.name}: colour or complex type {stored.name if not stored.names else 'RGB'} is not supported",
            "save one number per voxel (channels may be a fourth dimension)",
            kind="not-3d",
        )
    voxels = count * int(np.prod(shape, dtype=object))
    offset = int(header.get_data_offset())
    needed = offset + voxels * stored.itemsize
    packed = path.name.lower().endswith(".gz")
    check_size(path.name, needed, voxels, check_file(path), packed)
    slope, inter = header.get_slope_inter()
    scaled = slope is not None and (slope, inter) != (1.0, 0.0)
    native = stored.newbyteorder("=")
    dtype = np.dtype(np.float32) if scaled else native

    def load() -> tuple[np.ndarray, None]:
        data = _read(path, needed, packed)
        values = np.frombuffer(data, stored, voxels, offset).reshape((*shape, count), order="F")
        if scaled:
            values = (values * np.float64(slope) + np.float64(inter)).astype(np.float32)
        return values.astype(dtype, copy=False), None

    affine, placed = _affine(path, header)
    notes: tuple[Note, ...] = ()
    if scaled:
        notes = (("scaled", f"stored values x {slope:g} + {inter:g} (scl_slope and scl_inter)"),)
    yield VolumeSource(describe(shape, affine, count, dtype.name, slices, placed, notes), load)
