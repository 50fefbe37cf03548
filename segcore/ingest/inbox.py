"""The inbox: a folder or fsspec address from which new files are copied once they are complete.

A snapshot is consistent: a file that changed less than `settle` seconds ago, or while it was copied, waits for the
next snapshot. A snapshot changes nothing in the inbox.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem

from segcore.errors import DataError

# folder in the inbox that accepted files are moved to; hidden, so that no pattern matches it
TAKEN = ".taken"


class InboxFile(NamedTuple):
    """A file of the inbox.

    Attributes:
        path: relative to the inbox.
        size: bytes.
        changed: time of its last change in seconds since 1970; 0 if unknown.
    """

    path: str
    size: int
    changed: float


class Snapshot(NamedTuple):
    """Files that were copied, files that have not settled, and paths that are refused with the reason."""

    taken: list[InboxFile]
    waiting: list[InboxFile]
    refused: list[tuple[str, str]]


class Inbox:
    """Access to an inbox.

    Args:
        address: a folder, or an fsspec address such as s3://bucket/inbox.

    Raises:
        DataError: the address is not valid, or needs a package that is not installed.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        try:
            self.fs, self.root = fsspec.core.url_to_fs(address)
        except (ImportError, ValueError) as error:
            raise DataError(
                f"{address}: cannot be used as an inbox ({error})",
                "install the package it names, or correct retrain.inbox in params.yaml",
            ) from error
        self.local = isinstance(self.fs, LocalFileSystem)
        if self.local:
            Path(self.root).mkdir(parents=True, exist_ok=True)

    def entries(self) -> tuple[list[InboxFile], list[tuple[str, str]]]:
        """All files but hidden ones, sorted by path; and the paths that are refused, with the reason.

        Raises:
            DataError: the inbox cannot be listed.
        """
        try:
            files = list(self._walk_folder() if self.local else self._walk_store())
        except Exception as error:
            # each file system raises errors of its own
            raise DataError(
                f"{self.address}: the inbox cannot be listed ({type(error).__name__}: {error})",
                "check the address, the network and the credentials in the environment, then run again",
            ) from error
        accepted = sorted(file for file, reason in files if not reason)
        return accepted, sorted((file.path, reason) for file, reason in files if reason)

    def _walk_folder(self) -> Iterator[tuple[InboxFile, str]]:
        """Symbolic links are refused wherever they point, because their target could change unnoticed."""
        root = Path(self.root)
        for folder, names, files in os.walk(root, followlinks=False):
            links = [name for name in names if (Path(folder) / name).is_symlink()]
            names[:] = sorted(n for n in names if not n.startswith(".") and n not in links)
            for name in (*sorted(files), *links):
                path = Path(folder) / name
                status = path.lstat()
                entry = InboxFile(path.relative_to(root).as_posix(), status.st_size, status.st_mtime)
                if not name.startswith("."):
                    yield entry, "is a symbolic link" if path.is_symlink() else ""

    def _walk_store(self) -> Iterator[tuple[InboxFile, str]]:
        prefix = self.root.rstrip("/") + "/"
        for key, facts in self.fs.find(self.root, detail=True).items():
            path = key.removeprefix(prefix)
            if key.endswith("/") or any(part.startswith(".") and part != ".." for part in path.split("/")):
                continue
            unsafe = not key.startswith(prefix) or not _is_plain(path)
            yield (
                InboxFile(path, int(facts.get("size") or 0), _changed(facts)),
                "points outside the inbox" if unsafe else "",
            )

    def snapshot(self, target: Path, settle: float, now: float, known: Iterable[InboxFile] = ()) -> Snapshot:
        """Copy the files that have settled into `target`, which is emptied first.

        Args:
            target: folder of the copies.
            settle: seconds for which a file must be unchanged.
            now: current time in seconds since 1970.
            known: files of earlier snapshots that are still in the inbox; they are skipped.

        Raises:
            DataError: the inbox cannot be listed or read, or the disk is full.
        """
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        files, refused = self.entries()
        skipped = set(known)
        new = [file for file in files if file not in skipped]
        settled = [file for file in new if now - file.changed >= settle]
        copied: list[InboxFile] = []
        waiting = [file for file in new if now - file.changed < settle]
        for file in settled:
            (copied if self._copy(file, target / file.path) else waiting).append(file)
        return Snapshot(copied, waiting, refused)

    def _copy(self, entry: InboxFile, target: Path) -> bool:
        """Copy a file; return False, without a copy, if it changed meanwhile."""
        target.parent.mkdir(parents=True, exist_ok=True)
        source = self._full(entry.path)
        try:
            self.fs.get_file(source, str(target))
            facts = self.fs.info(source)
        except FileNotFoundError:
            # removed since the inbox was listed
            target.unlink(missing_ok=True)
            return False
        except OSError as error:
            raise DataError(
                f"{self.address}/{entry.path}: cannot be copied ({error.strerror or error})",
                "give this user the right to read it, or free disk space, then run again",
            ) from error
        same = target.stat().st_size == entry.size and _changed(facts) == entry.changed
        if not same:
            target.unlink()
        return same

    def remove(self, paths: Iterable[str], batch: str, how: str) -> None:
        """Move files to .taken/<batch>/ in the inbox, or delete them; missing files are skipped.

        Args:
            paths: relative to the inbox.
            batch: name of the batch that the files belong to.
            how: "move", "delete" or "keep".
        """
        for path in paths if how != "keep" else ():
            source = self._full(path)
            if not self.fs.exists(source):
                continue
            if how == "delete":
                self.fs.rm_file(source)
                continue
            target = self._full(f"{TAKEN}/{batch}/{path}")
            self.fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            self.fs.mv(source, target)

    def _full(self, path: str) -> str:
        return f"{self.root.rstrip('/')}/{path}"


def _is_plain(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return (
        bool(parts)
        and ".." not in parts
        and not path.startswith("/")
        and path.isprintable()
        and "\\" not in path
    )


def _changed(facts: dict[str, Any]) -> float:
    """Time of the last change in seconds since 1970, whose key depends on the file system; 0 if unknown."""
    for name in ("mtime", "LastModified", "last_modified", "updated", "modified", "created"):
        value = facts.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, (int, float)):
            return float(value)
    return 0.0
