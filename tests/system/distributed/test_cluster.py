"""`make test-distributed`: two workers in two clones behind PostgreSQL and S3, everything on loopback.

The toy pipeline has the same transfers, assignment of stages to workers and recovery as the real one.
"""

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.support import workspaces

pytest.importorskip("moto", reason="needs requirements/cluster.lock: make test-distributed")
pytest.importorskip("dvc_s3", reason="needs requirements/cluster.lock: make test-distributed")

from mlflow import MlflowClient
from mlflow.entities import Run

from tests.system.distributed import services
from tests.system.distributed.services import Cluster

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(900)]
TRAININGS = {"train@fcn-0", "train@unet-0"}


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@dataclass(frozen=True)
class Setting:
    """The services, the orchestrating clone, and the workers' clones with the worker processes."""

    cluster: Cluster
    first: Path
    workers: dict[Path, subprocess.Popen[bytes]]

    def clone(self, name: str) -> Path:
        """Another clone of the project, with DVC's remote."""
        return clone(self.cluster, self.cluster.folder / "origin.git", name)

    def compare(self, folder: Path) -> subprocess.Popen[str]:
        """`python -m flows.compare` in a clone, started."""
        return subprocess.Popen(
            [sys.executable, "-m", "flows.compare"],
            cwd=folder,
            env=self.cluster.environment(folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def runs(self, kind: str) -> list[Run]:
        """MLflow runs of a kind, latest first."""
        client = MlflowClient(self.cluster.mlflow)
        experiments = [e.experiment_id for e in client.search_experiments()]
        return list(client.search_runs(experiments, f"tags.kind = '{kind}'", order_by=["start_time DESC"]))


def clone(cluster: Cluster, origin: Path, name: str) -> Path:
    folder = cluster.folder / name
    git(cluster.folder, "clone", "-q", str(origin), str(folder))
    remote = f"[core]\n    remote = s3\n['remote \"s3\"']\n    url = s3://data/dvc\n    endpointurl = {cluster.s3}\n"
    (folder / ".dvc/config.local").write_text(remote)
    return folder


def finished(process: subprocess.Popen[str], seconds: float) -> str:
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        services.kill_tree(process.pid)
        output, _ = process.communicate()
        pytest.fail(f"the comparison did not end within {seconds} s:\n{output}")
    assert process.returncode == 0, output
    return output


def lock(folder: Path) -> object:
    return YAML(typ="safe").load(folder / "dvc.lock")


def single_machine(setting: Setting, name: str, params: str) -> object:
    """dvc.lock after `dvc repro` of the same project without a remote."""
    folder = setting.clone(name)
    (folder / ".dvc/config.local").unlink()
    (folder / "params.yaml").write_text(params.replace("infrastructure: workers", "infrastructure: local"))
    env = workspaces.environment(folder)
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return lock(folder)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    folder = tmp_path_factory.mktemp("cluster")
    seed = workspaces.toy(folder / "seed")
    params = seed / "params.yaml"
    params.write_text(params.read_text().replace("{slots: 2}", "{infrastructure: workers}"))
    shutil.copy(workspaces.ROOT / "prefect.yaml", seed)
    git(seed, "add", "-A")
    git(seed, "commit", "-qm", "toy")
    git(folder, "clone", "-q", "--bare", str(seed), str(folder / "origin.git"))
    with ExitStack() as stack:
        found = stack.enter_context(services.cluster(folder))
        first = clone(found, folder / "origin.git", "first")
        services.deploy(found, first)
        processes = {}
        for name in ("worker-1", "worker-2"):
            its = clone(found, folder / "origin.git", name)
            git(its, "config", "segflow.worker", "true")
            processes[its] = stack.enter_context(services.worker(found, its))
        yield Setting(found, first, processes)


def test_two_comparisons_at_once_train_each_model_once_and_write_the_lock_of_a_single_machine(
    setting: Setting,
) -> None:
    second = setting.clone("second")
    outputs = [finished(p, 420) for p in [setting.compare(setting.first), setting.compare(second)]]
    trainings = setting.runs("training")
    assert Counter(run.data.tags["stage"] for run in trainings) == Counter(TRAININGS), outputs
    assert len({run.data.tags["run_key"] for run in trainings}) == len(trainings)
    client = MlflowClient(setting.cluster.mlflow)
    for run in trainings:
        assert run.info.status == "FINISHED"
        assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 3, "trained more than once"
        assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    assert not list(setting.first.glob("started-*")) and not list(second.glob("started-*"))
    expected = single_machine(setting, "alone", (setting.first / "params.yaml").read_text())
    assert lock(setting.first) == expected
    assert lock(second) == expected


def test_killing_a_worker_during_a_training_loses_nothing(setting: Setting) -> None:
    params = setting.first / "params.yaml"
    params.write_text(params.read_text().replace("steps: 3", "steps: 4"))
    for clone_ in setting.workers:
        (clone_ / "wait-unet").touch()
        (clone_ / "started-unet-0").unlink(missing_ok=True)
    comparison = setting.compare(setting.first)
    began = time.monotonic()
    started = [clone_ / "started-unet-0" for clone_ in setting.workers]
    services.wait_for("the training of unet", lambda: any(s.exists() for s in started), 180)
    (victim,) = (s.parent for s in started if s.exists())
    services.kill_tree(setting.workers[victim].pid)
    killed = time.monotonic()
    for clone_ in setting.workers:
        (clone_ / "wait-unet").unlink()
    output = finished(comparison, 500)
    print(f"killed after {killed - began:.0f} s, ended {time.monotonic() - killed:.0f} s after that")
    assert "its worker died" in output
    keys = {run.data.tags["run_key"] for run in setting.runs("training")}
    trainings = [run for run in setting.runs("training") if run.data.params["steps"] == "4"]
    assert Counter(run.data.tags["stage"] for run in trainings) == Counter(TRAININGS), output
    assert all(run.info.status == "FINISHED" for run in trainings)
    assert len(keys) == 4
    assert (setting.first / "models/unet-0/model").read_text() == "4"
    assert lock(setting.first) == single_machine(setting, "alone-again", params.read_text())
