"""Repair of DVC's files after a kill.

DVC writes dvc.lock and its list of running processes in place. If kill -9 or a power failure truncates one of them,
every DVC command fails. A copy of dvc.lock is saved after each stage and replaces a file that cannot be parsed; DVC
restores results that are missing from the copy from its run cache.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from segcore.files import atomic_write
from tasks import console
from tasks.links import require_folders
from tasks.project import DVC_LOCK, LOCK_COPY


def keep_copy() -> None:
    """Copy dvc.lock to work/; the caller must hold DVC's lock, else the copy may be incomplete."""
    if DVC_LOCK.exists() and not _same_bytes():
        with atomic_write(LOCK_COPY) as temporary:
            temporary.write_bytes(DVC_LOCK.read_bytes())


def repair(repo: Any) -> list[str]:
    """Replace a dvc.lock that cannot be parsed by its copy, and remove an unreadable list of running processes.

    A dvc.lock with merge conflicts is not changed: DVC reports it, and the user resolves it.

    Args:
        repo: dvc.repo.Repo of the current folder.

    Returns:
        One sentence per repair.
    """
    from dvc.lock import make_lock
    from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK

    with repo.lock:
        repairs = _repair_lock()
    folder = Path(repo.tmp_dir)
    hardlink = repo.config["core"].get("hardlink_lock", False)
    with make_lock(str(folder / RWLOCK_LOCK), tmp_dir=str(folder), hardlink_lock=hardlink, wait=True):
        return repairs + _repair_processes(folder / RWLOCK_FILE)


def _repair_lock() -> list[str]:
    if not DVC_LOCK.exists():
        return []
    text = DVC_LOCK.read_text(encoding="utf-8", errors="replace")
    copy = LOCK_COPY.read_text(encoding="utf-8", errors="replace") if LOCK_COPY.exists() else ""
    # a file that was cut at the end of a line can be valid, but is the beginning of its copy
    if _is_valid(text) and not (text != copy and copy.startswith(text)):
        keep_copy()
        return []
    if "\n<<<<<<< " in text:
        return []
    if not _is_valid(copy):
        DVC_LOCK.unlink()
        return [f"{DVC_LOCK} was truncated by a kill: removed; DVC restores results from its cache"]
    with atomic_write(DVC_LOCK) as temporary:
        temporary.write_bytes(LOCK_COPY.read_bytes())
    return [f"{DVC_LOCK} was truncated by a kill: replaced by its last valid copy, {LOCK_COPY}"]


def _same_bytes() -> bool:
    return LOCK_COPY.exists() and LOCK_COPY.read_bytes() == DVC_LOCK.read_bytes()


def _is_valid(text: str) -> bool:
    from dvc.dvcfile import Lockfile
    from dvc.exceptions import DvcException
    from dvc.utils.serialize import parse_yaml

    # a truncated value can be valid YAML that DVC does not accept, such as `hash: m`
    if not text.endswith("\n"):
        return False
    try:
        Lockfile.validate(parse_yaml(text, str(DVC_LOCK)), str(DVC_LOCK))
    except DvcException:
        return False
    return True


def _repair_processes(path: Path) -> list[str]:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except ValueError:
        path.unlink()
        return [f"{path.name}, DVC's list of running processes, was truncated by a kill: removed"]
    return []


def _repair_here(_: argparse.Namespace) -> None:
    from dvc.repo import Repo

    require_folders()
    with Repo(_wait_for_lock=True) as repo:
        for sentence in repair(repo):
            print(sentence)


def main() -> None:
    """Command line."""
    console.run(
        _repair_here,
        argparse.ArgumentParser(prog="python -m tasks.versioning.lock_repair", description=__doc__),
    )


if __name__ == "__main__":
    main()
