"""What begins while Prefect is still being imported, or its server starts: DVC's survey, and the warm process.

Only the standard library and light modules of this project at the top: this is imported before prefect.
"""

import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from tasks import warm
from tasks.processes import beside
from tasks.versioning_survey import Survey, survey

_asked: list[Future[Survey]] = []
_warm = ExitStack()
_variables: dict[str, str] = {}


def begin() -> None:
    """Ask DVC what there is to do, unless an argument may change the project first."""
    if len(sys.argv) == 1 and Path(".dvc").is_dir():
        _asked.append(ThreadPoolExecutor(1).submit(survey))


def warm_up_if_needed() -> None:
    """Start the warm process, where the survey that was begun says that something will run."""
    begun = _begun()
    if begun is not None and not begun.nothing_to_do:
        warm_up()


def take_survey() -> Survey:
    """The survey that was begun, once; or a new one.

    Raises:
        StageError: DVC cannot tell.
    """
    begun = _begun()
    _asked.clear()
    return begun or survey()


def _begun() -> Survey | None:
    """The survey that was begun; None where none was, or DVC could not tell, as before the folder is made DVC's."""
    return _asked[0].result() if _asked and _asked[0].exception() is None else None


def warm_up() -> None:
    """Start the process from which stages are forked (tasks/warm.py), if it does not run yet."""
    if _variables or sys.platform != "linux":
        return
    folder = _warm.enter_context(TemporaryDirectory(prefix="segflow-"))
    address = str(Path(folder) / "warm")
    _warm.enter_context(beside([sys.executable, "-m", "tasks.warm", address]))
    _variables[warm.VARIABLE] = address


def variables() -> dict[str, str]:
    """Environment by which a stage finds the warm process; empty where there is none."""
    return dict(_variables)


def cool_down() -> None:
    """End the warm process and what was forked from it."""
    _variables.clear()
    _warm.close()
