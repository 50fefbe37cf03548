"""What a kill can leave of DVC's files: it writes dvc.lock and its list of running processes in place.

Cut short by kill -9 or a power failure, either stops DVC altogether. Nothing is lost with what is taken away here:
results come back out of DVC's run cache, and the list is of processes that have ended.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from segcore.files import atomic_write
from tasks import console

_LOCK = Path("dvc.lock")
_HEADER = "schema: '2.0'\nstages:\n"
_ENTRY = re.compile(r"^ {2}\S.*:$", re.MULTILINE)  # where the record of a stage begins


def mend(repo: Any) -> list[str]:
    """Cut half a record off the end of dvc.lock, and remove an unreadable list of running processes.

    A dvc.lock that is wrong elsewhere is not a kill's doing; it stays, for DVC to complain of.

    Args:
        repo: DVC's, of the current folder.

    Returns:
        What was done, a sentence each.
    """
    from dvc.lock import make_lock
    from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK

    with repo.lock:
        done = _mend_lock()
    folder = Path(repo.tmp_dir)
    hardlink = repo.config["core"].get("hardlink_lock", False)
    with make_lock(str(folder / RWLOCK_LOCK), tmp_dir=str(folder), hardlink_lock=hardlink, wait=True):
        return done + _mend_processes(folder / RWLOCK_FILE)


def _mend_lock() -> list[str]:
    if not _LOCK.exists():
        return []
    text = _LOCK.read_text(encoding="utf-8", errors="replace")
    if _is_sound(text) or "\n<<<<<<< " in text:  # git's mark of a conflict
        return []
    text = text.rstrip("\0")  # a power failure can leave zeros where nothing was written yet
    begins = [found.start() for found in _ENTRY.finditer(text)]
    if len(begins) > 1 and _is_sound(text[: begins[-1]]):
        with atomic_write(_LOCK) as temporary:
            temporary.write_text(text[: begins[-1]], encoding="utf-8")
        return [f"{_LOCK} ended amid a stage's record, by a kill: the {len(begins) - 1} before it are kept"]
    if len(begins) > 1 or not (text.startswith(_HEADER) or _HEADER.startswith(text)):
        return []
    _LOCK.unlink()
    return [f"{_LOCK} held no stage's record, by a kill: removed, results come back out of DVC's cache"]


def _is_sound(text: str) -> bool:
    from dvc.dvcfile import Lockfile
    from dvc.exceptions import DvcException
    from dvc.utils.serialize import parse_yaml

    if not text.endswith("\n"):  # half a value can be valid and yet stop DVC, as `hash: m` does
        return False
    try:
        Lockfile.validate(parse_yaml(text, str(_LOCK)), str(_LOCK))
    except DvcException:
        return False
    return True


def _mend_processes(path: Path) -> list[str]:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except ValueError:
        path.unlink()
        return [f"{path.name}, DVC's list of running processes, was cut short by a kill: removed"]
    return []


def _print_here(_: argparse.Namespace) -> None:
    from dvc.repo import Repo

    with Repo(_wait_for_lock=True) as repo:
        for sentence in mend(repo):
            print(sentence)


def main() -> None:
    """Command line."""
    console.run(
        _print_here,
        argparse.ArgumentParser(prog="python -m tasks.versioning.lock_repair", description=__doc__),
    )


if __name__ == "__main__":
    main()
