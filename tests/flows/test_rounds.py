"""Rounds after kills, refused pushes and several deliveries: everything is judged, committed and pushed once."""

import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from segcore import params
from tasks.batches import next_round
from tests.support import retraining, workspaces
from tests.support.books import check_books
from tests.support.tiny import blobs


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def receive(folder: Path) -> None:
    """The first step of a round alone, as if the round was killed after it."""
    subprocess.run(
        [sys.executable, "-m", "tasks", "receive"],
        cwd=folder,
        env=workspaces.environment(folder),
        check=True,
        capture_output=True,
    )


def decisions(folder: Path) -> list[Path]:
    """Files of the decisions on batches."""
    paths = [folder / f"decisions/tiny/{name}.json" for name in retraining.batches(folder)]
    return [path for path in paths if path.exists()]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, after_first_round: Path) -> Path:
    """A project after its first round; its git remote refuses every push."""
    folder = retraining.copy(after_first_round, tmp_path_factory.mktemp("rounds") / "project")
    retraining.use_constant_costs(folder)
    retraining.edit(folder, retrain={"push_git": True})
    remote = folder.with_name("remote.git")
    git(folder, "init", "-q", "--bare", str(remote))
    git(folder, "remote", "add", "origin", str(remote))
    git(folder, "push", "-q", "--set-upstream", "origin", "HEAD")
    hook = remote / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho 'no space on the server'; exit 1\n")
    hook.chmod(0o755)
    return folder


@pytest.mark.slow
def test_one_decision_judges_all_batches_and_a_refused_push_does_not_hide_it(
    project: Path, server: str
) -> None:
    retraining.arrive(project, ["a1", "a2"], seed=300)
    receive(project)
    retraining.arrive(project, ["b1"], seed=310)
    receive(project)
    hand = project / "data/batches/tiny/20200101-hand"
    for kind, array in zip(("images", "masks"), blobs(48, 56, seed=320), strict=True):
        (hand / kind).mkdir(parents=True)
        # one band, the others have three: all items of this batch are quarantined at the ingest
        Image.fromarray(array).convert("L").save(hand / kind / "h1.png")
    status, output = retraining.retrain(project, PREFECT_API_URL=server)
    assert status == 1 and "Traceback" not in output, output
    (summary,) = [line for line in output.splitlines() if line.startswith(("Kept:", "Promoted:"))]
    assert "; not pushed: git push failed" in summary and "no space on the server" in summary
    newest = decisions(project)[0].stem
    judged = retraining.record(project, newest)["batches"]
    assert judged[0] == "20200101-hand" and judged[-1] == newest
    assert sorted(judged) == retraining.batches(project) and len(judged) == 3
    assert git(project, "log", "-1", "--format=%s") == f"Retraining of tiny on batch {', '.join(judged)}"
    table = pd.read_parquet(project / "data/ingested/catalog.parquet")
    assert table.groupby("batch")["status"].agg(set).to_dict() == {
        "0": {"accepted"},
        judged[0]: {"quarantined"},
        judged[1]: {"accepted"},
        judged[2]: {"accepted"},
    }
    assert check_books(project) == []


@pytest.mark.slow
def test_a_round_killed_before_its_commit_is_committed_by_the_next_one(project: Path, server: str) -> None:
    before, page = git(project, "show", "--stat", "--format=%B"), project / "reports/tiny/index.html"
    git(project, "reset", "-q", "HEAD~1")
    (newest,) = decisions(project)
    os.utime(page, (time.time() - 60,) * 2)
    os.utime(newest)
    status, output = retraining.retrain(project, PREFECT_API_URL=server)
    assert status == 1 and "Nothing new" in output and "not pushed: git push failed" in output, output
    assert git(project, "show", "--stat", "--format=%B") == before
    assert page.stat().st_mtime > newest.stat().st_mtime, "the report shows the decision"
    assert check_books(project) == []


@pytest.mark.slow
def test_a_refused_push_of_data_does_not_keep_git_from_pushing_what_is_owed(
    project: Path, server: str
) -> None:
    remote = project.with_name("remote.git")
    (remote / "hooks/pre-receive").unlink()
    (project / ".dvc/config.local").write_text(
        f"[core]\n    remote = store\n['remote \"store\"']\n    url = {project / 'params.yaml'}/store\n"
    )
    status, output = retraining.retrain(project, PREFECT_API_URL=server)
    (project / ".dvc/config.local").unlink()
    assert status == 1 and "not pushed: dvc push failed" in output and "git push failed" not in output, output
    assert git(remote, "rev-parse", "HEAD") == git(project, "rev-parse", "HEAD")
    tags = {f"data/tiny/{name}" for name in retraining.batches(project)}
    assert set(git(remote, "tag").split()) == tags
    status, output = retraining.retrain(project, PREFECT_API_URL=server)
    assert status == 0 and "Unchanged: Nothing new" in output, output


def test_a_repository_that_git_refuses_stops_the_round_before_the_inbox_is_touched(
    after_first_round: Path, tmp_path: Path, server: str
) -> None:
    folder = retraining.copy(after_first_round, tmp_path / "project")
    retraining.arrive(folder, ["n1"], seed=300)
    (folder / ".git/HEAD").write_text("")
    status, output = retraining.retrain(folder, PREFECT_API_URL=server)
    assert status == 1 and ".git/HEAD" in output and "Remedy:" in output and "Traceback" not in output, output
    assert retraining.batches(folder) == [] and (folder / "data/inbox/images/n1.png").exists()


def test_a_batch_edited_by_hand_stops_a_round_and_an_absent_one_is_pulled(
    after_first_round: Path, tmp_path: Path, server: str
) -> None:
    folder = retraining.copy(after_first_round, tmp_path / "project")
    retraining.arrive(folder, ["n1"], seed=300)
    receive(folder)
    (batch,) = retraining.batches(folder)
    image = folder / f"data/batches/tiny/{batch}/images/n1.png"
    content = image.read_bytes()
    image.unlink()
    image.write_bytes(content + b"edited")
    retraining.arrive(folder, ["n2"], seed=301)
    status, output = retraining.retrain(folder, PREFECT_API_URL=server)
    assert status == 1 and batch in output and "dvc checkout" in output, output
    assert (folder / "data/inbox/images/n2.png").exists()
    shutil.rmtree(image.parents[1])
    status, output = retraining.retrain(folder, "--dry-run", PREFECT_API_URL=server)
    assert status == 0 and f"Batch {batch}: would be pulled" in output, output
    assert not image.exists()


def test_rounds_wait_for_the_hours_that_params_yaml_asks_for_and_killed_ones_do_not(
    after_first_round: Path, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = retraining.copy(after_first_round, tmp_path / "project")
    retraining.edit(folder, retrain={"at_least": {"hours": 20}})
    retraining.arrive(folder, ["n1"], seed=300)
    status, output = retraining.retrain(folder, PREFECT_API_URL=server)
    assert status == 0 and "Waiting: The next round may begin at" in output, output
    assert (folder / "data/inbox/images/n1.png").exists()
    monkeypatch.chdir(folder)
    begins = next_round(params.load())
    assert begins is not None
    assert timedelta(hours=19) < begins - datetime.now(UTC) < timedelta(hours=20)
    receive(folder)
    assert next_round(params.load()) is None, "the batch of a killed round does not wait"
