"""Plug-ins: the modules of a package whose names do not begin with an underscore."""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType


def names(package: str) -> tuple[str, ...]:
    """Sorted names of a package's plug-ins; neither they nor the package are imported.

    Args:
        package: full name, such as "segcore.models".
    """
    return tuple(sorted(file.stem for file in _files(package) if not file.stem.startswith("_")))


def source(package: str, name: str) -> str:
    """Text of the file of a plug-in, which is not imported; `name` is one of `names(package)`."""
    return next(file for file in _files(package) if file.stem == name).read_text(encoding="utf-8")


def _files(package: str) -> list[Path]:
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations is not None, package
    return [file for folder in spec.submodule_search_locations for file in Path(folder).glob("*.py")]


def load(package: str, name: str) -> ModuleType:
    """Import one plug-in; `name` is one of `names(package)`."""
    return import_module(f"{package}.{name}")


@cache
def load_all(package: str) -> tuple[ModuleType, ...]:
    """Import all plug-ins of a package, in the order of their names."""
    return tuple(load(package, name) for name in names(package))
