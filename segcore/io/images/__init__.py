"""One file a format: `ENDINGS`, `open_source(path, slices)`, and `write(path, pixels, info)` where it can write."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Protocol

from segcore import plugins
from segcore.data.raster import Info, Raster, Window
from segcore.errors import DataError


class Source(Protocol):
    """An open image.

    Attributes:
        info: what its header says; known without reading pixels.
    """

    info: Info

    def read(self, window: Window | None = None, plane: int = 0) -> Raster:
        """Pixels of a window of a plane, or of the whole plane.

        Raises:
            DataError: the file cannot be read.
        """
        ...


@cache
def endings() -> tuple[str, ...]:
    """File endings that can be read, in lower case with the dot, sorted."""
    return tuple(sorted({ending for module in plugins.load_all(__name__) for ending in module.ENDINGS}))


def _format_of(path: Path) -> ModuleType:
    name = path.name.lower()
    try:
        is_folder = path.is_dir()
    except PermissionError:  # its format says so when it opens the file
        is_folder = False
    if is_folder:
        return plugins.load(__name__, "dicom")
    for module in plugins.load_all(__name__):
        if name.endswith(tuple(module.ENDINGS)):
            return module
    raise DataError(
        f"{path.name}: ending {path.suffix!r} is unknown",
        f"use one of {', '.join(endings())}",
        kind="unknown-format",
    )


def open_source(path: Path, slices: str | int = "auto") -> AbstractContextManager[Source]:
    """Open an image.

    Args:
        path: a file, or a folder that holds one DICOM series.
        slices: axis (0, 1, 2 in RAS order) that a volume is cut along, or "auto": the one of coarsest spacing.

    Raises:
        DataError: unknown ending, or the file cannot be read.
    """
    opened: AbstractContextManager[Source] = _format_of(path).open_source(path, slices)
    return opened


@contextmanager
def _once(path: Path) -> Iterator[Source]:
    with open_source(path) as source:
        yield source


def info(path: Path) -> Info:
    """Header of an image.

    Raises:
        DataError: unknown ending, or the file cannot be read.
    """
    with _once(path) as source:
        return source.info


def read(path: Path, window: Window | None = None, plane: int = 0) -> Raster:
    """Pixels of a window of a plane, or of the whole plane.

    Raises:
        DataError: unknown ending, or the file cannot be read.
    """
    with _once(path) as source:
        return source.read(window, plane)
