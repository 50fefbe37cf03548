"""Rounds of a tiny project: first champion, nothing new, a batch with a bad item, two rounds at once."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from segcore.files import locked
from tasks.project import COMPARE_LOCK
from tests.support import retraining, workspaces


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def aliases(folder: Path) -> dict[str, str]:
    """Version by alias."""
    found = dict(MlflowClient(f"sqlite:///{folder}/mlflow.db").get_registered_model("tiny").aliases)
    return {alias: str(version) for alias, version in found.items()}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, after_first_round: Path) -> Path:
    """A project after its first round: the inbox was empty, and there was no champion yet."""
    return retraining.copy(after_first_round, tmp_path_factory.mktemp("rounds") / "project")


def test_the_first_round_makes_a_champion_and_commits_the_decision(first: Path) -> None:
    assert aliases(first)["champion"] == "1"
    message = git(first, "log", "-1", "--format=%B")
    assert message.startswith("Retraining of tiny on batch 0")
    changed = git(first, "show", "--name-only", "--format=", "HEAD").split()
    assert {"dvc.lock", "splits/tiny.csv", "reports/tiny/scores.md"} <= set(changed)
    assert any(name.startswith("decisions/tiny/") for name in changed)
    assert git(first, "status", "--porcelain", "--untracked-files=no") == ""


def test_a_round_without_new_data_stops_early_and_reports_it(first: Path, server: str) -> None:
    before = git(first, "rev-parse", "HEAD")
    status, output = retraining.retrain(first, PREFECT_API_URL=server)
    assert status == 0 and "Unchanged: Nothing new" in output
    assert "train@unet-0" not in output and git(first, "rev-parse", "HEAD") == before


def test_a_round_waits_for_a_comparison_that_was_started_by_hand(first: Path, server: str) -> None:
    with locked(first / COMPARE_LOCK):
        process = retraining.start(first, PREFECT_API_URL=server)
        assert process.stdout
        for line in process.stdout:
            if "waiting for the comparison that is running in this folder" in line:
                break
        assert process.poll() is None
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0 and "Unchanged: Nothing new" in output


def test_a_dry_run_changes_no_file_and_reports_what_a_round_would_do(first: Path, server: str) -> None:
    retraining.arrive(first, ["n1", "n2", "n3", "n4"], seed=300)
    retraining.arrive(first, ["broken"], seed=400)
    (first / "data/inbox/masks/broken.png").unlink()
    before = retraining.listing(first)
    status, output = retraining.retrain(first, "--dry-run", PREFECT_API_URL=server)
    assert status == 0, output
    assert retraining.listing(first) == before
    for text in (
        "4 would be accepted",
        "would be quarantined: broken.png: has no mask",
        "8 of 8 stages would run: ingest, plan",
        "train@unet-0: 4 steps",
        "Champion: U-Net, version 1",
        "Data of tiny: batch",
        "Retraining of tiny on batch",
        "DryRun:",
    ):
        assert text in output, text


def test_a_dry_run_lists_what_would_stop_a_round_and_fails(first: Path, server: str) -> None:
    head = (first / ".git/HEAD").read_text()
    (first / ".git/HEAD").write_text("")
    before = retraining.listing(first)
    status, output = retraining.retrain(first, "--dry-run", PREFECT_API_URL=server)
    assert retraining.listing(first) == before
    (first / ".git/HEAD").write_text(head)
    assert status == 1 and "a round would stop" in output and ".git/HEAD" in output
    assert "4 would be accepted" in output, "the rest is reported as well"
    assert "Traceback" not in output


def test_of_two_rounds_at_once_one_runs(first: Path, server: str) -> None:
    old = pd.read_parquet(first / "data/prepared/regions.parquet").set_index("id")["split"]
    one, two = (retraining.start(first, PREFECT_API_URL=server) for _ in range(2))
    outputs = [process.communicate(timeout=300)[0] for process in (one, two)]
    assert [one.returncode, two.returncode] == [0, 0], outputs
    assert sum("Skipped: another retraining is running" in output for output in outputs) == 1
    (batch,) = retraining.batches(first)
    decision = retraining.record(first, batch)
    assert decision["outcome"] in ("promoted", "kept") and decision["acted"]
    assert sum(decision["reason"] in output for output in outputs) == 1
    page = (first / "reports/tiny/index.html").read_text()
    assert '<section id="champion">' in page and f"on batch {batch}" in page
    assert (aliases(first)["champion"] == "2") == (decision["outcome"] == "promoted")
    statuses = {
        run.info.status for kind in ("training", "comparison") for run in workspaces.runs(first, kind)
    }
    assert statuses == {"FINISHED"}
    messages = git(first, "log", "-2", "--format=%s").splitlines()
    assert messages[0] == f"Retraining of tiny on batch {batch}"
    assert messages[1].startswith(f"Data of tiny: batch {batch}") and f"data/tiny/{batch}" in git(
        first, "tag"
    )
    now = pd.read_parquet(first / "data/prepared/regions.parquet").set_index("id")["split"]
    assert len(now) == len(old) + 4 and now[old.index].equals(old), "no item ever changes its split"
    outputs = [retraining.retrain(first, PREFECT_API_URL=server)[1]]
    assert "Unchanged: Nothing new" in outputs[0] and retraining.record(first, batch) == decision, (
        "it is not decided again"
    )


def test_wrong_params_are_reported_before_anything_starts(first: Path) -> None:
    text = (first / "params.yaml").read_text()
    (first / "params.yaml").write_text(text.replace("replan:", "inboxx:"))
    status, output = retraining.retrain(first)
    (first / "params.yaml").write_text(text)
    assert status == 1 and "inboxx" in output and "Remedy:" in output and "Traceback" not in output


def test_a_network_that_cannot_be_built_stops_a_round_before_the_inbox_changes(
    after_first_round: Path, tmp_path: Path, server: str
) -> None:
    folder = retraining.copy(after_first_round, tmp_path / "project")
    retraining.edit(folder, train={"unet": {"model": {"norm": "layer"}}})
    retraining.arrive(folder, ["n1", "n2"], seed=300)
    arrived = sorted((folder / "data/inbox").rglob("*.png"))
    status, output = retraining.retrain(folder, PREFECT_API_URL=server)
    assert status == 1 and "Traceback" not in output
    assert "Error: params.yaml: train.unet.model.norm: norm 'layer' is unknown" in output
    assert sorted((folder / "data/inbox").rglob("*.png")) == arrived
    status, output = retraining.retrain(folder, "--dry-run", PREFECT_API_URL=server)
    assert status == 1 and "train.unet.model.norm: norm 'layer' is unknown" in output


def test_without_git_a_batch_is_received_and_versioned_by_dvc(
    after_first_round: Path, tmp_path: Path
) -> None:
    """As in files unpacked from an archive: DVC versions the data, and nothing is committed."""
    folder = retraining.copy(after_first_round, tmp_path / "project")
    shutil.rmtree(folder / ".git")
    retraining.arrive(folder, ["n1", "n2"], seed=300)
    env = workspaces.environment(folder, GIT_CEILING_DIRECTORIES=str(tmp_path))
    for command in (["tasks", "receive"], ["dvc", "repro", "prepare"]):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=folder, env=env, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
    (batch,) = retraining.batches(folder)
    assert (folder / f"data/batches/tiny/{batch}.dvc").exists()
    items = pd.read_parquet(folder / "data/prepared/items.parquet")
    assert (items["batch"] == batch).sum() == 2
