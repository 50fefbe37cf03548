"""What begins while Prefect is still being imported, or its server starts: DVC's survey, and the warm process.

Only the standard library and light modules of this project at the top: this is imported before prefect.
"""

import os
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from tasks.forkserver import client
from tasks.supervisor import beside
from tasks.versioning.status import Survey, survey

# What a survey is of. Code and data that are saved in these seconds count in the next run, as they do during a flow.
_FILES = ("params.yaml", "dvc.yaml", "dvc.lock")
_Stamps = tuple[tuple[int, int] | None, ...]
_asked: list[tuple[_Stamps, Future[Survey]]] = []
_warm = ExitStack()
_variables: dict[str, str] = {}


def begin() -> None:
    """Ask DVC what there is to do, unless an argument may change the project first."""
    if len(sys.argv) == 1 and Path(".dvc").is_dir():
        found: Future[Survey] = Future()
        _asked.append((_stamps(), found))
        # a daemon, which Ctrl-C need not wait for; what it has started ends with this process
        threading.Thread(target=_ask, args=(found,), daemon=True).start()


def _ask(found: Future[Survey]) -> None:
    try:
        found.set_result(survey())
    except Exception as error:  # noqa: BLE001  (kept in `found`)
        found.set_exception(error)


def _stamps() -> _Stamps:
    paths = map(Path, _FILES)
    stats = [path.stat() if path.exists() else None for path in paths]
    return tuple(stat and (stat.st_mtime_ns, stat.st_size) for stat in stats)


def warm_up_if_needed(environment: Mapping[str, str]) -> None:
    """Start the warm process, where the survey that was begun says that something will run; `warm_up` says how."""
    begun = _begun()
    if begun is not None and not begun.nothing_to_do:
        warm_up(environment)


def take_survey() -> Survey:
    """The survey that was begun, once; or a new one, where there is none or its files were saved anew since.

    Raises:
        StageError: DVC cannot tell.
    """
    begun = _begun()
    _asked.clear()
    return begun or survey()


def _begun() -> Survey | None:
    """The survey that was begun; None where none was, or DVC could not tell, as before the folder is made DVC's."""
    if not _asked:
        return None
    stamps, found = _asked[0]
    return found.result() if found.exception() is None and stamps == _stamps() else None


def warm_up(environment: Mapping[str, str]) -> None:
    """Start the process from which stages are forked (tasks/forkserver/server.py), if it does not run yet.

    Args:
        environment: variables that it sees besides this process's.
    """
    if _variables or sys.platform != "linux":
        return
    folder = _warm.enter_context(TemporaryDirectory(prefix="segflow-"))
    address = str(Path(folder) / "warm")
    command = [sys.executable, "-m", "tasks.forkserver.server", address]
    _warm.enter_context(beside(command, {**os.environ, **environment}))
    _variables[client.VARIABLE] = address


def variables() -> dict[str, str]:
    """Environment by which a stage finds the warm process; empty where there is none."""
    return dict(_variables)


def cool_down() -> None:
    """End the warm process and what was forked from it."""
    _variables.clear()
    _warm.close()
