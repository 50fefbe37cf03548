"""A SQLite store whose project folder was moved, renamed, copied or mounted elsewhere: MLflow stores absolute paths.

The addresses of artifacts are rewritten to those of the present folder, so that neither a folder that is gone nor the
project that this one was copied from is used.
"""

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from tasks import sqlite

FOLDER = "mlruns"
_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)


def follow(file: Path, restore: str) -> None:
    """Rewrite the artifact addresses of a store whose folder has another path than before; print one line if so.

    Folders of other projects that use the same store are left alone: the former folder must be gone, contain a store
    of the same name, of which this one is a copy, or lack files that are here.

    Args:
        file: an existing database of the present version of MLflow.
        restore: remedy where it is damaged.

    Raises:
        StageError: the database cannot be changed.
    """
    here = file.parent.resolve()
    try:
        with closing(sqlite3.connect(file, timeout=sqlite.wait_seconds(), isolation_level=None)) as database:
            for old in _former_folders(database, here, file.name):
                _rewrite(database, f"{old}/{FOLDER}/", f"{here}/{FOLDER}/")
                what = (
                    f"is a copy of {old / file.name}" if _exists(old / file.name) else f"was moved from {old}"
                )
                line = f"tracking: {file} {what}; its artifacts are now those in {here / FOLDER}"
                print(line, file=sys.stderr, flush=True)
    except sqlite3.Error as error:
        raise sqlite.explained(file, str(error), restore) from error


def _former_folders(database: sqlite3.Connection, here: Path, name: str) -> list[Path]:
    """Folders that the store was in before, by the addresses of its experiments."""
    try:
        rows = database.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        return []
    places = [
        Path(location) for (location,) in rows if isinstance(location, str) and location.startswith("/")
    ]
    folders = {place.parents[1] for place in places if place.parent.name == FOLDER}
    is_own = (here / FOLDER).is_dir() or here == Path.cwd()
    return sorted(old for old in folders if is_own and _is_former(database, old, here, name))


def _is_former(database: sqlite3.Connection, old: Path, here: Path, name: str) -> bool:
    if not _exists(old):
        return True
    if old.samefile(here):
        return False
    # another project may be there by now
    is_left = here == Path.cwd() and not _exists(old / FOLDER)
    return _exists(old / name) or is_left or _has_files_of(database, old, here)


def _has_files_of(database: sqlite3.Connection, old: Path, here: Path) -> bool:
    """Whether files with addresses in the former folder are not there, but here."""
    start = f"{old}/{FOLDER}/"
    query = " UNION ".join(
        f"SELECT {column} FROM {table} WHERE substr({column}, 1, {len(start)}) = ?"
        # those of experiments are named by a number that other stores have too
        for table, column in _COLUMNS[1:]
    )
    places = (Path(place) for (place,) in database.execute(query, [start] * len(_COLUMNS[1:])))
    return any(_exists(here / place.relative_to(old)) and not _exists(place) for place in places)


def _exists(path: Path) -> bool:
    # unlike Path.exists, False in folders of other users
    return os.access(path, os.F_OK)


def _rewrite(database: sqlite3.Connection, old: str, new: str) -> None:
    """Replace the beginning of all artifact addresses, in one transaction."""
    database.execute("BEGIN IMMEDIATE")
    try:
        for table, column in _COLUMNS:
            database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (new, len(old) + 1, len(old), old),
            )
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
