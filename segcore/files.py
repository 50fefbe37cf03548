"""Atomic writes, locks and content hashes."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from segcore.errors import DataError, StageError
from segcore.parts import part_of, restore_or_remove

# remedy of a link that leads nowhere
LOST = "mount or restore that folder, or remove the link, then run again"


def fsync(path: Path) -> None:
    """Flush a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(*parts: str) -> str:
    """Hex sha256 of texts joined by newlines; file names that are not UTF-8 are allowed."""
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def lost_link(path: Path) -> Path | None:
    """The path or the folder of it that is a link which leads nowhere; None if there is none."""
    places = (path, *path.parents)
    return next((place for place in places if place.is_symlink() and not place.exists()), None)


_IN_THE_WAY = (IsADirectoryError, NotADirectoryError, FileExistsError)
_MOVE = "move away what has the name of this file or of its folder, then run again"


def _unwritable(path: Path, error: OSError) -> DataError:
    # the error may be of another file that is used meanwhile, such as a cache
    other = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else path
    lost = lost_link(path) or lost_link(other)
    if lost:
        return DataError(f"{lost}: is a link to {lost.readlink()}, which leads nowhere", LOST)
    remedy = "free disk space or choose another folder, then run again"
    if isinstance(error, _IN_THE_WAY):
        remedy = _MOVE
    return DataError(
        f"{path}: could not be written ({error.strerror or error}); the previous content is unchanged", remedy
    )


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path near `path`; on success it is fsynced and renamed onto `path`.

    Readers see the old file or the new one, never a part of it. After an error the old file is unchanged. What a
    killed process left of an earlier write of `path` is removed.

    Raises:
        DataError: the disk is full or not writable.
    """
    path = Path(path)
    try:
        with part_of(path) as folder:
            temporary = folder / path.name
            yield temporary
            fsync(temporary)
            temporary.replace(path)
            fsync(path.parent)
    except BrokenPipeError:
        # of an output of the program, not of this file
        raise
    except OSError as error:
        raise _unwritable(path, error) from error


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield a temporary folder that replaces `path` as a whole on success, as in `atomic_write`.

    Hard links in it must be to files that are already on disk; everything else is fsynced.

    Raises:
        DataError: the disk is full or not writable.
    """
    path = Path(path)
    try:
        with part_of(path) as temporary:
            yield temporary
            for file in temporary.rglob("*"):
                # a file with further hard links is on disk already
                if file.is_dir() or file.stat().st_nlink == 1:
                    fsync(file)
            old = temporary.with_suffix(".old")
            try:
                if path.exists():
                    path.replace(old)
                temporary.replace(path)
                fsync(path.parent)
            finally:
                restore_or_remove(old, path)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _unwritable(path, error) from error


def names_in(folder: Path) -> dict[str, bool] | None:
    """Names in a folder, each with whether it is a symbolic link; None if the folder cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.is_symlink() for entry in entries}
    except (OSError, ValueError):
        # ValueError: the name cannot be that of a folder
        return None


def copy_files(source: Path, target: Path) -> None:
    """Copy the files of a folder, without its subfolders, into an existing folder."""
    for file in source.iterdir():
        if file.is_file():
            shutil.copyfile(file, target / file.name)


@contextmanager
def locked(path: Path) -> Iterator[Path]:
    """Hold an exclusive lock on `path`; it is released when the block or the process ends.

    Raises:
        DataError: the file cannot be created or opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a")
    except OSError as error:
        if lost_link(path):
            raise _unwritable(path, error) from error
        remedy = "free disk space, or give this user the right to write to this folder, then run again"
        if isinstance(error, _IN_THE_WAY):
            remedy = _MOVE
        raise DataError(f"{path}: could not be opened ({error.strerror or error})", remedy) from error
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield path


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Hold an exclusive lock on `path`, as `locked`, but do not wait for it.

    Args:
        path: lock file.
        what: what another process does while it holds the lock, such as "a promotion".

    Raises:
        StageError: another process holds the lock.
    """
    with try_locked(path) as is_taken:
        if not is_taken:
            raise StageError(f"{what} is running in this folder", "wait until it ends, then run again")
        yield


@contextmanager
def try_locked(path: Path) -> Iterator[bool]:
    """Hold an exclusive lock on `path` and yield True, or yield False if another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        yield _flock(stream, fcntl.LOCK_EX)


def is_locked(path: Path) -> bool:
    """Whether a process holds an exclusive lock on `path`; nothing is created, and the lock is not kept."""
    if not path.exists():
        return False
    with path.open() as stream:
        return not _flock(stream, fcntl.LOCK_SH)


def _flock(stream: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(stream, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def save_tensors(tensors: dict[str, Any], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors to a safetensors file.

    Raises:
        OSError: the file could not be written, for example because the disk is full.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def read_json(path: Path, remedy: str, kind: type = dict) -> Any:
    """Content of a JSON file that this project wrote.

    Args:
        path: the file.
        remedy: remedy where the file is damaged.
        kind: type of its content.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it cannot be read, is not JSON, or has content of another type.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: is damaged or cannot be read ({error})", remedy) from error
    if not isinstance(content, kind):
        raise DataError(f"{path}: is damaged: it contains no {kind.__name__}", remedy)
    return content


def cached_json(path: Path, kind: type = dict) -> Any:
    """Content of a JSON file of a cache; None if it is missing or damaged, and has to be computed again."""
    try:
        return read_json(path, "", kind)
    except (FileNotFoundError, DataError):
        return None


def sha256(path: Path | str) -> str:
    """Hex sha256 of a file, read in chunks."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
