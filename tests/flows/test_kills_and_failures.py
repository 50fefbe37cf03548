"""A killed or failed comparison does not block the next one; tested with a pipeline that computes nothing."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.support import workspaces

# each test continues with the project that the one before has left
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspaces.toy(tmp_path_factory.mktemp("toy") / "project")


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def trainings(folder: Path) -> dict[str, list[str]]:
    """Status of the training runs by stage, latest first."""
    found: dict[str, list[str]] = {}
    for run in workspaces.runs(folder, "training"):
        found.setdefault(run.data.tags["stage"], []).append(run.info.status)
    return found


def test_a_killed_flow_leaves_no_process_and_the_next_one_completes(toy: Path) -> None:
    """No server is configured, so the embedded one must end too."""
    (toy / "wait-unet").touch()
    process = workspaces.start(toy)
    try:
        wait_for(lambda: (toy / "started-unet-0").exists() or process.poll() is not None, 150)
        wait_for(lambda: "train@fcn-0" in (toy / "dvc.lock").read_text(), 60)
        process.send_signal(signal.SIGKILL)
        wait_for(lambda: not workspaces.processes_in(toy), 20)
    finally:
        process.kill()
        process.communicate(timeout=30)
    (toy / "wait-unet").unlink()
    status, output = workspaces.flow(toy)
    assert status == 0, output
    assert "7 stages" in output or "Stages: " in output
    assert trainings(toy) == {"train@fcn-0": ["FINISHED"], "train@unet-0": ["FINISHED"]}, (
        "one run each, resumed"
    )


def test_a_failing_stage_fails_its_run_and_the_flow(toy: Path, server: str) -> None:
    yaml = YAML()
    params = yaml.load(toy / "params.yaml")
    params["train"]["unet"]["steps"] = 13
    yaml.dump(params, toy / "params.yaml")
    status, output = workspaces.flow(toy, PREFECT_API_URL=server)
    assert status == 1
    assert "thirteen steps bring bad luck" in output and "Remedy:" in output
    assert "prefect/flow_engine.py" not in output and "flows/compare.py" not in output, (
        "no traceback of the flow"
    )
    stages = trainings(toy)
    assert stages["train@unet-0"] == ["FAILED", "FINISHED"]
    assert stages["train@fcn-0"] == ["FINISHED"]


def test_wrong_params_are_reported_before_anything_starts(toy: Path) -> None:
    text = (toy / "params.yaml").read_text()
    (toy / "params.yaml").write_text(text + "\nsped: 3\n")
    status, output = workspaces.flow(toy)
    (toy / "params.yaml").write_text(text)
    assert status == 1 and "sped" in output and "Remedy:" in output and "Traceback" not in output
