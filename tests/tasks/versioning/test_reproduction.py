"""What a clone lacks to reproduce the results is named until nothing is lacking."""

import subprocess
from pathlib import Path

import pytest
import yaml

from segcore.params import Params
from tasks.versioning.reproduction import lacking, outdated, uses_remote
from tests.support.fake_project import scene_patches
from tests.tasks.test_report import _params


def git(folder: Path, *arguments: str) -> None:
    author = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    subprocess.run(["git", *author, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def p() -> Params:
    return _params(scene_patches())


def with_source(p: Params, source: str) -> Params:
    return p.model_copy(update={"data": p.data.model_copy(update={"source": source})})


def test_every_step_is_named_until_the_commit_is_pushed(tmp_path: Path, p: Params) -> None:
    project = tmp_path / "project"
    (project / "splits").mkdir(parents=True)
    assert "in no git repository" in lacking(p, project)[0]
    for name in ("params.yaml", "dvc.lock"):
        (project / name).write_text("a: 1\n")
    git(project, "init", "-q", "-b", "main")
    git(project, "add", "params.yaml")
    git(project, "commit", "-qm", "start")
    assert any("no commit has dvc.lock, splits/buildings.csv" in step for step in lacking(p, project))
    (project / "splits/buildings.csv").write_text("group\n")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "results")
    (project / "params.yaml").write_text("a: 2\n")
    changed, unpushed = lacking(p, project)
    assert "changed since the last commit" in changed and "on no remote branch: push it" in unpushed
    git(project, "commit", "-qam", "settings")
    git(tmp_path, "init", "-q", "--bare", "remote.git")
    git(project, "remote", "add", "origin", str(tmp_path / "remote.git"))
    git(project, "push", "-q", "origin", "main")
    assert lacking(p, project) == [] and not uses_remote(p, project)


def test_data_that_are_on_this_machine_alone_are_named(tmp_path: Path, p: Params) -> None:
    folder = with_source(p, "data/fields")
    (tmp_path / "data").mkdir()
    assert any("data/fields are in this folder alone" in step for step in lacking(folder, tmp_path))
    (tmp_path / "data/fields.dvc").touch()
    (step,) = (step for step in lacking(folder, tmp_path) if "git" not in step)
    assert "DVC has no remote" in step and uses_remote(folder, tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text(
        "[core]\n    remote = here\n['remote \"here\"']\n    url = /nowhere\n"
    )
    assert not any("remote" in step for step in lacking(folder, tmp_path) if "git" not in step)
    (tmp_path / ".dvc/config").unlink()
    (tmp_path / "data/batches/buildings").mkdir(parents=True)
    (tmp_path / "data/batches/buildings/b1.dvc").touch()
    assert any("DVC has no remote" in step for step in lacking(p, tmp_path)), "a later batch of a sample"


def test_stages_of_earlier_models_or_data_are_named(tmp_path: Path, p: Params) -> None:
    def lock(trained: str, prepared: str) -> None:
        def files(**paths: str) -> list[dict[str, str]]:
            return [{"path": path.replace("__", "/"), "md5": md5} for path, md5 in paths.items()]

        entries = {
            "prepare": {"outs": files(data__prepared=prepared)},
            "train@unet-0": {"deps": files(data__prepared="p1"), "outs": files(**{"models/unet-0": trained})},
            "evaluate@unet-0": {"deps": files(**{"models/unet-0": "m1", "data/prepared": "p1"})},
            "compare": {"deps": files(data__prepared="p1", evaluations="e1")},
        }
        (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": entries}))

    assert outdated(p, tmp_path) == []
    lock("m1", "p1")
    assert outdated(p, tmp_path) == []
    lock("m2", "p1")
    assert outdated(p, tmp_path) == ["evaluate@unet-0"]
    lock("m1", "p2")
    assert outdated(p, tmp_path) == ["train@unet-0", "evaluate@unet-0", "compare"]
