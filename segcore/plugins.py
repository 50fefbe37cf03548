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
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations is not None, package
    files = (file for folder in spec.submodule_search_locations for file in Path(folder).glob("*.py"))
    return tuple(sorted(file.stem for file in files if not file.stem.startswith("_")))


def load(package: str, name: str) -> ModuleType:
    """Import one plug-in; `name` is one of `names(package)`."""
    return import_module(f"{package}.{name}")


@cache
def load_all(package: str) -> tuple[ModuleType, ...]:
    """Import all plug-ins of a package, in the order of their names."""
    return tuple(load(package, name) for name in names(package))
