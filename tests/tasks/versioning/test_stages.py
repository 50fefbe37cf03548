"""Stages and run keys of a small pipeline that DVC runs."""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from segcore.errors import StageError
from tasks.versioning import git
from tasks.versioning import stages as versioning
from tasks.versioning.lock_repair import repair
from tasks.versioning.status import stages, survey

ROOT = Path(__file__).parents[3]
PIPELINE = """\
stages:
  prepare:
    cmd: mkdir -p data/prepared && touch data/prepared/x
    params: [seeds]
    outs: [data/prepared]
  train:
    matrix: {architecture: "${architectures}", seed: "${seeds}"}
    cmd: python train.py ${item.architecture} ${item.seed}
    deps: [data/prepared, train.py]
    params: [train.common, "train.${item.architecture}"]
    outs: ["models/${item.architecture}-${item.seed}"]
"""
TRAIN = """\
import sys
from pathlib import Path
from tasks.versioning import stages as versioning
name = "-".join(sys.argv[1:])
print("working", file=sys.stderr)
if Path("fail").exists():
    raise ValueError("fails as requested")
Path("keys").mkdir(exist_ok=True)
Path("keys", name).write_text(versioning.run_key())
Path("models").mkdir(exist_ok=True)
Path("models", name).write_text("weights")
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "train.py").write_text(TRAIN)
    params = "{architectures: [fcn, unet], seeds: [0], train: {common: {rate: 1.0e-3}, fcn: {}, unet: {}}}"
    (folder / "params.yaml").write_text(params)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        versioning.init_if_needed()
    return folder


@pytest.fixture(autouse=True)
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_stages_come_after_what_they_depend_on() -> None:
    graph = stages()
    assert [s.name for s in graph] == ["prepare", "train@fcn-0", "train@unet-0"]
    assert graph[2] == versioning.Stage("train@unet-0", "train", ("prepare",), "unet", 0)


def test_stage_runs_once_then_is_cached_under_one_key() -> None:
    assert versioning.run_key("train@fcn-0") is None and versioning.data_version() is None
    seen: list[str] = []
    assert versioning.reproduce("prepare") == "ran"
    assert versioning.reproduce("train@fcn-0", live=seen.append) == "ran"
    assert "working" in "".join(seen)
    assert versioning.reproduce("train@fcn-0") == "cached"
    assert survey().unchanged == {"prepare", "train@fcn-0"}
    key = versioning.run_key("train@fcn-0")
    assert key is not None and Path("keys/fcn-0").read_text() == key, (
        "the same inside the stage and afterwards"
    )
    assert versioning.run_key() is None, "this process is not a stage"
    Path("models/fcn-0").unlink()
    assert versioning.reproduce("train@fcn-0") == "cached", "restored"
    assert Path("models/fcn-0").read_text() == "weights"
    assert versioning.reproduce("train@fcn-0", force=True) == "ran"
    assert str(versioning.data_version()).endswith(".dir")


def test_the_error_of_a_failing_stage_has_its_last_lines() -> None:
    Path("fail").touch()
    try:
        with pytest.raises(StageError, match="fails as requested") as caught:
            versioning.reproduce("train@unet-0", live=None)
    finally:
        Path("fail").unlink()
    assert "train@unet-0" in str(caught.value) and "Remedy" in str(caught.value)


def test_the_error_of_a_stage_that_does_not_start_has_the_cause() -> None:
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace(", unet: {}", ""))
    try:
        with pytest.raises(StageError, match=r"status \d+: .*'train.unet'"):
            versioning.reproduce("train@unet-0", live=None)
    finally:
        Path("params.yaml").write_text(text)


def test_an_invalid_dvc_yaml_is_reported() -> None:
    text = Path("dvc.yaml").read_text()
    Path("dvc.yaml").write_text(text.replace("${seeds}", "${seed}"))
    try:
        with pytest.raises(StageError, match="seed"):
            stages()
    finally:
        Path("dvc.yaml").write_text(text)


def test_a_run_key_waits_while_another_stage_writes_the_lock() -> None:
    versioning.reproduce("prepare")
    lock, expected = Path("dvc.lock"), versioning.next_run_key("train@unet-0")
    whole = lock.read_text()
    with ThreadPoolExecutor() as pool:
        with versioning.dvc_locked():
            lock.write_text(whole[: whole.index("outs:")])
            keys = [pool.submit(versioning.next_run_key, "train@unet-0"), pool.submit(survey)]
            finished, _ = wait(keys, timeout=2)
            lock.write_text(whole)
        assert not finished, "DVC's lock is held"
        assert keys[0].result(timeout=60) == expected and keys[1].result(timeout=60).graph


def test_a_lock_truncated_anywhere_is_repaired_and_nothing_runs_again() -> None:
    from dvc.repo import Repo

    for name in ("prepare", "train@fcn-0", "train@unet-0"):
        versioning.reproduce(name)
    lock, processes_list = Path("dvc.lock"), Path(".dvc/tmp/rwlock")
    whole, outcomes = lock.read_text(), set()
    lines = [found.end() for found in re.finditer("\n", whole)]
    for length in sorted({*range(0, len(whole), 53), *lines}):
        lock.write_text(whole[:length])
        with Repo() as repo:
            outcomes.add(bool(repair(repo)))
            # fails if dvc.lock is truncated
            repo.status()
        assert lock.read_text() == whole, "also where the beginning is valid by itself"
    assert outcomes == {True, False}
    lock.write_text(whole[:-20])
    Path("work/dvc.lock.good").write_text(whole[:-20])
    with Repo() as repo:
        assert repair(repo) and not lock.exists(), "a damaged copy is not restored"
    lock.write_text(whole)
    with Repo() as repo:
        assert not repair(repo) and Path("work/dvc.lock.good").read_text() == whole
    for length in (0, whole.index("train@fcn-0:"), len(whole) - 20):
        lock.write_text(whole[:length])
        processes_list.write_text("")
        survey()
        ran = {name: versioning.reproduce(name) for name in ("train@fcn-0", "train@unet-0")}
        assert set(ran.values()) == {"cached"}, "from the run cache"
    versioning.reproduce("prepare")
    assert lock.read_text() == whole


def test_a_failed_stage_repairs_the_lock_for_the_retry() -> None:
    whole = Path("dvc.lock").read_text()
    Path("dvc.lock").write_text(whole[: whole.rindex("md5") + 3])
    with pytest.raises(StageError, match="truncated by a kill"):
        versioning.reproduce("train@fcn-0", live=None)
    versioning.reproduce("train@fcn-0")
    versioning.reproduce("train@unet-0")
    assert Path("dvc.lock").read_text() == whole


def test_a_lock_with_merge_conflicts_is_reported_and_kept() -> None:
    whole = Path("dvc.lock").read_text()
    damaged = whole.replace("    cmd:", "<<<<<<< HEAD\n    cmd:", 1)
    Path("dvc.lock").write_text(damaged)
    try:
        with pytest.raises(StageError, match=r"dvc\.lock"):
            survey()
        assert Path("dvc.lock").read_text() == damaged
    finally:
        Path("dvc.lock").write_text(whole)


def test_prune_removes_only_folders_without_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = [versioning.Stage("evaluate@unet-0", "evaluate", (), "unet", 0)]
    graph += [versioning.Stage("train@unet-0", "train", (), "unet", 0)]
    monkeypatch.chdir(tmp_path)
    for name in ("evaluations/unet-0", "evaluations/old-0", "models/unet-0", "models/old-0", "models/my own"):
        Path(name).mkdir(parents=True)
    assert versioning.prune(graph) == [Path("evaluations/old-0"), Path("models/old-0")]
    assert sorted(p.name for p in Path("models").iterdir()) == ["my own", "unet-0"]


def test_git_state_outside_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git.state() == (None, False)
