"""Atomic writes, locks and content hashes."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segcore.errors import DataError


def fsync(path: Path) -> None:
    """Wait until a file or folder is on the disk, and not only in memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(*parts: str) -> str:
    """Hex sha256 of texts, one per line; they may hold file names that are not UTF-8."""
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is fsynced and renamed onto `path`.

    A reader sees the old file or the new one, never a part. On an error the old file stays as it was.

    Raises:
        DataError: the disk is full or not writable.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        fsync(temporary)
        temporary.replace(path)
        fsync(path.parent)
    except OSError as error:
        raise DataError(
            f"{path}: could not be written ({error.strerror or error}); what was there before is untouched",
            "free disk space or choose another folder, then run again",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Like `atomic_write` for a folder: fill the yielded one, and it replaces `path` as a whole.

    Hard links that are put into it must be of files that are on the disk already; all else is fsynced.

    Raises:
        DataError: the disk is full or not writable.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            # the file of a link reached the disk under its first name
            if file.is_dir() or file.stat().st_nlink == 1:
                fsync(file)
        if path.exists():
            path.replace(old)
        temporary.replace(path)
        fsync(path.parent)
    except OSError as error:
        if old.exists() and not path.exists():
            old.replace(path)
        raise DataError(
            f"{path}: could not be written ({error.strerror or error}); what was there before is untouched",
            "free disk space or choose another folder, then run again",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def names_in(folder: Path) -> dict[str, bool] | None:
    """Name -> whether it is a link, of all that a folder holds; None where that cannot be known."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.is_symlink() for entry in entries}
    except (OSError, ValueError):  # not there, not to be listed, or a name that no folder can have
        return None


def copy_files(source: Path, target: Path) -> None:
    """Copy the files of a folder, but not its folders, into an existing one."""
    for file in source.iterdir():
        if file.is_file():
            shutil.copyfile(file, target / file.name)


@contextmanager
def locked(path: Path) -> Iterator[Path]:
    """Hold a lock that other processes wait for; it ends with its process, however that ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield path


def save_tensors(tensors: dict[str, Any], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write safetensors; a full disk is an OSError here as everywhere.

    Raises:
        OSError: the file could not be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def sha256(path: Path | str) -> str:
    """Hex sha256 of a file's content, read in pieces."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
