"""Experiments and plots of real DVC on a tiny project with the real stages."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from segcore.errors import StageError
from tasks import project
from tasks.tracking import store
from tests.support import workspaces
from tests.support.tiny import make_pairs, params_for, values_for

EXAMPLES = sorted((workspaces.ROOT / "examples").glob("*.yaml"))


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of an experiment as the current one, with what DVC sets there; the project is `tmp_path`."""
    folder = tmp_path / ".dvc/tmp/exps/tmp1"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


@pytest.mark.usefixtures("experiment")
def test_an_experiment_logs_to_the_store_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = params_for("source")
    assert store.uri(params) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////elsewhere/mlflow.db")
    assert store.uri(params) == "sqlite:////elsewhere/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    assert store.uri(params) == "http://localhost:5000"


def test_measurements_of_an_experiment_are_stored_in_the_project(tmp_path: Path, experiment: Path) -> None:
    project.enter_experiment()
    project.enter_experiment()
    (project.COSTS / "unet-0-0123456789ab.json").write_text("{}")
    shutil.rmtree(experiment)
    assert [path.name for path in (tmp_path / "work/costs").iterdir()] == ["unet-0-0123456789ab.json"]


def test_an_experiment_does_not_silently_train_without_initial_weights(
    tmp_path: Path, experiment: Path
) -> None:
    for name in ("fcn", "unet"):
        (tmp_path / "start" / name).mkdir(parents=True)
        (tmp_path / "start" / name / "model.json").write_text("{}")
    (experiment / "start").mkdir()
    shutil.copytree(tmp_path / "start/fcn", experiment / "start/fcn")
    with pytest.raises(StageError, match=r"without the initial weights in start/unet\b") as caught:
        project.enter_experiment()
    assert "`--copy-paths start/unet`" in caught.value.remedy
    shutil.copytree(tmp_path / "start/unet", experiment / "start/unet")
    project.enter_experiment()


def test_a_stage_in_the_projects_folder_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    project.enter_experiment()
    monkeypatch.delenv("DVC_ROOT")
    project.enter_experiment()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["params.yaml", *(f"examples/{path.name}" for path in EXAMPLES)])
def test_comments_of_settings_stay_when_dvc_writes_them(name: str, tmp_path: Path) -> None:
    source = workspaces.ROOT / name
    copied = Path(shutil.copy(source, tmp_path / "params.yaml"))
    apply_overrides(copied, ["++train.common.steps=7"])
    assert comments(copied) == comments(source)


def comments(path: Path) -> list[str]:
    return [line.partition("# ")[2].strip() for line in path.read_text().splitlines() if "# " in line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose images git does not have, with a committed comparison of one network."""
    folder = workspaces.copy_code(tmp_path_factory.mktemp("experiments") / "project")
    shutil.copy(workspaces.ROOT / "dvc.yaml", folder)
    make_pairs(folder / "pictures")
    values = values_for("pictures", architectures=["unet"], report={"title": "Tiny"})
    values["evaluate"]["boundary_tolerance"] = 1
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    with (folder / ".gitignore").open("a") as stream:
        stream.write("/pictures\n")
    workspaces.dvc(folder, "repro")
    workspaces.commit(folder, "compared")
    return folder


@pytest.mark.slow
def test_a_queued_experiment_is_logged_shown_plotted_and_applied(folder: Path) -> None:
    queued = ("--queue", "--allow-missing", "--name", "longer", "--set-param", "train.common.steps=6")
    workspaces.dvc(folder, "exp", "run", *queued)
    assert "Ran experiment" in workspaces.dvc(folder, "exp", "run", "--run-all")
    runs = [run for run in workspaces.runs(folder, "training") if run.data.tags.get("dvc_experiment")]
    assert [(run.data.tags["dvc_experiment"], run.data.params["steps"]) for run in runs] == [("longer", "6")]
    (model,) = workspaces.models(folder, runs[0])
    assert (folder / model / "model.json").is_file()
    assert [path.parent for path in folder.rglob("mlflow.db")] == [folder]
    shown = json.loads(workspaces.dvc(folder, "exp", "show", "--json"))
    ((name, values),) = [
        (one["name"], one["revs"][0]["data"]["params"]["params.yaml"]["data"])
        for part in shown
        for one in part["experiments"] or ()
    ]
    assert (name, values["train"]["common"]["steps"]) == ("longer", 6)
    workspaces.dvc(folder, "exp", "apply", "longer")
    assert yaml.safe_load((folder / "params.yaml").read_text())["train"]["common"]["steps"] == 6
    assert workspaces.dvc(folder, "status") == "Data and pipelines are up to date.\n"
    weights = json.loads((folder / "models/unet-0/model.json").read_text())["weights_sha256"]
    assert (folder / f"work/costs/unet-0-{weights[:12]}.json").is_file()


@pytest.mark.slow
def test_plots_compare_two_revisions(folder: Path) -> None:
    """Runs after the experiment above."""
    plots = json.loads(workspaces.dvc(folder, "plots", "diff", "HEAD", "longer", "--json"))["data"]
    assert set(plots) == {"learning", "loss", "confusion", "calibration"}
    steps = {}
    for name, (plot,) in plots.items():
        values = plot["content"]["data"]["values"]
        assert {row["rev"] for row in values} == {"HEAD", "longer"}, name
        steps[name] = {(row["rev"], row.get("step")) for row in values}
    assert steps["learning"] == {("HEAD", "2"), ("HEAD", "4"), *(("longer", s) for s in "246")}
