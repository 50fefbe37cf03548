"""Which batches have no decision, in which order, and that a batch is recorded once."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from segcore.errors import DataError, StageError
from segcore.params import Params
from segcore.promotion.figures import Basis
from tasks import batches
from tasks.promotion.record import DecisionRecord, record_path, write_json, write_record
from tasks.versioning import git
from tests.support.tiny import params_for

MORNING, NOON, EVENING = (f"2026-11-29T{hour:02}:00:00+00:00" for hour in (8, 12, 20))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Parameters of an empty project, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    return params_for(tmp_path / "source")


def batch(p: Params, name: str, received: str | None) -> None:
    """A batch with one image; received None: made by hand, without batch.json."""
    folder = batches.folder_of(p) / name / "images"
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
    if received:
        facts = {"items": 1, "files": [f"images/{name}.png"], "received": received}
        (folder.parent / "batch.json").write_text(json.dumps(facts))


def decision(p: Params, names: list[str], acted: str | None = NOON) -> DecisionRecord:
    """A decision on batches, written to its file."""
    basis = Basis(
        metric="iou",
        score="iou/dataset/foreground_mean",
        frozen={"regions": 4, "clusters": 4},
        new={"regions": 0, "clusters": 0},
        confidence=0.95,
        comparisons=1,
        confidence_each=0.95,
        bootstrap=100,
        seed=0,
        gate={},
    )
    record = DecisionRecord(
        dataset=p.data.name,
        key=names[-1],
        batches=names,
        decided=NOON,
        acted=acted,
        inputs="0" * 64,
        outcome="kept",
        winner=None,
        best=None,
        reason="",
        champion=None,
        challengers=[],
        basis=basis,
    )
    write_record(record_path(Path(), p.data.name, record.key), record)
    return record


def test_batches_of_one_day_are_in_the_order_of_receipt_and_not_of_their_names(project: Params) -> None:
    batch(project, "20261129-ffffffff", MORNING)
    batch(project, "20261129-00000000", EVENING)
    assert batches.undecided(project) == ["20261129-ffffffff", "20261129-00000000"]
    decision(project, ["20261129-ffffffff"])
    assert batches.undecided(project) == ["20261129-00000000"]


def test_a_clock_that_was_set_back_leaves_no_batch_without_decision(project: Params) -> None:
    batch(project, "20261129-aaaaaaaa", EVENING)
    decision(project, ["20261129-aaaaaaaa"], acted=EVENING)
    batch(project, "20200101-bbbbbbbb", "2020-01-01T00:00:00+00:00")
    assert batches.undecided(project) == ["20200101-bbbbbbbb"]


def test_a_batch_made_by_hand_is_judged_although_its_date_is_older_than_decided_ones(project: Params) -> None:
    batch(project, "20261129-aaaaaaaa", NOON)
    decision(project, ["20261129-aaaaaaaa"])
    batch(project, "20250101-hand", None)
    batch(project, "without-a-date", None)
    assert batches.undecided(project) == ["without-a-date", "20250101-hand"]


def test_a_decision_that_was_not_acted_upon_leaves_its_batches_undecided(project: Params) -> None:
    batch(project, "20261129-aaaaaaaa", MORNING)
    record = decision(project, ["20261129-aaaaaaaa"], acted=None)
    assert batches.undecided(project) == ["20261129-aaaaaaaa"]
    write_record(record_path(Path(), project.data.name, record.key), replace(record, acted=NOON))
    assert batches.undecided(project) == []


def test_a_removed_decision_leaves_its_batches_undecided_until_it_is_restored(project: Params) -> None:
    for name, received in (("20261129-bbbbbbbb", MORNING), ("20261129-aaaaaaaa", NOON)):
        batch(project, name, received)
    decision(project, ["20261129-bbbbbbbb", "20261129-aaaaaaaa"])
    path = record_path(Path(), project.data.name, "20261129-aaaaaaaa")
    text = path.read_text()
    path.unlink()
    assert batches.undecided(project) == ["20261129-bbbbbbbb", "20261129-aaaaaaaa"]
    path.write_text(text)
    assert batches.undecided(project) == []


def test_a_decision_cut_short_is_an_error_that_names_the_file(project: Params) -> None:
    batch(project, "20261129-aaaaaaaa", MORNING)
    decision(project, ["20261129-aaaaaaaa"])
    path = record_path(Path(), project.data.name, "20261129-aaaaaaaa")
    path.write_text(path.read_text()[:50])
    with pytest.raises(DataError, match=r"20261129-aaaaaaaa\.json"):
        batches.undecided(project)


def test_a_decision_of_the_first_version_names_its_one_batch(project: Params) -> None:
    batch(project, "20261129-aaaaaaaa", MORNING)
    record = decision(project, ["20261129-aaaaaaaa"]).as_json()
    del record["batches"]
    write_json(record_path(Path(), project.data.name, "20261129-aaaaaaaa"), record | {"batch": record["key"]})
    assert batches.undecided(project) == []


def test_datasets_in_one_project_have_batches_and_decisions_of_their_own(project: Params) -> None:
    other = params_for("source", data={"name": "other"})
    batch(project, "20261129-aaaaaaaa", MORNING)
    decision(project, ["20261129-aaaaaaaa"])
    batch(other, "20261129-aaaaaaaa", NOON)
    assert batches.undecided(other) == ["20261129-aaaaaaaa"] and batches.undecided(project) == []
    decision(other, ["20261129-aaaaaaaa"])
    assert batches.undecided(other) == [] and batches.undecided(project) == []


def run(*command: Any) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("killed", ["before the .dvc file", "before the commit", "before the tag"])
def test_a_batch_that_a_kill_left_unrecorded_is_recorded_once(project: Params, killed: str) -> None:
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"], ["git", "add", "-A"]):
        run(*command)
    git.commit([Path(".dvc"), Path(".dvcignore")], "start")
    batch(project, "20261129-aaaaaaaa", MORNING)
    folder = batches.folder_of(project) / "20261129-aaaaaaaa"
    if killed != "before the .dvc file":
        batches.record(project, folder.name, folder)
        run("git", "tag", "--delete", batches.tag_of(project, folder.name))
    if killed == "before the commit":
        run("git", "reset", "-q", "HEAD~1")
    for _ in range(2):
        batches.finish(project)
    assert (
        run("git", "log", "--format=%s").splitlines().count("Data of tiny: batch 20261129-aaaaaaaa, 1 items")
        == 1
    )
    assert run("git", "tag").split() == ["data/tiny/20261129-aaaaaaaa"]
    assert Path(f"{folder}.dvc").exists() and run("git", "status", "--porcelain", "-uno") == ""


def in_git(p: Params, name: str) -> Path:
    """A recorded batch, with decision, of a project in git; its folder."""
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        run(*command)
    git.commit([Path(".dvc"), Path(".dvcignore")], "start")
    batch(p, "new", MORNING)
    folder = batches.folder_of(p) / "new"
    files = json.loads((folder / "batch.json").read_text())["files"]
    folder = folder.rename(folder.with_name(f"{name}-{batches.content_of(folder, files)}"))
    batches.record(p, folder.name, folder)
    decision(p, [folder.name])
    return folder


@pytest.mark.parametrize("removed_from_git", [False, True])
def test_a_recorded_batch_that_is_gone_stops_until_it_is_restored_as_the_remedy_says(
    project: Params, removed_from_git: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    folder = in_git(project, "20261129")
    tracked = Path(f"{folder}.dvc")
    shutil.rmtree(folder)
    tracked.unlink()
    if removed_from_git:
        run("git", "commit", "-qam", "removed")
    with pytest.raises(StageError, match="gone, but git has them") as error:
        batches.provide(project)
    with pytest.raises(StageError, match="gone, but git has them"):
        batches.finish(project)
    restore, remove = re.findall(r"git checkout \S+ -- \S+(?=,)|git rm.*", error.value.remedy)
    run(*restore.split())
    batches.provide(project)
    assert (folder / "batch.json").exists()
    shutil.rmtree(folder)
    tracked.unlink()
    elsewhere = project.model_copy(update={"data": project.data.model_copy(update={"batches": "other"})})
    with pytest.raises(StageError, match=r"set data\.batches in params\.yaml to the folder where they are"):
        batches.provide(elsewhere)
    rm, _, tag = re.split(", (?:and )?", remove)
    run(*rm.split())
    run("git", "commit", "-qm", "removed", "--allow-empty")
    run(*tag.split())
    batches.provide(project)


@pytest.mark.parametrize("tracked", [True, False])
def test_a_renamed_batch_stops_until_it_is_renamed_back(project: Params, tracked: bool) -> None:
    folder = in_git(project, "20261129")
    folder.rename(folder.with_name("other"))
    if not tracked:
        Path(f"{folder}.dvc").unlink()
    with pytest.raises(StageError, match=f"has the content of batch {folder.name}") as error:
        batches.finish(project)
    run(*error.value.remedy.removeprefix("rename it back: ").split())
    batches.finish(project)
    assert [path.name for path in folder.parent.glob("*.dvc")] == [f"{folder.name}.dvc"]


@pytest.mark.parametrize("name", ["00000000-copy", "99999999-copy"])
def test_a_copy_of_a_batch_is_not_counted_as_another_one(project: Params, name: str) -> None:
    batch(project, "20261129-aaaaaaaa", MORNING)
    folder = batches.folder_of(project) / "20261129-aaaaaaaa"
    Path(f"{folder}.dvc").touch()
    shutil.copytree(folder, folder.with_name(name))
    with pytest.raises(StageError, match="are one batch") as error:
        batches.require_complete(project)
    run(*error.value.remedy.removeprefix("remove the copy: ").split())
    batches.require_complete(project)
    assert folder.exists()


def test_without_git_a_batch_with_a_decision_is_missed(project: Params) -> None:
    batch(project, "20261129-aaaaaaaa", MORNING)
    decision(project, ["20261129-aaaaaaaa"])
    batches.require_complete(project)
    shutil.rmtree(batches.folder_of(project) / "20261129-aaaaaaaa")
    with pytest.raises(StageError, match="has decisions on them: 20261129-aaaaaaaa"):
        batches.require_complete(project)


def test_the_error_of_a_batch_that_dvc_cannot_record_has_the_reason(project: Params) -> None:
    in_git(project, "20261129")
    Path(".gitignore").write_text("/data/\n")
    batch(project, "20261130-aaaaaaaa", NOON)
    with pytest.raises(StageError, match="git-ignored"):
        batches.finish(project)


@pytest.mark.parametrize("name", ["my batch", "a:b", "a..b", "a.", "-a", "a.lock", "b.dvc", "history", "a~1"])
def test_a_batch_made_by_hand_whose_name_git_or_a_decision_refuses_is_not_recorded(
    project: Params, name: str
) -> None:
    batch(project, name, None)
    with pytest.raises(StageError, match="not usable as the name of a batch"):
        batches.finish(project)
    assert [path.name for path in batches.folder_of(project).iterdir()] == [name]


def test_an_empty_folder_is_no_batch(project: Params) -> None:
    batch(project, "20250101-hand_2+é", None)
    batches.require_complete(project)
    folder = batches.folder_of(project) / "20261129-aaaaaaaa"
    (folder / "images").mkdir(parents=True)
    with pytest.raises(StageError, match="is empty") as error:
        batches.finish(project)
    run(*error.value.remedy.removeprefix("remove it: ").split())
    batches.require_complete(project)


@pytest.mark.parametrize("gone", [".git", ".dvc"])
def test_a_round_in_a_copy_without_git_or_dvc_goes_on(
    project: Params, gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    in_git(project, "20261129")
    shutil.rmtree(gone)
    batches.provide(project)
    batches.finish(project)
