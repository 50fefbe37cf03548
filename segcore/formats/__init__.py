"""One file a format: `ENDINGS`, `info(path)`, `read(path, window)`, `write(path, pixels, info)`."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

from segcore.errors import DataError
from segcore.raster import Info, Raster, Window


def _modules() -> list[ModuleType]:
    files = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem != "__init__")
    return [import_module(f"{__name__}.{stem}") for stem in files]


def endings() -> set[str]:
    """File endings that can be read, in lower case with the dot."""
    return {ending for module in _modules() for ending in module.ENDINGS}


def _format_of(path: Path) -> ModuleType:
    for module in _modules():
        if path.suffix.lower() in module.ENDINGS:
            return module
    raise DataError(
        f"{path.name}: ending {path.suffix!r} is unknown", f"use one of {', '.join(sorted(endings()))}"
    )


def info(path: Path) -> Info:
    """Header of an image.

    Raises:
        DataError: unknown ending, or the file cannot be read.
    """
    return _format_of(path).info(path)


def read(path: Path, window: Window | None = None) -> Raster:
    """Pixels of a window, or of the whole image.

    Raises:
        DataError: unknown ending, or the file cannot be read.
    """
    return _format_of(path).read(path, window)
