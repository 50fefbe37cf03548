"""The prediction flow: one task per scene, failures reported, finished scenes not repeated."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.support import workspaces
from tests.support.bundles import make_bundle, noise
from tests.support.tiny import values_for, write_tif


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = workspaces.copy_code(tmp_path / "project")
    (folder / "params.yaml").write_text(yaml.safe_dump(values_for("source")))
    make_bundle(folder / "bundle")
    for number in range(2):
        write_tif(folder / "scenes" / f"s{number}.tif", noise(70, 90, seed=number))
    return folder


def flow(folder: Path, server: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "flows.predict", "scenes", "--model", "bundle", "--output", "out"]
    done = subprocess.run(
        command,
        cwd=folder,
        env=workspaces.environment(folder, PREFECT_API_URL=server),
        capture_output=True,
        text=True,
        timeout=200,
    )
    return done.returncode, done.stdout + done.stderr


def test_each_scene_is_a_task_and_failures_are_reported(project: Path, server: str) -> None:
    write_tif(project / "scenes/five.tif", noise(40, 40, bands=5))
    status, output = flow(project, server)
    assert status == 1 and "1 of 3 scenes failed" in output and "has 5 bands" in output, output
    assert "Traceback" not in output
    assert sorted(p.name for p in (project / "out").glob("*.tif")) == ["s0.tif", "s1.tif"]
    with temporary_settings({PREFECT_API_URL: server}), get_client(sync_client=True) as client:
        chosen = FlowFilter(name=FlowFilterName(any_=["predict"]))
        states = {r.name: r.state.type.value for r in client.read_task_runs(flow_filter=chosen)}
        (run,) = client.read_flow_runs(flow_filter=chosen)
    assert states == {"five": "FAILED", "s0": "COMPLETED", "s1": "COMPLETED"}
    assert run.state.type.value == "FAILED" and any(tag.startswith("process:") for tag in run.tags)
    (project / "scenes/five.tif").unlink()
    before = (project / "out/s0.tif").stat().st_ino
    status, output = flow(project, server)
    assert status == 0 and "0 predicted, 2 done before" in output, output
    assert (project / "out/s0.tif").stat().st_ino == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scenes", "--outputs", "foo"], "--outputs: 'foo' is unknown"),
        (["scenes", "--outputs", ""], "--outputs: is empty"),
        (["nowhere"], "nowhere: no scene found"),
        (["scenes", "--model", "bundle", "--outputs", "objects"], "data without objects"),
        (["scenes"], "models:/tiny@champion: no registered model has that name"),
    ],
)
def test_errors_of_the_arguments_need_no_server(project: Path, arguments: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows.predict", *arguments],
        cwd=project,
        # a server that does not exist: an attempt to use it would fail
        env=workspaces.environment(project, PREFECT_API_URL="http://127.0.0.1:9/api"),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 1 and message in done.stderr and "server" not in done.stderr, done.stderr
