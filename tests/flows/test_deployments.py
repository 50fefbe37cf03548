"""Deployments of compare, predict and export: served by `make serve`, and in a work pool by prefect.yaml."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse

from tests.support import retraining, workspaces
from tests.support.serving import served_runs, serving, wait_for

# parameters of a run by hand, and a file that it writes
RUNS: dict[str, tuple[dict[str, Any], str]] = {
    "compare": ({"retries": 1}, "comparison/comparison.json"),
    "predict": ({"scenes": ["pictures/images"], "model": "models/unet-0", "output": "out"}, "out/a0.tif"),
    "export": ({"model": "models/unet-0", "formats": ["onnx"]}, "exports/unet-0/onnx/model.onnx"),
}


@pytest.fixture
def project(tmp_path: Path, after_first_round: Path) -> Path:
    return retraining.copy(after_first_round, tmp_path / "project")


def prefect(project: Path, server: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    env = workspaces.environment(project, PREFECT_API_URL=server)
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def by_serve(project: Path, server: str) -> Iterator[None]:
    with serving(project, server):
        wait_for(lambda: "are being served" in (project / "serve.log").read_text(), 120)
        yield


@contextmanager
def by_worker(project: Path, server: str) -> Iterator[None]:
    """The deployments of prefect.yaml, and a worker of the pool that runs them."""
    (project / "prefect.yaml").write_bytes((workspaces.ROOT / "prefect.yaml").read_bytes())
    pool = "segflow-orchestrator"
    for name in (pool, "segflow"):
        prefect(project, server, "work-pool", "create", "--overwrite", "--type", "process", name)
    prefect(project, server, "deploy", "--all")
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
    more = {"SEGFLOW_CLONE": str(project), "PREFECT_WORKER_QUERY_SECONDS": "2", "PREFECT_API_URL": server}
    env = workspaces.environment(project, **more)
    with (project / "worker.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=project.parent, env=env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.mark.slow
@pytest.mark.parametrize("provide", [by_serve, by_worker])
def test_a_run_of_each_deployment_starts_and_writes_its_result(
    project: Path, server: str, provide: Callable[..., Any]
) -> None:
    runs = served_runs(server)
    (project / "comparison/comparison.json").unlink()
    with provide(project, server), SyncPrefectClient(server) as client:
        for name, (parameters, _) in RUNS.items():
            deployment = client.read_deployment_by_name(f"{name}/{name}")
            require_form(deployment)
            assert deployment.description and "Args" not in deployment.description
            client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
        # of two predictions, one waits for the other
        client.create_flow_run_from_deployment(
            deployment_of(client, "predict").id, parameters=RUNS["predict"][0]
        )
        wait_for(lambda: all(run.state and run.state.is_final() for run in runs()), 400)
    found = runs()
    assert [run.state_name for run in found] == ["Completed"] * 4, [run.state for run in found]
    assert all((project / file).is_file() for _, file in RUNS.values())
    twice = [run for run in found if run.parameters == RUNS["predict"][0]]
    require_one_after_the_other(twice)


def deployment_of(client: SyncPrefectClient, name: str) -> DeploymentResponse:
    return client.read_deployment_by_name(f"{name}/{name}")


def require_form(deployment: DeploymentResponse) -> None:
    """Check that each parameter has a type and a description, which Prefect's UI shows in its form."""
    fields = (deployment.parameter_openapi_schema or {})["properties"]
    assert fields and all(field["description"] for field in fields.values())
    assert all("type" in field or "anyOf" in field for field in fields.values())


def require_one_after_the_other(found: list[FlowRun]) -> None:
    assert len(found) == 2
    spans = sorted((run.start_time, run.end_time) for run in found if run.start_time and run.end_time)
    assert all(later[0] >= earlier[1] for earlier, later in pairwise(spans))


def test_the_work_pools_have_the_flows_that_make_serve_serves() -> None:
    from flows import serve

    entries = yaml.safe_load((workspaces.ROOT / "prefect.yaml").read_text())["deployments"]
    deployments = {entry["name"]: entry for entry in entries}
    assert set(deployments) == {"segflow", serve.NAME, *(flow.name for flow in serve.BY_HAND)}
    for flow in serve.BY_HAND:
        entry, served = deployments[flow.name], serve.by_hand(flow)
        assert entry["entrypoint"] == f"flows/{flow.name}.py:{flow.name}" and not entry.get("schedules")
        assert entry["work_pool"]["name"] == deployments[serve.NAME]["work_pool"]["name"]
        assert served.concurrency_limit == entry["concurrency_limit"]["limit"] == 1
        assert served.concurrency_options
        strategy = served.concurrency_options.collision_strategy.value
        assert strategy == entry["concurrency_limit"]["collision_strategy"] == "ENQUEUE"
