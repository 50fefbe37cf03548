"""An ordinary stop prints one line, a failure its sentence once; a second service of a folder is refused."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import workspaces
from tests.support.serving import serving, wait_for

MESSAGE = "Interrupted; finished stages are kept."


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return workspaces.toy(tmp_path / "toy")


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "to_group", "status"),
    [(signal.SIGINT, True, 130), (signal.SIGTERM, False, 143), (signal.SIGTERM, True, 143)],
)
def test_a_stop_during_a_training_prints_one_line(
    toy: Path, number: signal.Signals, to_group: bool, status: int
) -> None:
    """With an embedded server, which a signal to the group reaches as well, as Ctrl-C in a terminal does."""
    (toy / "wait-fcn").touch()
    log = toy / "flow.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.compare"],
            cwd=toy,
            env=workspaces.environment(toy),
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        wait_for((toy / "started-fcn-0").exists, 120)
        before = log.stat().st_size
        (os.killpg if to_group else os.kill)(process.pid, number)
        assert process.wait(40) == status
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert log.read_bytes()[before:].decode().split("\n") == ["", MESSAGE, ""]
    wait_for(lambda: not workspaces.processes_in(toy), 15)


@pytest.mark.slow
def test_a_failed_stage_prints_its_sentence_once_and_is_not_started_again(toy: Path, server: str) -> None:
    replace(toy / "toy.py", 'raise ValueError("thirteen steps bring bad luck")', FAILURE)
    replace(toy / "params.yaml", "steps: 3,", "steps: 13,")
    replace(toy / "params.yaml", "architectures: [fcn, unet]", "architectures: [fcn]")
    status, output = workspaces.flow(toy, PREFECT_API_URL=server)
    assert status == 1 and output.count("x.tif of http://***@h: is damaged") == 1, output
    assert "S3cretPw" not in output and "  Remedy: restore it" in output
    assert "not run because of that: evaluate@fcn-0, compare, report" in output
    assert (toy / "attempts").read_text() == "1"


@pytest.mark.slow
def test_a_stage_that_met_a_lock_is_started_once_more(toy: Path, server: str) -> None:
    busy = FAILURE.replace(
        "x.tif of http://u:S3cretPw@h: is damaged", "mlflow.db: is locked by another process"
    )
    replace(toy / "toy.py", 'raise ValueError("thirteen steps bring bad luck")', busy)
    replace(toy / "params.yaml", "steps: 3,", "steps: 13,")
    replace(toy / "params.yaml", "architectures: [fcn, unet]", "architectures: [fcn]")
    status, output = workspaces.flow(toy, PREFECT_API_URL=server)
    assert status == 0 and "is started again after: " in output, output
    assert (toy / "attempts").read_text() == "11"


# the first attempt fails
FAILURE = """
            first = not Path("attempts").exists()
            open("attempts", "a").write("1")
            from segcore.errors import DataError
            from tasks.failures import reported
            with reported():
                if first:
                    raise DataError("x.tif of http://u:S3cretPw@h: is damaged", "restore it")
"""


@pytest.mark.slow
def test_a_second_service_of_a_folder_names_the_first_and_ends(toy: Path, server: str) -> None:
    log = toy / "serve.log"
    with serving(toy, server) as first:
        wait_for(lambda: "being served" in log.read_text(), 90)
        second = subprocess.run(
            [sys.executable, "-m", "flows.serve"],
            cwd=toy,
            env=workspaces.environment(toy),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert second.returncode == 1 and "Prefect:" not in second.stdout, "no server was started"
        assert "work/serve.lock" in second.stderr and f"process {first.pid}" in second.stderr
        before = log.stat().st_size
        os.killpg(first.pid, signal.SIGINT)
        assert first.wait(30) == 0
        assert log.read_bytes()[before:].decode().split() == ["Ended."]
    with serving(toy, server):
        wait_for(lambda: "being served" in log.read_text(), 90)


@pytest.mark.parametrize("command", [["flows.retrain"], ["flows.serve"], ["tasks", "predict", "x"]])
def test_ctrl_c_while_modules_are_imported_prints_one_line(tmp_path: Path, command: list[str]) -> None:
    """Under load that takes several seconds; sitecustomize interrupts the import of a module that all need."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'pydantic':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
    )
    paths = f"{tmp_path}:{Path(__file__).parents[2]}"
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode in (-signal.SIGINT, 130)
    assert done.stderr.strip() == "Interrupted." and not done.stdout
