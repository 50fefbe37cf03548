"""Content of JSON files, which several formats of annotations share."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from segcore.errors import DataError
from segcore.io.images._checks import check_file

EXPORT = "export the annotations again as COCO instances, labelme or Cityscapes polygons"


def unreadable(name: str, what: str, remedy: str = EXPORT) -> DataError:
    """The error for a file that cannot be read as annotations."""
    return DataError(f"{name}: {what}", remedy, kind="polygons-unreadable")


def stamp(path: Path) -> tuple[Path, int, int]:
    """Absolute path, size and time of change of a file: while they are equal, so is its content.

    Raises:
        DataError: the file is missing, empty, or may not be read.
    """
    check_file(path)
    status = path.stat()
    return path.absolute(), status.st_size, status.st_mtime_ns


def content(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        DataError: it cannot be read, or is not JSON.
    """
    return parsed(*stamp(path))


def has_list(path: Path, key: str) -> bool:
    """Whether a JSON file is an object with a list under a key.

    Raises:
        DataError: it cannot be read, or is not JSON.
    """
    found = content(path)
    return isinstance(found, dict) and isinstance(found.get(key), list)


@lru_cache(maxsize=2)
def parsed(path: Path, size: int, changed: int) -> Any:
    """As `content`; cached, because many images may share the file and parsing is slow."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise unreadable(
            path.name,
            f"is not JSON ({str(error)[:200] or 'nested too deeply'})",
            "export the annotations again",
        ) from error
