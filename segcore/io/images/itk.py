"""MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr) through SimpleITK.

Values keep their stored type. Several values per voxel, or a fourth dimension, of up to 16 are bands. A file without
origin and directions, or with those that libraries write by default, has no position.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from segcore.data.volumes import VolumeSource, check_affine, describe, is_default
from segcore.errors import DataError
from segcore.io.images._checks import RESTORE
from segcore.io.images._declared import check_size, reading
from segcore.io.images._itk_header import Header, read_header

EXTENSIONS = (".mha", ".mhd", ".nrrd", ".nhdr")

# More values per voxel are a time series, not channels.
MAX_BANDS = 16
_PIECE = 2**20
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@contextmanager
def _itk(path: Path) -> Iterator[Any]:
    """The library; its exceptions become DataError."""
    import SimpleITK

    # it has no types
    library: Any = SimpleITK
    library.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield library
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].replace(str(path.parent), "")
        raise DataError(
            f"{path.name}: cannot be read ({reason[:200]})", RESTORE, kind="unreadable"
        ) from error


def _dtype(path: Path, name: str) -> np.dtype:
    """Data type from ITK's name of it, such as "vector of 16-bit signed integer"."""
    words = name.removeprefix("vector of ").split()
    kinds = {"unsigned integer": "u", "signed integer": "i", "float": "f"}
    kind = kinds.get(" ".join(words[1:]))
    if kind is None:
        raise DataError(
            f"{path.name}: type {name} is not supported", "save one real number per voxel", kind="not-3d"
        )
    return np.dtype(f"{kind}{int(words[0].removesuffix('-bit')) // 8}")


def _geometry(path: Path, reader: Any) -> tuple[tuple[int, ...], int, np.ndarray]:
    """Stored size (i, j, k), bands, and affine (4, 4) to mm in RAS.

    Raises:
        DataError: too many dimensions, or an affine that cannot be used.
    """
    sizes, count = reader.GetSize(), reader.GetNumberOfComponents()
    more = [n for n in sizes[3:] if n > 1] + ([count] if count > 1 else [])
    if len(more) > 1 or (more and more[0] > MAX_BANDS):
        raise DataError(
            f"{path.name}: has {len(sizes)} dimensions, {' x '.join(map(str, sizes))}, of {count} values",
            f"save each time step as a separate volume (up to {MAX_BANDS} channels may be the fourth dimension)",
            kind="not-3d",
        )
    n = len(sizes)
    axes = min(n, 3)
    affine = np.eye(4)
    directions = np.reshape(reader.GetDirection(), (n, n)) * np.asarray(reader.GetSpacing())
    affine[:axes, :axes] = directions[:axes, :axes]
    affine[:axes, 3] = reader.GetOrigin()[:axes]
    affine = _LPS_TO_RAS @ affine
    check_affine(path.name, affine)
    return (*sizes, 1)[:3], (more or [1])[0], affine


def _check_checksum(path: Path, header: Header, needed: int) -> None:
    """Check compressed data: ITK reads it without an error where it is damaged.

    Args:
        path: of the file.
        header: names the data.
        needed: bytes that it should unpack to.

    Raises:
        DataError: the data is damaged, truncated, or longer than declared.
    """
    if header.encoding != "zlib" or len(header.files) > 1 or {"byte skip", "line skip"} & set(header.fields):
        return
    unpacker, total = zlib.decompressobj(zlib.MAX_WBITS | 32), 0
    with reading(path), header.files[0].open("rb") as file:
        file.seek(header.offset if header.files == (path,) else 0)
        piece = file.read(_PIECE)
        while piece and not unpacker.eof and total <= needed:
            try:
                total += len(unpacker.decompress(piece, _PIECE))
            except zlib.error as error:
                raise DataError(f"{path.name}: is damaged ({error})", RESTORE, kind="unreadable") from error
            piece = unpacker.unconsumed_tail or file.read(_PIECE)
    if total > needed:
        what, kind = "unpacks to more than its header declares", "too-large"
    else:
        what, kind = f"is truncated: {total} bytes, but its header declares {needed}", "unreadable"
    if total != needed or not unpacker.eof:
        raise DataError(f"{path.name}: {what}", RESTORE, kind=kind)


@contextmanager
def open_source(
    path: Path, slices: str | int = "auto", pages: str | None = None, bands: tuple[int, ...] | None = None
) -> Iterator[VolumeSource]:
    """Open a volume or picture; the header is read now, all values with the first plane.

    Args:
        path: of the file, or of the header of a file of several.
        slices: RAS axis that planes are numbered along, or "auto" (see `segcore.data.volumes.describe`).
        pages: not used, the header says what its dimensions are.
        bands: not used, there is no alpha.

    Raises:
        DataError: the file is damaged, truncated, too large or not a volume, its affine cannot be used, or its data
            file is outside its folder.
    """
    with reading(path):
        header = read_header(path)
    with _itk(path) as itk:
        reader = itk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        type_name = itk.GetPixelIDValueAsString(reader.GetPixelID())
    shape, count, affine = _geometry(path, reader)
    dtype = _dtype(path, type_name)
    values = count * int(np.prod(shape, dtype=object))
    needed = values * dtype.itemsize
    size = sum(file.stat().st_size for file in header.files) - header.offset * (header.files == (path,))
    is_packed = header.encoding == "zlib"
    check_size(path.name, 0 if header.encoding == "other" else needed, values, size, is_packed)

    def load() -> tuple[np.ndarray, None]:
        _check_checksum(path, header, needed)
        with _itk(path) as itk:
            array = itk.GetArrayFromImage(reader.Execute())
        if reader.GetNumberOfComponents() == 1:
            array = array[..., None] if count == 1 or len(reader.GetSize()) < 4 else np.moveaxis(array, 0, -1)
        return array.reshape(*shape[::-1], count).transpose(2, 1, 0, 3), None

    placed = header.has_position and not is_default(affine)
    yield VolumeSource(describe(shape, affine, count, dtype.name, slices, placed), load)
