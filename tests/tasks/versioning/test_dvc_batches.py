"""Batches edited by hand or not on this machine, and objects that DVC's push passes over."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segcore.errors import StageError
from tasks.project import BATCH_STAMPS
from tasks.versioning import stages
from tasks.versioning.dvc_batches import (
    changed_batches,
    missing_batches,
    pull,
    require_unchanged_batches,
)

ROOT = Path(__file__).parents[3]
PARENT = Path("data/batches/x")
PIPELINE = """\
stages:
  train:
    matrix: {architecture: [unet], seed: [0]}
    cmd: mkdir -p models/unet-0 && echo weights > models/unet-0/w && echo bands > models/unet-0/d
    outs: [models/unet-0]
"""


def sh(command: str) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(command, shell=True, check=True, capture_output=True, env={**os.environ, "PATH": path})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two batches and one stage, pushed to `store` beside it."""
    project = tmp_path_factory.mktemp("made") / "project"
    project.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.setenv("PYTHONPATH", str(ROOT))
        subprocess.run(["git", "init", "-q"], check=True)
        stages.init_if_needed()
        for name in ("b1", "b2"):
            (PARENT / name / "images").mkdir(parents=True)
            for number in range(3):
                (PARENT / name / f"images/{number}").write_text(f"{name} {number}")
            stages.add(PARENT / name)
        Path("dvc.yaml").write_text(PIPELINE)
        stages.reproduce("train@unet-0", live=None)
        assert not stages.push()
        remote = "[core]\n    remote = store\n['remote \"store\"']\n    url = ../store\n"
        Path(".dvc/config").write_text(remote.replace("../", "../../"))
        assert stages.push()
    return project


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = shutil.copytree(made.parent, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(copy / "project")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return copy / "project"


def delete_object(content: str, *places: str) -> None:
    """Remove the object of a file with this content from the cache or the remote."""
    from hashlib import md5

    name = md5(content.encode(), usedforsecurity=False).hexdigest()
    for place in places:
        found = list(Path(place).rglob(f"{name[:2]}/{name[2:]}"))
        assert found, place
        for path in found:
            path.unlink()


CACHE, STORE = ".dvc/cache", "../store"


@pytest.mark.slow
def test_objects_that_are_nowhere_are_an_error_of_the_push_and_the_remedy_restores_them(
    project: Path,
) -> None:
    delete_object("weights\n", CACHE)
    assert stages.push(), "the remote has it"
    delete_object("weights\n", STORE)
    delete_object("b1 1", CACHE, STORE)
    expected = r"train@unet-0 \(models/unet-0/w\)|b1\.dvc \(data/batches/x/b1/images/1\)"
    with pytest.raises(StageError) as caught:
        stages.push()
    assert len(re.findall(expected, caught.value.what)) == 2
    for command in caught.value.remedy.split("; ")[:-1]:
        sh(command)
    assert stages.push()
    delete_object("weights\n", CACHE, STORE)
    shutil.rmtree("models")
    with pytest.raises(StageError, match=r"train@unet-0 \(models/unet-0/w\)") as caught:
        stages.push()
    sh(caught.value.remedy.partition("; ")[0])
    assert stages.push() and Path("models/unet-0/w").read_text() == "weights\n"


def test_a_missing_list_of_a_folder_is_an_error_of_the_push(project: Path) -> None:
    name = re.findall(r"md5: (\w+)\.dir", Path("dvc.lock").read_text())[0]
    for place in (CACHE, STORE):
        next(Path(place).rglob(f"{name[2:]}.dir")).unlink()
    with pytest.raises(StageError, match=r"train@unet-0 \(models/unet-0\)") as caught:
        stages.push()
    sh(caught.value.remedy.partition("; ")[0])
    assert stages.push()


def test_the_error_of_a_push_is_one_line(project: Path) -> None:
    Path("../store").rename("../away")
    Path("../store").write_text("a file")
    delete_object("weights\n", CACHE)
    with pytest.raises(StageError, match="dvc push failed") as caught:
        stages.push()
    assert "\n" not in caught.value.what and "Traceback" not in caught.value.what
    Path(".dvc/config").write_text(Path(".dvc/config").read_text().replace("../../store", "nowhere://x"))
    with pytest.raises(StageError, match="nowhere") as caught:
        stages.push()
    assert "\n" not in caught.value.what


def folders() -> dict[str, Path]:
    return {name: PARENT / name for name in ("b1", "b2")}


def test_unchanged_batches_cost_nothing_at_the_second_call(project: Path) -> None:
    assert changed_batches(folders(), read_only=True) == {} and not BATCH_STAMPS.exists()
    assert changed_batches(folders()) == {}
    start = time.perf_counter()
    assert changed_batches(folders()) == {}
    require_unchanged_batches(PARENT)
    assert time.perf_counter() - start < 0.1
    BATCH_STAMPS.write_text("[")
    assert changed_batches(folders()) == {}, "compared again"
    shutil.rmtree(PARENT / "b1")
    (PARENT / "b2.dvc").unlink()
    assert changed_batches(folders()) == {}


@pytest.mark.slow
def test_an_edited_batch_is_named_with_its_files_until_one_of_the_remedies_is_followed(project: Path) -> None:
    require_unchanged_batches(PARENT)
    images = PARENT / "b1/images"
    os.utime(images / "0")
    (images / "1").write_text("edited")
    (images / "2").unlink()
    (images / "new").write_text("new")
    text = "changed: images/1; removed: images/2; added: images/new"
    assert changed_batches(folders()) == {"b1": text}
    (PARENT / "b2/images/0").write_text("edited")
    with pytest.raises(StageError, match=rf"b1 \({text}\), data/batches/x/b2 \(changed") as caught:
        require_unchanged_batches(PARENT)
    undo, accept = re.findall(r"(dvc .+?)(?:;|$)", caught.value.remedy)
    sh(undo)
    assert sorted(path.name for path in images.iterdir()) == ["0", "1", "2"]
    assert (images / "1").read_text() == "b1 1"
    sh(accept.replace("b1", "b2"))
    require_unchanged_batches(PARENT)
    assert (PARENT / "b2/images/0").read_text() == "edited"


def test_missing_batches_are_pulled_as_a_whole(project: Path) -> None:
    assert missing_batches(PARENT) == []
    pull([])
    for name in ("b1", "b2"):
        shutil.rmtree(PARENT / name)
    shutil.rmtree(CACHE)
    tracked = [PARENT / "b1.dvc", PARENT / "b2.dvc"]
    assert missing_batches(PARENT) == tracked
    delete_object("b2 1", STORE)
    with pytest.raises(StageError, match=r"DVC's remote store: data/batches/x/b2\.dvc\n(.|\n)*dvc pull"):
        pull(missing_batches(PARENT))
    assert (PARENT / "b1/images/2").read_text() == "b1 2"
    assert sorted(path.name for path in PARENT.iterdir()) == [".gitignore", "b1", "b1.dvc", "b2.dvc"]
    require_unchanged_batches(PARENT)


@pytest.mark.slow
def test_without_a_remote_that_answers_the_missing_batches_are_named(project: Path) -> None:
    shutil.rmtree(PARENT / "b1")
    pull(missing_batches(PARENT))
    assert (PARENT / "b1/images/2").is_file(), "from the cache"
    shutil.rmtree(PARENT / "b1")
    shutil.rmtree(CACHE)
    Path("../store").rename("../away")
    with pytest.raises(StageError, match="batches cannot be pulled") as caught:
        pull(missing_batches(PARENT))
    assert "\n" not in caught.value.what
    Path(".dvc/config").write_text("")
    with pytest.raises(StageError, match=r"no default remote: data/batches/x/b1\.dvc") as caught:
        pull(missing_batches(PARENT))
    sh(caught.value.remedy.partition(" --default")[0] + f" --default store {project.parent / 'away'}")
    pull(missing_batches(PARENT))
    assert (PARENT / "b1/images/2").is_file()
