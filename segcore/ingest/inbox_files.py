"""The files of an inbox, and since when each has been unchanged.

Names only: no file is opened. Files that cannot be used are listed with the reason, and do not hold up the others.
"""

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from segcore.errors import DataError
from segcore.ingest.inbox_address import limited
from segcore.io import images
from segcore.io.images._checks import check_is_file
from segcore.io.layouts._names import is_junk, is_side_file, printable

# Protocols of stores without folders: all keys below a prefix are listed by one call.
_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "memory")
_TIMES = (
    *("mtime", "LastModified", "last_modified", "updated", "modified", "modify", "Last-Modified"),
    *("last_write_time", "modificationTime", "created"),
)
_COPY = "copy the file itself into the inbox"
_PERMISSION = "give this user the right to read it"


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


class Refusal(NamedTuple):
    """A path of the inbox that cannot be used, with a key of problems.KINDS, the reason and the remedy."""

    path: str
    kind: str
    reason: str
    remedy: str


class Found(NamedTuple):
    """One path: a file with the time of its last change by this machine's clock (None: unknown), or a refusal."""

    file: InboxFile
    inode_changed: float | None = None
    refusal: Refusal | None = None
    hidden: bool = False


def walk_folder(root: Path) -> Iterator[Found]:
    """Files of a local folder. Links are refused wherever they point: their target could change unnoticed.

    Raises:
        OSError: the folder itself cannot be listed.
    """
    yield from _walk_local(root, "")


def _walk_local(root: Path, relative: str) -> Iterator[Found]:
    try:
        with os.scandir(root / relative) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if not relative:
            raise
        remedy = "give read permission: chmod u+rx on it"
        yield _refused(relative, "no-permission", f"cannot be listed ({error.strerror})", remedy)
        return
    for entry in listed:
        path = f"{relative}/{entry.name}" if relative else entry.name
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            # removed since the folder was listed
            continue
        except OSError as error:
            yield _refused(path, "no-permission", f"cannot be read ({error.strerror})", _PERMISSION)
            continue
        if stat.S_ISDIR(status.st_mode) and not _is_named_as_image(entry.name):
            if not entry.name.startswith("."):
                yield from _walk_local(root, path)
            continue
        found = Found(InboxFile(path, status.st_size, status.st_mtime), status.st_ctime)
        yield from _judged(found, entry.name, status)


def _judged(found: Found, name: str, status: os.stat_result) -> Iterator[Found]:
    path = found.file.path
    if name.startswith("."):
        if _is_named_as_image(name) and not name.startswith("._"):
            yield found._replace(hidden=True)
        return
    if stat.S_ISLNK(status.st_mode):
        yield _refused(path, "outside", "is a symbolic link", _COPY)
        return
    try:
        check_is_file(Path(path), status)
    except DataError as error:
        yield _refused(path, error.kind, error.what.partition(": ")[2], "rename or remove it")
        return
    yield _unless_bad_name(found)


def walk_remote(fs: Any, root: str, address: str) -> Iterator[Found]:
    """Files of a remote file system.

    Raises:
        Exception: of the file system, where the inbox itself cannot be listed.
    """
    protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
    prefix = root.rstrip("/") + "/"
    entries = limited(lambda: _keys(fs, root, protocol), address)
    for key, facts in sorted(entries.items()):
        path = key.removeprefix(prefix).rstrip("/")
        if isinstance(facts, Exception):
            yield _refused(
                path, "no-permission", f"cannot be listed ({facts or type(facts).__name__})", _PERMISSION
            )
            continue
        parts = PurePosixPath(path).parts
        if key.endswith("/") or any(part.startswith(".") and part != ".." for part in parts[:-1]):
            continue
        file = InboxFile(path, int(facts.get("size") or 0), changed_time(facts))
        if parts and parts[-1].startswith("."):
            if _is_named_as_image(parts[-1]) and not parts[-1].startswith("._"):
                yield Found(file, hidden=True)
            continue
        folder = next((str(p) for p in PurePosixPath(path).parents if _is_named_as_image(p.name)), "")
        if folder:
            yield _refused(folder, "unreadable", "is a folder, not a file", "rename or remove it")
        elif not key.startswith(prefix) or not _is_inside(path):
            yield _refused(path, "outside", "points outside the inbox", _COPY)
        else:
            yield _unless_bad_name(Found(file))


def _keys(fs: Any, root: str, protocol: str) -> dict[str, Any]:
    """Facts of each file by its key; for a folder that cannot be listed, the exception."""
    if protocol in _STORES:
        found: dict[str, Any] = fs.find(root, detail=True)
        return found
    keys: dict[str, Any] = {}
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            entries = fs.ls(folder, detail=True)
        except Exception as error:
            # each file system raises errors of its own
            if folder == root:
                raise
            keys[folder] = error
            continue
        for facts in entries:
            name = str(facts["name"])
            below = name.rstrip("/").removeprefix(folder.rstrip("/") + "/")
            if "/" in below or "?" in below or not below:
                # links of a web page that lead elsewhere
                continue
            if facts["type"] == "directory":
                folders += [] if below.startswith(".") else [name]
            else:
                keys[name] = facts if facts.get("size") is not None else fs.info(name)
    return keys


def _refused(path: str, kind: str, reason: str, remedy: str) -> Found:
    shown = printable(path)
    return Found(InboxFile(path, 0, 0), refusal=Refusal(path, kind, f"{shown}: {reason}", remedy))


def _unless_bad_name(found: Found) -> Found:
    path = found.file.path
    if printable(path) != path:
        what = "its name contains control or undecodable characters"
        return _refused(path, "bad-name", what, "rename it")
    return found


def _is_named_as_image(name: str) -> bool:
    """Whether a name has the extension of an image; a folder with a DICOM series may be named as its slices are."""
    return name.lower().endswith(tuple(e for e in images.extensions() if e != ".dcm"))


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and ".." not in parts and not path.startswith("/") and "\\" not in path


def is_ignored(path: str) -> bool:
    """Whether a file is one of the operating system's or metadata, which is left out of every message."""
    name = PurePosixPath(path).name
    # The code page of a shapefile is part of it.
    return is_junk(name) and not is_side_file(name) and not name.lower().endswith(".cpg")


def changed_time(facts: dict[str, Any]) -> float:
    """Time of the last change in seconds since 1970, whose key depends on the file system; 0 if unknown."""
    for name in _TIMES:
        value = facts.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, (int, float)):
            return float(value) / (1000 if name == "modificationTime" else 1)
        if isinstance(value, str):
            return _parsed(value)
    return 0.0


def _parsed(text: str) -> float:
    """Time of an FTP listing, 20260228174500.123 in UTC, or of an HTTP header; 0 if it is neither."""
    try:
        if text[:14].isdecimal():
            return datetime.strptime(text[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return 0.0
