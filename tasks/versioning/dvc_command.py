"""Running DVC as a subprocess, and the reason in what it prints."""

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from segcore.errors import SegflowError, StageError
from tasks.failures import sentence_in
from tasks.supervisor import run_in_group

_LINES = 5


def run_dvc(
    arguments: list[str],
    env: Mapping[str, str] | None = None,
    live: Callable[[str], object] | None = None,
) -> tuple[int, str, str]:
    """Run dvc.

    Args:
        arguments: such as `["push", "--run-cache"]`.
        env: environment variables of DVC and its stages, in addition to those of this process.
        live: receives standard error as it is written.

    Returns:
        Exit status, standard output, and the last part of both outputs.
    """
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
    return run_in_group(command, _environment(env), live)


def answer_of(module: str, *arguments: str) -> dict[str, Any]:
    """Run a module that uses DVC's library in a subprocess; its answer is the last line that it prints, as JSON.

    Raises:
        StageError: it failed; `{"error": [what, remedy]}` is raised as well.
    """
    status, output, tail = run_in_group([sys.executable, "-m", module, *arguments], _environment())
    if status != 0:
        sentence = sentence_in(tail)
        what, remedy = sentence or (reason(tail), "correct the cause above and run again")
        raise StageError(f"DVC failed: {what}", remedy)
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    if "error" in answer:
        raise StageError(*answer["error"])
    if "failed" in answer:
        raise StageError(f"{answer['failed']}: {reason(tail.rpartition(chr(10) + '{')[0])}", answer["remedy"])
    return answer


def print_answer(work: Callable[[], dict[str, Any]]) -> None:
    """Print the result of `work`, or its error, as JSON for `answer_of`; called in the subprocess."""
    from dvc.exceptions import DvcException

    try:
        answer = work()
    except SegflowError as error:
        answer = {"error": [error.what, error.remedy]}
    except (DvcException, OSError) as error:
        answer = {"error": [f"DVC: {error}", "correct the cause above and run again"]}
    print(json.dumps(answer))


def reason(output: str) -> str:
    """What DVC gives as errors in its output: no traceback, no advice of DVC."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", output)
    errors = [
        line.removeprefix("ERROR: ").strip() for line in text.splitlines() if line.startswith("ERROR: ")
    ]
    if errors:
        return "; ".join(dict.fromkeys(errors[-_LINES:]))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any(line.startswith("Traceback") for line in lines):
        # the exception
        return lines[-1]
    return "; ".join(lines[-_LINES:])


def _environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    # `python` in a stage's command is this interpreter
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    # without DVC_NO_ANALYTICS, DVC starts a process that sends usage data
    environment = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "true", **(env or {})}
    environment.pop("DVC_STAGE", None)
    return environment
