"""`make clean`: what it frees and what it keeps, with real DVC, git and MLflow."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from segcore.errors import StageError
from segcore.files import locked
from segcore.params import Params
from tasks.clean import clean
from tasks.project import COMPARE_LOCK, RETRAIN_LOCK
from tasks.promotion.history import write_history
from tasks.tracking.clean import old_runs
from tasks.tracking.logged_models import log_model, models_of
from tasks.tracking.registry import DecisionTags, Registry
from tasks.tracking.tracker import Tracker
from tasks.versioning import git, stages
from tasks.versioning.dvc_command import run_dvc
from tests.support import retraining
from tests.support.bundles import make_bundle
from tests.support.tiny import params_for, values_for

ROOT = Path(__file__).parents[2]
PIPELINE = """\
stages:
  ingest:
    cmd: rm -rf data/ingested && mkdir data/ingested && cp content data/ingested/catalog
    deps: [content, data/batches]
    params: [data]
    outs: [data/ingested]
  train:
    matrix: {architecture: [unet], seed: [0]}
    cmd: rm -rf models/unet-0 && mkdir -p models && cp -r bundle models/unet-0
    deps: [data/ingested, bundle]
    outs: [models/unet-0]
"""


def sha(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def params(name: str = "tiny") -> Params:
    return params_for("source", data={"name": name})


def train(name: str, content: str) -> None:
    """What a comparison leaves: a bundle, its MLflow run, and the run of the comparison."""
    Path("params.yaml").write_text(yaml.safe_dump(values_for("source", data={"name": name})))
    Path("content").write_text(content)
    Path("bundle").mkdir(exist_ok=True)
    Path("bundle/model.safetensors").write_text(content)
    facts = {"format": 2, "architecture": "unet", "title": "U-Net", "seed": 0, "weights_sha256": sha(content)}
    Path("bundle/model.json").write_text(json.dumps(facts))
    status, _, tail = run_dvc(["repro", "--quiet"])
    assert status == 0, tail
    tracker = Tracker.open(params(name))
    mark = {"comparison": content}
    run = tracker.create(content, "training", {"run_key": stages.run_keys()["train@unet-0"], **mark})
    log_model(run, Path("models/unet-0"))
    tracker.client.set_terminated(run.id, "FINISHED")
    comparison = tracker.create(f"comparison {content}", "comparison", mark)
    tracker.client.set_terminated(comparison.id, "FINISHED")
    git.commit([Path("dvc.lock"), Path("params.yaml")], f"Retraining of {name} on batch {content}")


def receive(name: str, batch: str) -> None:
    folder = Path("data/batches") / name / batch
    folder.mkdir(parents=True)
    (folder / "image").write_text(f"{name} {batch}")
    tracked = stages.add(folder)
    git.commit([tracked], f"Data of {name}: batch {batch}", f"data/{name}/{batch}")


def run_named(content: str, name: str = "tiny") -> str:
    (run,) = Tracker.open(params(name)).find(f"attributes.run_name = '{content}'")
    return str(run.info.run_id)


def promote(content: str, name: str = "tiny") -> None:
    registry = Registry(Tracker.open(params(name)))
    version = registry.register(Path("models/unet-0"), run_named(content, name), {})
    registry.promote(version, DecisionTags("promoted", content, "2026-01-01T00:00:00Z"))
    write_history(Path(), name, registry.history())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another data set with a champion and a later training; then five rounds of this one, two of them promoted."""
    project = tmp_path_factory.mktemp("clean") / "project"
    project.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        subprocess.run(["git", "init", "-q"], check=True)
        stages.init_if_needed()
        Path("dvc.yaml").write_text(PIPELINE)
        for name, contents in (("other", ["o1", "o2"]), ("tiny", ["w1", "w2", "w3", "w4", "w5"])):
            for content in contents:
                receive(name, f"batch-{content}")
                train(name, content)
                if content in ("o1", "w1", "w2", "w3"):
                    promote(content, name)
    return project


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copied = retraining.copy(made, tmp_path / "project")
    monkeypatch.chdir(copied)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return copied


def cached() -> set[str]:
    """Contents of the small objects in DVC's cache."""
    return {path.read_text() for path in Path(".dvc/cache/files").rglob("*") if path.is_file()}


def runs(name: str = "tiny") -> set[str]:
    return {str(run.info.run_name) for run in Tracker.open(params(name)).find("")}


