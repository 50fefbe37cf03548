"""Exchange between clones: revisions through git, results through DVC's remote; restoring never runs a stage."""

import subprocess
from pathlib import Path

import pytest

from segcore.errors import StageError
from tasks.versioning import git as revisions
from tasks.versioning import remote as versioning_workers
from tasks.versioning import stages as versioning
from tasks.versioning.status import stages

PIPELINE = """\
stages:
  prepare:
    cmd: mkdir -p data && cp {source} data/prepared && touch ran-prepare
    deps: [{source}]
    outs: [data/prepared]
  train:
    matrix: {{architecture: [unet], seed: [0]}}
    cmd: mkdir -p models && cp data/prepared models/unet-0 && touch ran-train
    deps: [data/prepared]
    outs: [models/unet-0]
  evaluate:
    matrix: {{architecture: [unet], seed: [0]}}
    cmd: mkdir -p evaluations && cp models/unet-0 evaluations/unet-0 && touch ran-evaluate
    deps: [models/unet-0]
    outs: [evaluations/unet-0]
"""


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def clones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The client's clone, with its source outside, and a worker's clone that cannot see the source."""
    client, worker = tmp_path / "client", tmp_path / "worker"
    (tmp_path / "source").write_text("pixels")
    git(tmp_path, "init", "-q", "--bare", "origin.git")
    git(tmp_path, "clone", "-q", "origin.git", "client")
    (client / "dvc.yaml").write_text(PIPELINE.format(source=tmp_path / "source"))
    (client / ".gitignore").write_text("/ran-*\n/data\n/models\n/evaluations\n")
    monkeypatch.chdir(client)
    versioning.init_if_needed()
    git(client, "add", "-A")
    git(client, "commit", "-qm", "start")
    git(client, "push", "-q", "origin", "HEAD")
    git(tmp_path, "clone", "-q", "origin.git", "worker")
    for folder in (client, worker):
        remote = f"[core]\n    remote = store\n['remote \"store\"']\n    url = {tmp_path / 'store'}\n"
        # the same as `dvc remote add --local -d`, which takes a second
        (folder / ".dvc/config.local").write_text(remote)
    return client, worker


def test_a_worker_runs_one_stage_and_the_client_restores_its_result_and_nothing_else_runs(
    clones: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, worker = clones
    assert not versioning_workers.restore("prepare")
    assert versioning.reproduce("prepare") == "ran"
    light = versioning_workers.light_before_heavy(stages())
    assert light == ["prepare"]
    versioning_workers.send(light)
    (client / "dvc.yaml").write_text((client / "dvc.yaml").read_text() + "# edited, not committed\n")
    revision = revisions.snapshot()
    assert not versioning_workers.restore("train@unet-0")
    key = versioning.next_run_key("train@unet-0")

    monkeypatch.chdir(worker)
    (tmp_path / "source").rename(tmp_path / "away")
    git(worker, "config", "segflow.worker", "true")
    revisions.check_out(revision)
    assert "edited" in (worker / "dvc.yaml").read_text()
    with pytest.raises(StageError, match="needs train@unet-0"):
        versioning_workers.provide("evaluate@unet-0")
    versioning_workers.provide("train@unet-0")
    assert not versioning_workers.restore("train@unet-0")
    assert versioning.reproduce("train@unet-0") == "ran"
    assert versioning.run_key("train@unet-0") == key
    versioning_workers.send(["train@unet-0"])
    assert sorted(p.name for p in worker.glob("ran-*")) == ["ran-train"]

    monkeypatch.chdir(client)
    (tmp_path / "away").rename(tmp_path / "source")
    assert versioning_workers.restore("train@unet-0")
    assert (client / "models/unet-0").read_text() == "pixels"
    assert sorted(p.name for p in client.glob("ran-*")) == ["ran-prepare"]


def test_a_snapshot_is_repeatable_and_touches_neither_branch_nor_index(clones: tuple[Path, Path]) -> None:
    client, _ = clones
    (client / "dvc.yaml").write_text((client / "dvc.yaml").read_text() + "# edited\n")
    (client / "notes.txt").write_text("mine")
    before = git(client, "rev-parse", "HEAD"), git(client, "status", "--porcelain")
    first = revisions.snapshot()
    assert first == revisions.snapshot()
    assert (git(client, "rev-parse", "HEAD"), git(client, "status", "--porcelain")) == before
    assert first in git(client, "ls-remote", "origin", f"refs/segflow/{first}")
    assert "notes.txt" not in git(client, "ls-tree", "--name-only", first).splitlines()


def test_edits_are_discarded_only_in_a_marked_clone(
    clones: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, worker = clones
    revision = revisions.snapshot()
    monkeypatch.chdir(worker)
    (worker / "dvc.yaml").write_text("mine")
    with pytest.raises(StageError, match=r"not marked(.|\n)*segflow.worker true"):
        revisions.check_out(revision)
    assert (worker / "dvc.yaml").read_text() == "mine"
    git(worker, "config", "segflow.worker", "true")
    revisions.check_out(revision)
    assert (worker / "dvc.yaml").read_text() == (client / "dvc.yaml").read_text()
    with pytest.raises(StageError, match="is not a revision"):
        revisions.check_out("--orphan")


def test_a_missing_remote_is_reported_before_anything_is_submitted(
    clones: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = clones
    (client / ".dvc/config.local").unlink()
    with pytest.raises(StageError, match="none is configured"):
        versioning_workers.check_remote()
    git(client, "remote", "remove", "origin")
    with pytest.raises(StageError, match="no remote 'origin'"):
        revisions.snapshot()
