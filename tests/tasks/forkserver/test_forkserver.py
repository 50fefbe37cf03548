"""A stage in a fork of the fork server behaves as in a process of its own: output, exit codes, signals and code."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tasks.forkserver import client
from tests.support import workspaces

ROOT = Path(__file__).parents[3]
TOY = """\
import argparse, os, sys, time
from pathlib import Path
from tasks import console

def work(arguments):
    print("said", arguments.word, os.environ["TOY"], sys.stdin.read())
    print("warned", file=sys.stderr)
    if arguments.word == "fail":
        raise ValueError("told to fail")
    if arguments.word == "code":
        sys.exit(7)
    if arguments.word == "wait":
        Path("pid").write_text(str(os.getpid()))
        try:
            time.sleep(60)
        finally:
            Path("ended").write_text("in order")

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("word")
    console.run(work, parser)

"""


# Starts a fork server and writes to `<address>.json` what preloading did.
OBSERVED_SERVER = """\
import json, sys, threading
from pathlib import Path
import torch
gpu_calls = []
for name in ("is_available", "device_count", "_lazy_init"):
    setattr(torch.cuda, name, lambda *a, name=name, **k: gpu_calls.append(name))
from tasks.forkserver import server
preload = server.preload
def observed_preload():
    preload()
    facts = {"gpu_calls": gpu_calls, "threads": threading.active_count(), "modules": list(sys.modules)}
    Path(f"{sys.argv[1]}.json").write_text(json.dumps(facts))
