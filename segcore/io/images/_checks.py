"""Checks and errors that all readers share for files that cannot be opened."""

import os
import stat
from pathlib import Path

from segcore.errors import DataError

RESTORE = "restore the file from its source, or remove the pair"
# Not regular files; opening some of these would block forever.
_SPECIAL_FILES = {
    stat.S_IFIFO: "a FIFO (named pipe)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def check_is_file(path: Path, status: os.stat_result) -> None:
    """Check that a path is a regular file, before it is opened.

    Args:
        path: of the file, for the error.
        status: result of stat on it.

    Raises:
        DataError: it is a folder, FIFO, socket or device.
    """
    file_type = _SPECIAL_FILES.get(stat.S_IFMT(status.st_mode))
    if file_type is not None:
        raise DataError(
            f"{path.name}: is {file_type}, not a file", "remove it, or narrow the pattern", kind="unreadable"
        )


def check_file(path: Path) -> int:
    """Check that a file can be opened and is not empty; its size in bytes.

    Raises:
        DataError: it is missing, not a regular file, empty, or may not be read.
    """
    try:
        check_is_file(path, path.stat())
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
    except PermissionError as error:
        raise DataError(
            f"{path.name}: may not be read (permission denied)",
            f"give read permission: chmod u+r on {path.name} and u+rx on its folder",
            kind="no-permission",
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path.name}: cannot be read ({reason})", RESTORE, kind="unreadable") from error
    if size == 0:
        raise DataError(f"{path.name}: is empty (0 bytes)", RESTORE, kind="empty-file")
    return size


def is_about_proj(reason: str) -> bool:
    """Whether a library's error is that PROJ has no database that fits, which is no fault of a file."""
    return "proj.db" in reason


def proj_is_broken(path: Path, reason: str) -> DataError:
    """The error for a file whose coordinate system PROJ cannot look up."""
    return DataError(
        f"{path.name}: PROJ cannot read its own database ({reason[:300]})",
        "unset PROJ_LIB and PROJ_DATA; if it remains, install rasterio and pyogrio again with pip; the file is sound",
        kind="unusable",
    )


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for an exception of a reading library: its text on one line, without the folder's path."""
    reason = " ".join(str(error).replace(f"{path.parent}/", "").split()) or type(error).__name__
    if is_about_proj(reason):
        return proj_is_broken(path, reason)
    return DataError(f"{path.name}: cannot be read ({reason[:300]})", RESTORE, kind="unreadable")
