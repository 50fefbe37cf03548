"""Temporary folders of atomic writes, each beside its target and locked by its process."""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def part_of(path: Path) -> Iterator[Path]:
    """A locked folder beside `path`, which is removed at the end; what killed processes left there is removed first.

    The lock, not the process number in the name, shows that its process is alive: numbers are used again, and those
    of other containers mean nothing here.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in left_parts(path.parent, path.name):
        # of another user
        with suppress(OSError):
            restore_or_remove(left, path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    descriptor = _locked_folder(part)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)
        os.close(descriptor)


def _locked_folder(folder: Path) -> int:
    """Create a folder, and return the open descriptor that holds its lock."""
    while True:
        folder.mkdir()
        # another process may have removed it before it was locked
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY)
            # some network file systems have no locks of folders
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.exists():
                return descriptor
            os.close(descriptor)


def left_parts(folder: Path, name: str | None = None) -> list[Path]:
    """What killed processes left in a folder of the temporary files and folders of `atomic_write` and `atomic_folder`.

    Args:
        folder: where to look; subfolders are not searched.
        name: name of the file or folder that was written; None: any.
    """
    written = r".+" if name is None else re.escape(name)
    pattern = re.compile(rf"\.{written}\.\d+\.(part|old)", re.DOTALL)
    found = [path for path in folder.iterdir() if pattern.fullmatch(path.name)]
    # the previous content, .old, belongs to the part of the same process
    return sorted(path for path in found if _is_left(path) and _is_left(path.with_suffix(".part")))


def _is_left(path: Path) -> bool:
    """Whether no process holds the lock of a temporary file or folder; True if it does not exist."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        # locked, or on a file system without such locks
        return False
    finally:
        os.close(descriptor)
    return True


def restore_or_remove(left: Path, path: Path) -> None:
    """Remove a temporary file or folder; previous content of `path` is put back if there is no other."""
    if left.suffix == ".old" and left.exists() and not path.exists():
        left.replace(path)
    else:
        remove(left)


def remove(path: Path) -> None:
    """Remove a file, or a folder with its content as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
