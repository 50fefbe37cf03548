"""The inbox: a folder or fsspec address from which new files are copied once they are complete.

A copy is consistent: a file that changed less than `settle` seconds ago, or while it was copied, waits for the next
call. Copying changes nothing in the inbox.
"""

import errno
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from segcore.errors import DataError
from segcore.files import atomic_write
from segcore.ingest.inbox_address import check_folder, open_address, unreachable
from segcore.ingest.inbox_files import (
    Found,
    InboxFile,
    Refusal,
    changed_time,
    is_ignored,
    walk_folder,
    walk_remote,
)
from segcore.io.layouts._names import printable

# folder in the inbox that accepted files are moved to; hidden, so that no pattern matches it
TAKEN = ".taken"
_FULL = (errno.ENOSPC, errno.EDQUOT)
# the connection or the share is gone, not a single file
_GONE = (
    *(errno.ENOTCONN, errno.ESTALE, errno.ENODEV, errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
)


class Listing(NamedTuple):
    """Content of an inbox.

    Attributes:
        unchanged_since: seconds since 1970, by file in the order of paths; by this machine's clock.
        refused: paths that cannot be used.
        hidden: hidden files with the extension of an image, which are ignored.
        future: files whose time of last change is later than now.
    """

    unchanged_since: dict[InboxFile, float]
    refused: list[Refusal]
    hidden: list[str]
    future: list[str]


class Inbox:
    """Access to an inbox.

    Args:
        address: a folder, or an fsspec address such as s3://bucket/inbox.
        records: folder of what is remembered between calls: the mount point of the inbox, and when files whose time of
            last change is unusable were first seen. None: nothing is remembered.
        change: whether the inbox may be created and records written.

    Raises:
        DataError: the address is not valid, cannot be reached, or is on another mount point than before.
    """

    def __init__(self, address: str, records: Path | None = None, change: bool = True) -> None:
        self.address, self.change = address, change
        self._seen_file = records / "seen.json" if records else None
        self.fs, self.root, self.local = open_address(address)
        self.exists = True
        if self.local:
            place = records / "inbox.json" if records else None
            self.exists = check_folder(address, Path(self.root), place, change)

    def listing(self, now: float | None = None) -> Listing:
        """All files, and the paths that cannot be used.

        Args:
            now: seconds since 1970; None: the current time.

        Raises:
            DataError: the inbox cannot be listed.
        """
        now = time.time() if now is None else now
        try:
            found = sorted(self._walk(), key=lambda one: one.file.path)
        # each file system raises errors of its own
        except Exception as error:
            raise unreachable(self.address, error) from error
        usable = [
            one for one in found if not one.refusal and not one.hidden and not is_ignored(one.file.path)
        ]
        return Listing(
            self._unchanged_since(usable, now),
            [one.refusal for one in found if one.refusal],
            [printable(one.file.path) for one in found if one.hidden],
            [one.file.path for one in usable if one.file.changed > now],
        )

    def settled(self, settle: float, now: float | None = None) -> set[InboxFile]:
        """Files that have been unchanged for `settle` seconds.

        Raises:
            DataError: the inbox cannot be listed.
        """
        now = time.time() if now is None else now
        since = self.listing(now).unchanged_since
        return {file for file, moment in since.items() if now - moment >= settle}

    def _walk(self) -> Iterable[Found]:
        if not self.exists:
            return []
        return walk_folder(Path(self.root)) if self.local else walk_remote(self.fs, self.root, self.address)

    def _unchanged_since(self, usable: list[Found], now: float) -> dict[InboxFile, float]:
        """Time since when each file is unchanged; where its own time is unusable, since when it was seen so."""
        seen = self._read_seen()
        since: dict[InboxFile, float] = {}
        first_seen: dict[str, list[Any]] = {}
        for file, inode_changed, *_ in usable:
            if 0 < file.changed <= now:
                since[file] = file.changed
            elif inode_changed is not None and inode_changed <= now:
                # the clock of a camera or of a server is ahead; the inode's time is of this machine
                since[file] = inode_changed
            else:
                *facts, moment = seen.get(file.path, [None])
                moment = moment if facts == [file.size, file.changed] and moment <= now else now
                since[file] = moment
                first_seen[file.path] = [file.size, file.changed, moment]
        if self._seen_file and self.change and first_seen != seen:
            with atomic_write(self._seen_file) as part:
                part.write_text(json.dumps(first_seen))
        return since

    def _read_seen(self) -> dict[str, list[Any]]:
        """(size, time, first seen) by path; empty where the record is damaged, so that the files settle once more."""
        try:
            return dict(json.loads(self._seen_file.read_text())) if self._seen_file else {}
        except (FileNotFoundError, ValueError):
            return {}

    def copy(self, file: InboxFile, target: Path) -> bool:
        """Copy a file; return False, without a copy, if it changed meanwhile or is gone.

        Raises:
            Unreadable: this file cannot be read, or its name is also that of a folder.
            DataError: the disk is full, or the inbox is gone.
        """
        source = self._full(file.path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.fs.get_file(source, str(target))
            # else the time of the listing would be returned again
            self.fs.invalidate_cache()
            facts = self.fs.info(source)
        except FileNotFoundError:
            # removed since the inbox was listed
            target.unlink(missing_ok=True)
            return False
        # each file system raises errors of its own
        except Exception as error:
            if target.is_file():
                target.unlink()
            raise self._copy_error(file, error) from error
        same = target.stat().st_size == file.size and changed_time(facts) == file.changed
        if not same:
            target.unlink()
        return same

    def _copy_error(self, file: InboxFile, error: Exception) -> Exception:
        number, reason = getattr(error, "errno", None), getattr(error, "strerror", None) or str(error)
        if number in _FULL:
            return DataError(
                f"{self.address}/{file.path}: cannot be copied ({reason})", "free disk space, then run again"
            )
        if number in _GONE or isinstance(error, ConnectionError | TimeoutError | EOFError):
            return unreachable(self.address, error)
        kind = "no-permission" if isinstance(error, PermissionError) else "unreadable"
        remedy = (
            "give this user the right to read it"
            if kind == "no-permission"
            else "copy it into the inbox again"
        )
        return Unreadable(Refusal(file.path, kind, f"{file.path}: cannot be read ({reason})", remedy))

    def remove(self, paths: Iterable[str], batch: str, how: str) -> list[str]:
        """Move files to .taken/<batch>/ in the inbox, or delete them; missing files are skipped.

        Args:
            paths: relative to the inbox.
            batch: name of the batch that the files belong to.
            how: "move", "delete" or "keep".

        Returns:
            Reasons why files stay in the inbox, each with the path.
        """
        left = []
        for path in paths if how != "keep" else ():
            try:
                self._remove(path, batch, how)
            # each file system raises errors of its own
            except Exception as error:  # noqa: BLE001
                left.append(f"{path} ({getattr(error, 'strerror', None) or error or type(error).__name__})")
        return left

    def _remove(self, path: str, batch: str, how: str) -> None:
        source = self._full(path)
        if not self.fs.exists(source):
            return
        if how == "delete":
            self.fs.rm_file(source)
            return
        target = self._full(f"{TAKEN}/{batch}/{path}")
        self.fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        self.fs.mv(source, target)

    def _full(self, path: str) -> str:
        return f"{self.root.rstrip('/')}/{path}"


class Unreadable(Exception):
    """A file of the inbox cannot be read.

    Args:
        refusal: path, reason and remedy.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal
