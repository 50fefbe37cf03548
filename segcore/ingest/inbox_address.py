"""Access to the address of an inbox: a folder, or a remote file system.

An inbox that is missing is an error and not an empty inbox: a share that is not mounted leaves an empty mount point,
and a server that refuses looks like one without files.
"""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from segcore.errors import DataError
from segcore.files import atomic_write

T = TypeVar("T")
# seconds after which a server that does not answer counts as unreachable
_CONNECT, _READ, _LISTING = 30, 60, 600
_CHECK = "check the address, the network and the credentials in the environment, then run again"


def open_address(address: str) -> tuple[Any, str, bool]:
    """File system of an address, root of the inbox in it, and whether it is a local folder.

    Raises:
        DataError: the address is not valid, needs a package that is not installed, or the server refuses or is silent.
    """

    def connect() -> tuple[Any, str]:
        # A cached instance would keep its listing, and a connection that the server has closed meanwhile.
        fs, root = fsspec.core.url_to_fs(address, **_options(address))
        return fs, root

    try:
        fs, root = limited(connect, address)
    except (ImportError, ValueError) as error:
        raise DataError(
            f"{address}: cannot be used as an inbox ({error})",
            "install the package it names, or correct retrain.inbox in params.yaml",
        ) from error
    # each file system raises errors of its own
    except Exception as error:
        raise unreachable(address, error) from error
    return fs, root, isinstance(fs, LocalFileSystem)


def unreachable(address: str, error: Exception) -> DataError:
    """The error for an inbox that cannot be listed."""
    if isinstance(error, DataError):
        return error
    reason = f"{type(error).__name__}: {error}".strip(": ")
    remedy = "give this user the right to list and read it, then run again"
    return DataError(
        f"{address}: the inbox cannot be reached ({reason})",
        remedy if isinstance(error, PermissionError) else _CHECK,
    )


def limited(function: Callable[[], T], address: str, seconds: float = _LISTING) -> T:
    """Result of a function that may wait for a server.

    Raises:
        DataError: it took longer than the limit.
        Exception: that of the function.
    """
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(function())
        # raised again in the thread of the caller
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise DataError(f"{address}: the inbox did not answer within {seconds:g} s", _CHECK)
    return results[0]


def _options(address: str) -> dict[str, Any]:
    """Options of the file system, with time limits for those whose own are missing or several minutes."""
    options: dict[str, Any] = {"skip_instance_cache": True}
    protocol = address.partition("://")[0].lower()
    if protocol in ("http", "https"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_READ)
        options["client_kwargs"] = {"timeout": timeout}
    elif protocol in ("s3", "s3a"):
        retries = {"max_attempts": 2}
        options["config_kwargs"] = {"connect_timeout": _CONNECT, "read_timeout": _READ, "retries": retries}
    elif protocol in ("sftp", "ssh"):
        options |= {"timeout": _CONNECT, "banner_timeout": _CONNECT, "auth_timeout": _CONNECT}
    return options


def check_folder(address: str, root: Path, record: Path | None, change: bool) -> bool:
    """Check that a local inbox is there and is the one of earlier calls; False if it has yet to be created.

    An inbox inside the project is created on first use only. The record keeps the mount point of the inbox, because the
    mount point of a share that is not mounted is an empty folder.

    Args:
        address: of the inbox, as in params.yaml.
        root: its folder.
        record: JSON file on earlier calls; None: none is kept.
        change: whether folder and record may be written.

    Raises:
        DataError: the folder is missing, is not a folder, or is on another mount point than before.
    """
    facts = _read(record)
    before = facts if facts.get("folder") == str(root) else {}
    try:
        exists = os.path.lexists(root)
        if not exists and not before and root.is_relative_to(Path.cwd()):
            if not change:
                return False
            root.mkdir(parents=True)
            exists = True
    except OSError as error:
        raise unreachable(address, error) from error
    if not exists:
        where = f", and was on the mount point {before['mount']} before" if before else ""
        raise DataError(
            f"{address}: the inbox does not exist{where}",
            f"mount its share, or create the folder: mkdir -p {root}",
        )
    if not root.is_dir():
        what = "is a link to a folder that does not exist" if root.is_symlink() else "is not a folder"
        raise DataError(
            f"{address}: the inbox {what}", "mount its share, or correct retrain.inbox in params.yaml"
        )
    mount = _mount_point(root)
    if before and before["mount"] != mount:
        raise DataError(
            f"{address}: the inbox was on the mount point {before['mount']} before, and is on {mount} now",
            f"mount {before['mount']}; or remove {record} if the inbox was moved on purpose",
        )
    if not before and record is not None and change:
        with atomic_write(record) as part:
            part.write_text(json.dumps({"folder": str(root), "mount": mount}) + "\n")
    return True


def _mount_point(folder: Path) -> str:
    real = folder.resolve()
    return str(next(path for path in (real, *real.parents) if os.path.ismount(path)))


def _read(record: Path | None) -> dict[str, str]:
    if record is None or not record.exists():
        return {}
    try:
        facts: dict[str, str] = json.loads(record.read_text(encoding="utf-8"))
        return {"folder": facts["folder"], "mount": facts["mount"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{record}: the record of the inbox cannot be read ({error})", "remove it, then run again"
        ) from error
