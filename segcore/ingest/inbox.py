"""The inbox: new files are copied out of a folder or an fsspec address only once nobody is writing them any more.

A snapshot is consistent: a file that changed less than `settle` seconds ago, or while it was copied, is left for the
next time. Nothing in the inbox is changed by it.
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

TAKEN = ".taken"  # where accepted files are moved; hidden, so that no pattern finds them


class InboxFile(NamedTuple):
    """A file of the inbox: its path within it, bytes, and when it changed (seconds since 1970, 0 where unknown)."""

    path: str
    size: int
    changed: float


class Snapshot(NamedTuple):
    """What was copied, what has not settled, and what may not be taken, with the reason."""

    taken: list[InboxFile]
    waiting: list[InboxFile]
    refused: list[tuple[str, str]]


class Inbox:
    """A folder or an address such as s3://bucket/inbox.

    Raises:
        DataError: the address cannot be understood or reached.
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
        """All files but hidden ones, in the order of their paths; and those that may not be taken, with the reason.

        Raises:
            DataError: the inbox cannot be listed.
        """
        try:
            found = list(self._walk_folder() if self.local else self._walk_store())
        except Exception as error:  # each file system has errors of its own
            raise DataError(
                f"{self.address}: the inbox cannot be listed ({type(error).__name__}: {error})",
                "check the address, the network and the credentials in the environment, then run again",
            ) from error
        good = sorted(entry for entry, reason in found if not reason)
        return good, sorted((entry.path, reason) for entry, reason in found if reason)

    def _walk_folder(self) -> Iterator[tuple[InboxFile, str]]:
        """Links are refused, wherever they lead: what they point to can change behind the snapshot's back."""
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
                "leads out of the inbox" if unsafe else "",
            )

    def snapshot(self, target: Path, settle: float, now: float, known: Iterable[InboxFile] = ()) -> Snapshot:
        """Copy what has settled into `target`, which is emptied first.

        Args:
            settle: seconds that a file must not have changed.
            now: seconds since 1970.
            known: entries that were taken before and have stayed; they are passed over.

        Raises:
            DataError: the inbox cannot be listed or read, or the disk is full.
        """
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        entries, refused = self.entries()
        before = set(known)
        fresh = [entry for entry in entries if entry not in before]
        settled = [entry for entry in fresh if now - entry.changed >= settle]
        taken: list[InboxFile] = []
        waiting = [entry for entry in fresh if now - entry.changed < settle]
        for entry in settled:
            (taken if self._copy(entry, target / entry.path) else waiting).append(entry)
        return Snapshot(taken, waiting, refused)

    def _copy(self, entry: InboxFile, target: Path) -> bool:
        """Whether the file was the same before and after it was copied."""
        target.parent.mkdir(parents=True, exist_ok=True)
        source = self._full(entry.path)
        try:
            self.fs.get_file(source, str(target))
            facts = self.fs.info(source)
        except FileNotFoundError:  # taken away meanwhile
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
        """Move files to .taken/<batch>/ of the inbox, or delete them; those that are gone already are passed over.

        Args:
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
    """When a file changed by what its file system says, whatever that calls it."""
    for name in ("mtime", "LastModified", "last_modified", "updated", "modified", "created"):
        value = facts.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, (int, float)):
            return float(value)
    return 0.0