server.preload = observed_preload
server.main(sys.argv[1:])
"""


def copy_code(folder: Path) -> Path:
    for name in ("tasks", "segcore"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's code, whose report is replaced by a toy after the fork server has loaded it."""
    return copy_code(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def quick_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's code with the toy report and a fork server that preloads nothing."""
    folder = copy_code(tmp_path_factory.mktemp("quick"))
    workspaces.remove_preload(folder)
    (folder / "tasks/report.py").write_text(TOY)
    return folder


@pytest.fixture(scope="module")
def address(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Socket of a fork server that has preloaded everything."""
    address = str(tmp_path_factory.mktemp("socket") / "server")
    process = listening(project, address, "-c", OBSERVED_SERVER)
    try:
        # answered after preloading
        assert run(project, address, "train", "--help")[0] == 0
        (project / "tasks/report.py").write_text(TOY)
        yield address
    finally:
        process.terminate()
        process.wait()


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def listening(project: Path, address: str, *program: str) -> subprocess.Popen[bytes]:
    """A fork server that accepts requests; `program`: Python's options in place of `-m tasks.forkserver.server`."""
    words = program or ("-m", "tasks.forkserver.server")
    process = subprocess.Popen([sys.executable, *words, address], cwd=project)
    wait_for(Path(address).exists)
    return process


def begin(project: Path, address: str, *words: str) -> subprocess.Popen[str]:
    """Start a stage as DVC does."""
    return subprocess.Popen(
        [sys.executable, "-m", "tasks", *words],
        cwd=project,
        env={**os.environ, client.VARIABLE: address, "TOY": "toy"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(project: Path, address: str, *words: str) -> tuple[int, str, str]:
    stage = begin(project, address, *words)
    output, errors = stage.communicate("asked", timeout=60)
    return stage.returncode, output, errors


def waiting(project: Path, address: str) -> tuple[subprocess.Popen[str], psutil.Process]:
    """A stage that waits, and the fork that runs it."""
    for name in ("pid", "ended"):
        (project / name).unlink(missing_ok=True)
    stage = begin(project, address, "report", "wait")
    assert stage.stdin is not None
    stage.stdin.close()
    stage.stdin = None
    wait_for(lambda: (project / "pid").exists() and (project / "pid").read_text() != "")
    return stage, psutil.Process(int((project / "pid").read_text()))


def test_a_fork_gets_arguments_environment_input_and_new_code_and_returns_output_and_exit_code(
    project: Path, address: str
) -> None:
    status, output, errors = run(project, address, "report", "hello")
    assert (status, output, errors) == (0, "said hello toy asked\n", "warned\n")
    assert run(project, address, "report", "code")[0] == 7
    status, _, errors = run(project, address, "report", "fail")
    assert status == 1 and "\nValueError: told to fail\n" in errors
    status, _, errors = run(project, address, "report")
    assert status == 2 and "required: word" in errors


def test_a_stage_runs_in_a_fork_that_has_torch_loaded(project: Path, address: str) -> None:
    stage, work = waiting(project, address)
    assert work.pid != stage.pid
    assert any("libtorch" in mapped.path for mapped in work.memory_maps())
    stage.terminate()
    stage.communicate(timeout=20)


def test_sigterm_to_a_stage_ends_its_fork_cleanly(project: Path, address: str) -> None:
    stage, work = waiting(project, address)
    stage.terminate()
    stage.communicate(timeout=20)
    assert stage.returncode == 128 + signal.SIGTERM and (project / "ended").read_text() == "in order"
    assert not work.is_running()


def test_killing_a_stage_kills_its_fork(project: Path, address: str) -> None:
    stage, work = waiting(project, address)
    stage.kill()
    stage.communicate(timeout=20)
    wait_for(lambda: not work.is_running() or work.status() == psutil.STATUS_ZOMBIE, 10)
    assert not (project / "ended").exists()
    assert run(project, address, "report", "hello")[0] == 0, "the fork server goes on"


def test_killing_the_fork_server_fails_its_stages_and_ends_its_forks(
    quick_project: Path, tmp_path: Path
) -> None:
    project, address = quick_project, str(tmp_path / "server")
    process = listening(project, address)
    stage, work = waiting(project, address)
    process.kill()
    process.wait()
    stage.communicate(timeout=20)
    assert stage.returncode == 128 + signal.SIGKILL
    wait_for(lambda: not work.is_running() or work.status() == psutil.STATUS_ZOMBIE, 10)
    assert (project / "ended").read_text() == "in order", "the fork was terminated, not killed"
    status, output, _ = run(project, address, "report", "hello")
    assert status == 0 and output == "said hello toy asked\n", (
        "without a server a stage runs in its own process"
    )


def test_a_terminated_fork_server_waits_for_its_forks(quick_project: Path, tmp_path: Path) -> None:
    project, address = quick_project, str(tmp_path / "server")
    process = listening(project, address)
    stage, work = waiting(project, address)
    process.terminate()
    stage.communicate(timeout=20)
    assert stage.returncode == 128 + signal.SIGTERM, "exit status of the fork, which had time to end"
    assert (project / "ended").read_text() == "in order" and not work.is_running()
    assert process.wait(20) == 128 + signal.SIGTERM


def test_a_stage_that_the_fork_server_did_not_start_runs_in_its_own_process(
    quick_project: Path, tmp_path: Path
) -> None:
    address = str(tmp_path / "server")
    # like a server that ends while it preloads
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        stage = begin(quick_project, address, "report", "hello")
        listener.accept()[0].close()
    assert stage.communicate("asked", timeout=60)[0] == "said hello toy asked\n" and stage.returncode == 0


def test_a_command_that_is_not_a_stage_runs_in_its_own_process(project: Path, address: str) -> None:
    status, output, _ = run(project, address, "measure", "--help")
    assert status == 0 and "measure" in output


def test_preloading_starts_no_thread_queries_no_gpu_and_unloads_segflows_modules(address: str) -> None:
    """Forks of a process that has initialised CUDA cannot use it."""
    facts = json.loads(Path(f"{address}.json").read_text())
    assert facts["gpu_calls"] == [] and facts["threads"] == 1
    modules = set(facts["modules"])
    assert not modules & {"tasks.train", "segcore.training.loop"}
    assert {"torch._dynamo", "mlflow"} <= modules


def test_importing_the_package_does_nothing(tmp_path: Path) -> None:
    """A program that only imports `tasks`, as tests and notebooks do, is not handed to a fork server."""
    code = (
        "import sys, tasks; print(sorted(m for m in sys.modules if m.split('.')[0] in ('tasks', 'segcore')))"
    )
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "server"))
        listener.listen()
        listener.settimeout(0.2)
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, client.VARIABLE: str(tmp_path / "server")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 and done.stdout == "['tasks']\n"
        with pytest.raises(TimeoutError):
            listener.accept()
