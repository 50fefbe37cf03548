"""Stages run in a fork as they run in a process of their own: arguments, exit codes, signals and code."""

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


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's code, whose report is a toy once the fork server has loaded the real one."""
    folder = tmp_path_factory.mktemp("forkserver")
    for name in ("tasks", "segcore"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def address(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    address = str(tmp_path_factory.mktemp("socket") / "address")
    process = listening(project, address)
    try:
        assert run(project, address, "train", "--help")[0] == 0  # it has loaded all
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


def listening(project: Path, address: str) -> subprocess.Popen[bytes]:
    """A fork server that takes requests."""
    process = subprocess.Popen([sys.executable, "-m", "tasks.forkserver.server", address], cwd=project)
    wait_for(Path(address).exists)
    return process


def begin(project: Path, address: str, *words: str) -> subprocess.Popen[str]:
    """A stage as DVC would start it."""
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
    """A stage that waits, and the process that does its work."""
    for name in ("pid", "ended"):
        (project / name).unlink(missing_ok=True)
    stage = begin(project, address, "report", "wait")
    assert stage.stdin is not None
    stage.stdin.close()
    stage.stdin = None
    wait_for(lambda: (project / "pid").exists() and (project / "pid").read_text() != "")
    return stage, psutil.Process(int((project / "pid").read_text()))


def test_words_environment_input_and_new_code_reach_the_fork_and_its_words_and_code_come_back(
    project: Path, address: str
) -> None:
    status, output, errors = run(project, address, "report", "hello")
    assert (status, output, errors) == (0, "said hello toy asked\n", "warned\n")
    assert run(project, address, "report", "code")[0] == 7
    status, _, errors = run(project, address, "report", "fail")
    assert status == 1 and errors.endswith("ValueError: told to fail\n")
    status, _, errors = run(project, address, "report")
    assert status == 2 and "required: word" in errors


def test_the_work_is_done_by_a_fork_that_has_torch(project: Path, address: str) -> None:
    stage, work = waiting(project, address)
    assert work.pid != stage.pid
    assert any("libtorch" in mapped.path for mapped in work.memory_maps())
    stage.terminate()
    stage.communicate(timeout=20)


def test_sigterm_ends_the_fork_in_order(project: Path, address: str) -> None:
    stage, work = waiting(project, address)
    stage.terminate()
    stage.communicate(timeout=20)
    assert stage.returncode == 128 + signal.SIGTERM and (project / "ended").read_text() == "in order"
    assert not work.is_running()


def test_a_killed_stage_is_killed_with_its_fork(project: Path, address: str) -> None:
    stage, work = waiting(project, address)
    stage.kill()
    stage.communicate(timeout=20)
    wait_for(lambda: not work.is_running() or work.status() == psutil.STATUS_ZOMBIE, 10)
    assert not (project / "ended").exists()
    assert run(project, address, "report", "hello")[0] == 0, "the fork server goes on"


def test_a_killed_fork_server_fails_its_stages_and_ends_its_forks(project: Path, tmp_path: Path) -> None:
    (project / "tasks/report.py").write_text(TOY)
    own = str(tmp_path / "own")
    process = listening(project, own)
    stage, work = waiting(project, own)
    process.kill()
    process.wait()
    stage.communicate(timeout=20)
    assert stage.returncode == 128 + signal.SIGKILL
    wait_for(lambda: not work.is_running() or work.status() == psutil.STATUS_ZOMBIE, 10)
    assert (project / "ended").read_text() == "in order", "the fork heard of it"
    status, output, _ = run(project, own, "report", "hello")
    assert status == 0 and output == "said hello toy asked\n", (
        "without a fork server a stage runs in its own process"
    )


def test_a_fork_server_that_is_sent_sigterm_waits_for_its_forks(project: Path, tmp_path: Path) -> None:
    (project / "tasks/report.py").write_text(TOY)
    own = str(tmp_path / "own")
    process = listening(project, own)
    stage, work = waiting(project, own)
    process.terminate()
    stage.communicate(timeout=20)
    assert stage.returncode == 128 + signal.SIGTERM, "that of the fork, which had the time to end"
    assert (project / "ended").read_text() == "in order" and not work.is_running()
    assert process.wait(20) == 128 + signal.SIGTERM


def test_a_stage_that_the_fork_server_never_began_does_its_work_itself(project: Path, tmp_path: Path) -> None:
    (project / "tasks/report.py").write_text(TOY)
    own = str(tmp_path / "own")
    with socket.socket(socket.AF_UNIX) as listener:  # as one that ends while it loads
        listener.bind(own)
        listener.listen()
        stage = begin(project, own, "report", "hello")
        listener.accept()[0].close()
    assert stage.communicate("asked", timeout=60)[0] == "said hello toy asked\n" and stage.returncode == 0


def test_a_module_that_is_no_stage_runs_by_itself(project: Path, address: str) -> None:
    status, output, _ = run(project, address, "measure", "--help")
    assert status == 0 and "measure" in output


PRELOAD = """
import threading
import torch
asked = []
for name in ("is_available", "device_count", "_lazy_init"):
    setattr(torch.cuda, name, lambda *a, name=name, **k: asked.append(name))
from tasks.forkserver import server
server.preload()
assert not asked, asked
assert threading.active_count() == 1
import sys
assert "tasks.train" not in sys.modules and "segcore.training.loop" not in sys.modules
assert "torch._dynamo" in sys.modules and "mlflow" in sys.modules
"""


def test_loading_begins_no_thread_and_asks_for_no_gpu_and_forgets_our_own_code(project: Path) -> None:
    """A process that has spoken with CUDA has forks that cannot."""
    subprocess.run([sys.executable, "-c", PRELOAD], cwd=ROOT, check=True)
