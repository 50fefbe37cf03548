"""One module per image format: `EXTENSIONS`, `open_source(path, slices, pages, bands)`; optional: `write`."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path, PurePath
from types import ModuleType
from typing import Protocol, cast

from segcore import plugins
from segcore.data.raster import Info, Raster, Window
from segcore.errors import DataError
from segcore.io.images._conversions import conversion
from segcore.params.data import Data

# the argument `bands` for masks: whatever the file calls alpha is transparency, and grey values are not inverted
LABELS: tuple[int, ...] = ()


class Source(Protocol):
    """An open image.

    Attributes:
        info: metadata from the header, available without reading pixels.
    """

    info: Info

    def read(self, window: Window | None = None, plane: int = 0) -> Raster:
        """Pixels of a window of a plane, or of the whole plane.

        Raises:
            DataError: the file cannot be read.
        """
        ...


@cache
def extensions() -> tuple[str, ...]:
    """Supported file extensions, in lower case with the dot, sorted."""
    return tuple(sorted({e for module in plugins.load_all(__name__) for e in module.EXTENSIONS}))


def unknown_format(name: str, remedy: str) -> DataError:
    """The error for a file of an unsupported format, with the conversion if it is a known one.

    Args:
        name: of the file.
        remedy: for all others.
    """
    known = conversion(name)
    ending = PurePath(name).suffix
    if known:
        what, command = known
        return DataError(
            f"{name}: unsupported file extension {ending!r} ({what})",
            f"convert it: {command}",
            kind="unknown-format",
        )
    return DataError(f"{name}: unsupported file extension {ending!r}", remedy, kind="unknown-format")


def is_image(name: str) -> bool:
    """Whether a file's name has a supported extension."""
    return name.lower().endswith(extensions())


def _format_of(path: Path) -> ModuleType:
    name = path.name.lower()
    try:
        is_folder = path.is_dir()
    # The reader of its format raises the error when it opens the file.
    except PermissionError:
        is_folder = False
    if is_folder and conversion(name) is None:
        return plugins.load(__name__, "dicom")
    for module in plugins.load_all(__name__):
        if name.endswith(tuple(module.EXTENSIONS)):
            return module
    # A slice may be named without file extension, or with one such as .IMA.
    from segcore.io.images._series import is_slice

    if is_slice(path):
        return plugins.load(__name__, "dicom")
    raise unknown_format(path.name, f"use one of {', '.join(extensions())}")


def open_source(
    path: Path,
    slices: str | int = "auto",
    pages: str | None = None,
    bands: tuple[int, ...] | None = None,
) -> AbstractContextManager[Source, None]:
    """Open an image.

    Args:
        path: a file, or a folder that holds one DICOM series.
        slices: axis (0, 1, 2 in RAS order) that a volume is sliced along, or "auto": the axis of coarsest spacing.
        pages: what pages or frames of a file are: "planes" or "channels"; None: what the file itself says.
        bands: bands that are wanted as data, counted from 1; None: all that are no alpha; LABELS: for a mask.

    Raises:
        DataError: unsupported file extension, or the file cannot be read.
    """
    opened: AbstractContextManager[Source, None] = _format_of(path).open_source(path, slices, pages, bands)
    return opened


def open_declared(path: Path | Sequence[Path], data: Data) -> AbstractContextManager[Source, None]:
    """Open an image with the slices, pages and bands of the data section of params.yaml.

    Args:
        path: of the image; of an image whose bands are in several files, of all of them.
        data: the data section.

    Raises:
        DataError: as `open_source`, or the files do not fit each other.
    """
    paths = [path] if isinstance(path, Path) else path
    if len(paths) > 1:
        from segcore.io.images._joined import open_joined

        return cast("AbstractContextManager[Source, None]", open_joined(paths, data))
    return open_source(paths[0], data.slices, data.pages, tuple(data.bands) if data.bands else None)


def info(path: Path) -> Info:
    """Header of an image.

    Raises:
        DataError: unsupported file extension, or the file cannot be read.
    """
    with open_source(path) as source:
        return source.info


def read(path: Path, window: Window | None = None, plane: int = 0) -> Raster:
    """Pixels of a window of a plane, or of the whole plane.

    Raises:
        DataError: unsupported file extension, or the file cannot be read.
    """
    with open_source(path) as source:
        return source.read(window, plane)
