"""Check of a SQLite file before a tool opens it: tools report a damaged or locked file late, and without its name."""

import os
import re
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

from segcore.errors import StageError

# environment variable: seconds to wait for a lock
WAIT = "SEGFLOW_LOCK_SECONDS"
_WAIT_SECONDS = 60.0
# after this time a line reports the wait
_QUIET_SECONDS = 3.0
# larger files are not read as a whole
_QUICK_CHECK_BYTES = 64 * 2**20
# results of the check that are no damage
_VALUES = re.compile(r"ok|NULL value in|CHECK constraint failed|(NUMERIC|TEXT|non-\w+) value in")
BUSY = "is locked by another process"
_FREE = "free disk space, then run again"
_RIGHTS = "give this user the right to read and write the file and its folder, then run again"
# part of SQLite's message: what is wrong, remedy; None: that of a damaged file
_CAUSES: dict[str, tuple[str, str | None]] = {
    "disk is full": ("no space left on the disk", _FREE),
    "readonly": ("cannot be written", _RIGHTS),
    "unable to open": ("cannot be opened", _RIGHTS),
    "authorization denied": ("cannot be opened", _RIGHTS),
    "i/o error": (
        "cannot be read or written (I/O error)",
        "check the disk and its free space, then run again",
    ),
    "not a database": ("is damaged, or not a SQLite database", None),
    "malformed": ("is damaged", None),
}


def wait_seconds() -> float:
    """How long to wait for a locked file."""
    try:
        return float(os.environ[WAIT])
    except (KeyError, ValueError):
        return _WAIT_SECONDS


def is_busy(text: str) -> bool:
    """Whether a message of SQLite reports a lock of another process."""
    return "database is locked" in text or "database table is locked" in text


def check(file: Path, restore: str) -> None:
    """Check that a SQLite file is undamaged and can be written; waits for locks of other processes.

    A missing or empty file is accepted if it can be created.

    Args:
        file: the database.
        restore: remedy where the file is damaged.

    Raises:
        StageError: the file cannot be used.
    """
    _check_kind(file, restore)
    _check_folder(file)
    if not file.exists():
        return
    if not os.access(file, os.R_OK | os.W_OK):
        raise StageError(f"{file}: cannot be read and written by this user", _RIGHTS)
    waiting = min(_QUIET_SECONDS, wait_seconds())
    try:
        try:
            _use(file, waiting, restore)
        except sqlite3.OperationalError as error:
            left = wait_seconds() - waiting
            if not is_busy(str(error)) or left <= 0:
                raise
            print(f"{file} {BUSY}; waiting up to {left:.0f} s", file=sys.stderr, flush=True)
            _use(file, left, restore)
    except sqlite3.Error as error:
        raise explained(file, str(error), restore) from error


def explained(file: Path, message: str, restore: str) -> StageError:
    """The error for a message of SQLite.

    Args:
        file: the database.
        message: text of the exception.
        restore: remedy where the file is damaged.
    """
    if is_busy(message):
        return StageError(
            f"{file}: {BUSY} for more than {wait_seconds():.0f} s",
            f"end that process (`fuser {file}` names it) or wait for it, then run again",
        )
    for part, (what, remedy) in _CAUSES.items():
        if part in message.lower():
            return StageError(f"{file}: {what}", remedy or restore)
    return StageError(f"{file}: cannot be used ({message.strip().splitlines()[0][:300]})", restore)


def first_value(file: Path, query: str) -> str | None:
    """First value that a query of an existing database gives; None if there is none, or no such table."""
    with closing(sqlite3.connect(file, timeout=wait_seconds())) as database:
        try:
            row = database.execute(query).fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            return None
    return None if row is None else str(row[0])


def _check_kind(file: Path, restore: str) -> None:
    """Check that the path, or what it links to, is a plain file or can become one."""
    if file.is_dir():
        raise StageError(f"{file}: is a folder, not a SQLite database", f"move the folder away, or {restore}")
    target = Path(os.path.realpath(file))
    lost = [folder for folder in file.absolute().parents if folder.is_symlink() and not folder.exists()]
    if file.is_symlink() and (target.is_symlink() or not target.parent.is_dir()):
        lost.append(file)
    if lost:
        raise StageError(
            f"{lost[0]}: is a link to {lost[0].readlink()}, which leads nowhere",
            "mount or restore its folder, then run again; or remove the link",
        )
    if file.exists() and not file.is_file():
        raise StageError(f"{file}: is not a file, but a pipe or device", restore)


def _check_folder(file: Path) -> None:
    # a link is followed
    file = Path(os.path.realpath(file))
    folder = next(parent for parent in file.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise StageError(f"{file}: {folder} is not a folder", "correct the address, or move that file away")
    # SQLite writes its journal beside the file
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StageError(f"{file}: its folder cannot be written by this user", _RIGHTS)


def _use(file: Path, seconds: float, restore: str) -> None:
    """Take the write lock once and read small files as a whole.

    The file is not opened as a plain file: closing that would release the locks of this process's other connections.
    """
    deadline = time.monotonic() + seconds
    with closing(sqlite3.connect(file, timeout=seconds, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        database.execute("ROLLBACK")
        if file.stat().st_size > _QUICK_CHECK_BYTES:
            return
        database.execute(f"PRAGMA busy_timeout = {max(0, round(1000 * (deadline - time.monotonic())))}")
        found = [str(row[0]) for row in database.execute("PRAGMA quick_check(20)")]
    damage = [line for line in found if not _VALUES.match(line)]
    if damage:
        raise StageError(f"{file}: is damaged ({' '.join(damage[0].split())[:200]})", restore)
