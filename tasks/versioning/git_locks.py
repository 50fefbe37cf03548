"""Lock files of git: those that a killed process left are removed, those of running processes are waited for."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from segcore.errors import StageError

# how long a running process is waited for
WAIT_SECONDS = 30.0
# a younger lock may belong to a process that is about to end
_SETTLED_SECONDS = 2.0
_INTERVAL_SECONDS = 0.25
# inaccuracy of a process's start time
_CLOCK_SECONDS = 2.0
# git processes that run for days and take no lock
_SERVICES = {"fsmonitor--daemon", "cat-file", "credential-cache--daemon", "daemon"}


class Folders(NamedTuple):
    """Folders of a repository.

    Attributes:
        work_tree: folder with the checked-out files.
        git_dir: folder with HEAD and index of this work tree.
        common_dir: folder with objects and branches; `git_dir` unless this is a linked work tree.
    """

    work_tree: Path
    git_dir: Path
    common_dir: Path


def release(folders: Folders) -> None:
    """Remove locks of ended processes, with a printed note, and wait up to WAIT_SECONDS for those of running ones.

    Raises:
        StageError: a process still holds a lock, or a lock cannot be removed.
    """
    start = time.monotonic()
    while locks := list(_locks(folders)):
        waited = time.monotonic() - start
        for lock in locks:
            try:
                found = lock.stat()
            except FileNotFoundError:
                continue
            holder = _holder(lock, found, folders)
            # the clock of the file system may be ahead of this machine's
            age = max(time.time() - found.st_mtime, waited)
            if holder is None and age > _SETTLED_SECONDS:
                _remove(lock, found)
            elif waited > WAIT_SECONDS:
                raise StageError(
                    f"{lock}: another process has locked the repository for {age:.0f} s{_text(holder)}",
                    "wait until it ends, or end it, then run again",
                )
        if any(lock.exists() for lock in locks):
            time.sleep(_INTERVAL_SECONDS)


def require_releasable(folders: Folders) -> None:
    """`release` without changing anything: locks of ended processes are printed, nothing is waited for.

    Raises:
        StageError: a process holds a lock.
    """
    for lock in _locks(folders):
        try:
            found = lock.stat()
        except FileNotFoundError:
            # released meanwhile
            continue
        holder = _holder(lock, found, folders)
        if holder is not None:
            raise StageError(
                f"{lock}: another process has locked the repository{_text(holder)}",
                "wait until it ends, or end it, then run again",
            )
        print(f"{lock}: would be removed, the process that made it has ended", flush=True)


def _locks(folders: Folders) -> Iterator[Path]:
    for folder in {folders.git_dir, folders.common_dir}:
        yield from sorted(folder.glob("*.lock"))
        yield from sorted((folder / "refs").rglob("*.lock"))


def _remove(lock: Path, found: os.stat_result) -> None:
    try:
        now = lock.stat()
        if (now.st_ino, now.st_mtime_ns) == (found.st_ino, found.st_mtime_ns):
            lock.unlink()
            print(f"{lock}: removed, the process that made it has ended", file=sys.stderr, flush=True)
    except FileNotFoundError:
        # released meanwhile
        return
    except OSError as error:
        raise StageError(
            f"{lock}: left by a process that has ended, and cannot be removed ({error.strerror})",
            f"remove it as its owner: rm {lock}",
        ) from error


def _holder(lock: Path, found: os.stat_result, folders: Folders) -> psutil.Process | None:
    """A running process that has the lock open, or a git process that works in this repository."""
    for process in psutil.process_iter():
        # it ended meanwhile
        with suppress(psutil.NoSuchProcess):
            if process.pid == os.getpid() or process.create_time() > found.st_mtime + _CLOCK_SECONDS:
                continue
            if _has_open(process, lock) or _is_git_here(process, found.st_uid, folders):
                return process
    return None


def _has_open(process: psutil.Process, lock: Path) -> bool:
    try:
        return any(Path(file.path) == lock for file in process.open_files())
    except (psutil.AccessDenied, OSError):
        return False


def _is_git_here(process: psutil.Process, owner: int, folders: Folders) -> bool:
    name = process.name()
    if name != "git" and not name.startswith("git-"):
        return False
    try:
        command, folder = process.cmdline(), Path(process.cwd())
    except psutil.AccessDenied:
        # another user's process: counts if that user made the lock
        return process.uids().real == owner
    if process.status() == psutil.STATUS_ZOMBIE or _SERVICES.intersection(command):
        return False
    return any(folder.is_relative_to(place) or str(place) in " ".join(command) for place in folders)


def _text(holder: psutil.Process | None) -> str:
    if holder is None:
        return ""
    with suppress(psutil.Error):
        command = " ".join(holder.cmdline())[:80]
        return f": process {holder.pid} ({command or holder.name()})"
    return f": process {holder.pid}"
