"""A damaged file, a failing disk or a bad environment ends a command in one sentence, or does not stop it."""

import os
import re
import resource
import signal
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.support import retraining, workspaces
from tests.support.serving import wait_for
from tests.system.bad_inputs import unprivileged
from tests.system.damage.damages import COMMANDS, DAMAGES, PYTHON, UNTIL, Damage
from tests.system.damage.environments import ENVIRONMENTS, can_mount, command_line

LIMIT_SECONDS = 180
# one damage of each kind, with commands that fail early; `make test` tries these, `make test-all` one command for each
# damage, `make test-damage` every command
SHORT = (
    *("mlflow zeroed", "mlflow empty", "prefect zeroed", "decision cut", "git damaged", "bad cron"),
    *("model.json list", "data behind a link", "output closed", "no programs"),
)
ALL = DAMAGES | ENVIRONMENTS
EVERY = os.environ.get("SEGFLOW_DAMAGES") == "all"
SECRET = "S3cretPw"


@pytest.fixture
def project(tmp_path: Path, after_first_round: Path) -> Path:
    """A project after its first round, of one test alone."""
    return retraining.copy(after_first_round, tmp_path / "project")


def run(folder: Path, command: str, damage: Damage, server: str) -> tuple[int, str]:
    """(exit status, output) of a command; one that runs until it is ended is ended when it is ready."""
    own = {} if damage.own_server else {"PREFECT_API_URL": server}
    # beside the folder, whose disk may be full
    log = folder.with_name("command.log")
    with log.open("w") as stream:
        process = subprocess.Popen(
            command_line([*PYTHON, *COMMANDS[command]], damage.mount),
            cwd=folder,
            env=workspaces.environment(folder, **{**own, **damage.variables}),
            stdout=cut_pipe() if damage.is_output_cut else stream,
            stderr=stream,
            start_new_session=True,
            preexec_fn=limits(damage),
        )
    try:
        if command in UNTIL:
            wait_for(lambda: process.poll() is not None or UNTIL[command] in log.read_text(), LIMIT_SECONDS)
            if process.poll() is None:
                process.terminate()
                process.wait(30)
                return 0, log.read_text()
        return process.wait(LIMIT_SECONDS), log.read_text(errors="replace")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def cut_pipe() -> int:
    """A pipe that nothing reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def limits(damage: Damage) -> Callable[[], None] | None:
    """Limits that a command sets itself before it starts."""
    if damage.largest_file is not None:
        size = damage.largest_file
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return unprivileged.drop if damage.unprivileged else None


def check(folder: Path, command: str, name: str, server: str) -> None:
    damage = ALL[name]
    if damage.mount and not can_mount():
        pytest.skip("this user cannot mount disks")
    damage.harm(folder)
    holding: Any = damage.holds(folder) if damage.holds else nullcontext()
    with holding:
        status, output = run(folder, command, damage, server)
    assert "Traceback" not in output and SECRET not in output, output
    assert status in (0, 1), output
    if status == 1:
        errors = re.findall(r"^Error: (.*?)\n  Remedy: (.+)$", output, re.MULTILINE | re.DOTALL)
        assert len(errors) == 1, output
        assert any(part in errors[0][0] for part in damage.names), output


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SHORT else pytest.mark.slow) for name in ALL]
)
def test_a_damaged_file_ends_the_command_that_needs_it_in_one_sentence(
    project: Path, server: str, name: str
) -> None:
    check(project, ALL[name].first, name, server)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ALL if EVERY else [])
def test_no_command_ends_with_a_traceback_whatever_is_damaged(
    project: Path, server: str, name: str, command: str
) -> None:
    check(project, command, name, server)