def logged(name: str = "tiny") -> set[str]:
    """Ids of the logged models."""
    tracker = Tracker.open(params(name))
    return {model.model_id for model in tracker.client.search_logged_models([tracker.experiment()])}


def files() -> dict[Path, int]:
    """Files of the project, without those that each process that uses DVC or SQLite writes."""
    ignored = (".dvc/tmp", "mlflow.db")
    found = (path for path in Path().rglob("*") if path.is_file() and not str(path).startswith(ignored))
    return {path: path.stat().st_size for path in found}


@pytest.mark.slow
def test_old_rounds_are_freed_and_what_is_needed_is_kept(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, weights = files(), {"o1", "o2", "w1", "w2", "w3", "w4", "w5"}
    # trained, but neither the last nor ever champion
    (unused,) = models_of(Tracker.open(params()).client, run_named("w4"))
    place = Path(unused.artifact_location)
    assert (place / "model.safetensors").read_text() == "w4" and unused.model_id in logged()
    assert weights <= cached()
    clean(params(), 1, dry_run=True)
    assert files() == before
    shown = capsys.readouterr().out
    clean(params(), 1)
    assert capsys.readouterr().out.splitlines()[0] == shown.splitlines()[0]
    assert "MLflow runs" in shown and "DVC objects" in shown and "DVC run cache entries" in shown
    assert runs() == {"w1", "w2", "w3", "w5", "comparison w5"}
    assert runs("other") == {"o1", "o2", "comparison o1", "comparison o2"}
    assert not place.parent.exists() and unused.model_id not in logged() and len(logged()) == 4
    # bundles of those that are or were champion, of the last round, and all of the other data set
    assert weights - cached() == {"w4"}
    assert {f"tiny batch-w{number}" for number in range(1, 6)} <= cached()
    status, output, _ = run_dvc(["status"])
    assert status == 0 and "up to date" in output
    shutil.rmtree("models")
    assert stages.reproduce("train@unet-0", live=None) == "cached", "from the run cache"
    champion = Registry(Tracker.open(params())).champion()
    assert champion is not None and champion.weights_sha256 == sha("w3")
    Registry(Tracker.open(params())).fetch(champion.version, Path("fetched"))
    clean(params(), 1)
    assert capsys.readouterr().out.splitlines()[-2].split() == ["total", "0.0", "MB"]


@pytest.mark.slow
def test_with_as_many_rounds_as_are_kept_nothing_is_freed(project: Path) -> None:
    before, names = files(), runs()
    clean(params(), 5)
    assert {path: size for path, size in files().items() if path.parts[0] != "work"} == {
        path: size for path, size in before.items() if path.parts[0] != "work"
    }
    assert runs() == names


@pytest.mark.slow
@pytest.mark.parametrize("call", ["_hard_delete_run", "_hard_delete_logged_model"])
def test_after_a_kill_the_next_call_completes(
    call: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    class Killed(BaseException):
        """Simulates kill -9: no code of this project catches it."""

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(SqlAlchemyStore, call, killed)
        with pytest.raises(Killed):
            clean(params(), 1)
    clean(params(), 1)
    assert runs() == {"w1", "w2", "w3", "w5", "comparison w5"} and "w4" not in cached()
    experiment = Tracker.open(params()).experiment()
    assert len(list(Path("mlruns", experiment, "models").iterdir())) == len(logged()) == 4


@pytest.mark.slow
def test_a_running_training_and_a_cache_outside_of_the_project_are_left_alone(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Tracker.open(params())
    tracker.client.update_run(run_named("w4"), status="RUNNING")
    Path(".dvc/cache").rename("../cache")
    Path(".dvc/config.local").write_text("[cache]\n    dir = ../../cache\n")
    clean(params(), 1)
    assert "w4" in runs() and "comparison w4" not in runs()
    assert "outside of this project" in capsys.readouterr().out
    assert any(path.read_text() == "w4" for path in Path("../cache").rglob("*") if path.is_file())


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "tasks", "clean", *arguments]
    return subprocess.run(words, env=environment, capture_output=True, text=True)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without git, DVC and MLflow."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("params.yaml").write_text(yaml.safe_dump(values_for("source")))
    return tmp_path


def test_it_refuses_while_a_round_runs_and_wrong_arguments(bare: Path) -> None:
    with locked(COMPARE_LOCK), pytest.raises(StageError, match="a comparison is running"):
        clean(params(), 1)
    with locked(RETRAIN_LOCK):
        with pytest.raises(StageError, match="a round of retraining is running"):
            clean(params(), 1)
        refused = command("--keep", "1")
        assert refused.returncode == 1 and "wait until it ends" in refused.stderr
    done = command("--keep", "1")
    assert done.returncode == 0 and "total" in done.stdout
    assert command("--keep", "0").returncode == 2 and command("--help").returncode == 0
    assert not Path("mlflow.db").exists()


def test_runs_whose_files_others_registered_are_kept(bare: Path) -> None:
    tracker = Tracker.open(params())
    bundle = make_bundle(bare / "models/unet-0")
    trainings = [tracker.create(f"training {number}", "training") for number in range(5)]
    models = [log_model(run, bundle) for run in trainings]
    places = [
        models[0].artifact_location,
        f"file://{models[1].artifact_location}",
        f"models:/{models[2].model_id}",
        f"{tracker.client.get_run(trainings[3].id).info.artifact_uri}/model",
    ]
    tracker.client.create_registered_model("prod")
    for place in places:
        tracker.client.create_model_version("prod", place)
    assert [v.run_id for v in tracker.client.search_model_versions("name = 'prod'")].count(None) == 3
    for run in [*trainings, tracker.create("comparison", "comparison")]:
        tracker.client.set_terminated(run.id, "FINISHED")
    assert old_runs(tracker, 1, ()).ids == [trainings[4].id]


def touch(path: str, content: str = "x") -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content)
    return Path(path)


LEFTOVERS: dict[str, Callable[[], Path]] = {
    "snapshot": lambda: touch("work/receive/tiny/snapshot/images/a.png"),
    "downloaded version": lambda: touch("work/champion/3/model.json", '{"weights_sha256": "old"}'),
    "half deleted version": lambda: touch("work/champion/4/model.safetensors"),
    "downloaded model": lambda: touch("work/predict/tiny-3/model.json", '{"weights_sha256": "old"}'),
    "part of a prediction": lambda: touch("predictions/.s1.part/classes"),
    "part of an ingest": lambda: touch("data/.packed.77.part/a.safetensors"),
    "part of a record": lambda: touch("decisions/tiny/.history.json.77.part/history.json"),
    "part of a fetch": lambda: touch("work/predict/.tiny-3.77.part/model.json"),
    "part of a file": lambda: touch("predictions/.predictions.json.77.part"),
    "finished training": lambda: touch("work/checkpoints/unet-0-0123456789abcdef/checkpoint.safetensors"),
}
NEEDED: dict[str, Callable[[], Path]] = {
    "other data set's snapshot": lambda: touch("work/receive/other/snapshot/images/a.png"),
    "champion": lambda: touch("work/champion/2/model.json", '{"weights_sha256": "champion"}'),
    "champion for prediction": lambda: touch(
        "work/predict/tiny-2/model.json", '{"weights_sha256": "champion"}'
    ),
    "prediction": lambda: touch("predictions/s1.tif"),
    "a file of the user": lambda: touch("inbox/.a.tif.77.part"),
    "unfinished training": lambda: touch("work/checkpoints/fcn-0-0123456789abcdef/checkpoint.safetensors"),
    "quarantine": lambda: touch("work/receive/tiny/quarantine.csv"),
}


def test_leftovers_are_freed_and_what_is_in_use_is_kept(bare: Path) -> None:
    champion = {"version": 2, "architecture": "unet", "title": "U-Net", "weights_sha256": "champion"}
    history = {"format": 1, "versions": [champion | {"aliases": ["champion"]}]}
    touch("decisions/tiny/history.json", json.dumps(history))
    freed = {name: make() for name, make in LEFTOVERS.items()}
    kept = {name: make() for name, make in NEEDED.items()}
    for path in (*freed.values(), *kept.values()):
        os.utime(path, (time.time() - 60,) * 2)
        os.utime(path.parent, (time.time() - 60,) * 2)
    touch("models/unet-0/model.json")
    with locked(Path("predictions/.lock")):
        clean(params(), 1)
        assert freed["part of a prediction"].exists(), "a prediction is running"
    clean(params(), 1)
    assert [name for name, path in freed.items() if path.exists()] == []
    assert [name for name, path in kept.items() if not path.exists()] == []


def test_without_readable_records_nothing_is_freed(bare: Path) -> None:
    left = touch("predictions/.s1.part/classes")
    touch("decisions/tiny/20260101-abcdef01.json", '{"format": 1, "dat')
    refused = command("--keep", "1")
    assert refused.returncode == 1 and "20260101-abcdef01.json" in refused.stderr and left.exists()
