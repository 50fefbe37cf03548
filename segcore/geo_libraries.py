"""Keeps the data of another installation of PROJ or GDAL out of this process and its children.

rasterio and pyogrio bring their own PROJ and GDAL. Variables that QGIS, PostGIS or conda set for theirs would make
every coordinate system unreadable. Import-light: standard library only.
"""

import os
import sys
from collections.abc import Callable
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

_PLUGINS = ("gdal_*", "ogr_*")


def keep_own() -> None:
    """Drop variables that lead PROJ or GDAL to files that do not fit, with one line on stderr that names them.

    A folder with a fitting proj.db is kept, such as one with more grids, and so is one with all data files of GDAL.
    """
    given = {name: os.environ[name] for name in _CHECKS if os.environ.get(name)}
    if not given:
        return
    package = find_spec("rasterio")
    if package is None or package.origin is None:
        return
    own = Path(package.origin).parent
    dropped = [name for name, value in given.items() if not _CHECKS[name](value, own)]
    for name in dropped:
        del os.environ[name]
    if not dropped:
        return
    _reset(own)
    listed = ", ".join(f"{name}={given[name]}" for name in dropped)
    sys.stderr.write(
        f"Note: {listed}: not used, because it belongs to another installation of PROJ or GDAL (such as that of QGIS, "
        f"PostGIS or conda); unset {' '.join(dropped)} to run without this note\n"
    )


def _reset(own: Path) -> None:
    """Lead rasterio to its own PROJ data where it was imported before this module."""
    environment = sys.modules.get("rasterio.env")
    if environment is not None and (own / "proj_data").is_dir():
        environment.set_proj_data_search_path(str(own / "proj_data"))


def _layout(database: Path) -> tuple[int, int] | None:
    """Version of the layout of a proj.db; None if it cannot be read."""
    import sqlite3

    query = "select value from metadata where key = 'DATABASE.LAYOUT.VERSION.{}'"
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as opened:
            major, minor = (opened.execute(query.format(part)).fetchone()[0] for part in ("MAJOR", "MINOR"))
            return int(major), int(minor)
    except (sqlite3.Error, OSError, TypeError, ValueError):
        return None


def _has_fitting_proj_db(value: str, own: Path) -> bool:
    # A list of folders is no folder, and rasterio takes no list.
    needed, found = _layout(own / "proj_data" / "proj.db"), _layout(Path(value) / "proj.db")
    if needed is None:
        return True
    return found is not None and found[0] == needed[0] and found[1] >= needed[1]


def _has_gdal_data(value: str, own: Path) -> bool:
    try:
        needed = {path.name for path in (own / "gdal_data").iterdir()}
    except OSError:
        return True
    try:
        return needed <= {path.name for path in Path(value).iterdir()}
    except OSError:
        return False


def _has_no_plugins(value: str, own: Path) -> bool:
    if not (own / "gdal_data").is_dir():
        return True
    folders = [Path(folder) for folder in value.split(os.pathsep)]
    try:
        return not any(any(folder.glob(pattern)) for folder in folders for pattern in _PLUGINS)
    except OSError:
        return False


# variable, and whether its value fits the libraries in this folder
_CHECKS: dict[str, Callable[[str, Path], bool]] = {
    "PROJ_DATA": _has_fitting_proj_db,
    "PROJ_LIB": _has_fitting_proj_db,
    "GDAL_DATA": _has_gdal_data,
    "GDAL_DRIVER_PATH": _has_no_plugins,
    "OGR_DRIVER_PATH": _has_no_plugins,
}
