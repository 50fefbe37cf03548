"""Rounds of retraining that are killed at random moments end like undisturbed ones.

`make test` kills three times, `make test-all` ten times, `make test-crash` fifty times (SEGFLOW_KILLS). A round is
killed at up to ten moments, drawn uniformly from its duration; each time a random kind of process is killed. Then the
round is completed, its results are compared with those of the undisturbed round, and the next round begins.
"""

import hashlib
import json
import os
import random
import re
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from mlflow import MlflowClient

from segcore.models.base.bundle import load_bundle
from tests.support import retraining, workspaces

FEW, MANY = 3, int(os.environ.get("SEGFLOW_KILLS", "10"))
KILLS_PER_ROUND = 10
SEED = int(os.environ.get("SEGFLOW_KILL_SEED", "0"))
VICTIMS = ("flow", "stage", "dvc", "all")
# seconds for orphans to end
ORPHANS_GONE = 20


class Round:
    """A project after its first round with a batch in the inbox; `restore` returns it to that state."""

    def __init__(self, first: Path, folder: Path, api: str) -> None:
        self.folder, self.api, self.kept = folder, api, folder.with_name("kept")
        retraining.copy(first, folder)
        retraining.arrive(folder, ["n1", "n2", "n3"], seed=300)
        subprocess.run(["cp", "-a", folder, self.kept], check=True)

    def start(self) -> subprocess.Popen[str]:
        return retraining.start(self.folder, PREFECT_API_URL=self.api)

    def undisturbed(self) -> tuple[float, float]:
        """Seconds until the flow's first output, and until it ends."""
        start, flow = time.monotonic(), self.start()
        assert flow.stdout is not None
        first = flow.stdout.readline()
        begun = time.monotonic() - start
        output, _ = flow.communicate(timeout=300)
        assert flow.returncode == 0, first + output
        return begun, time.monotonic() - start

    def restore(self) -> None:
        subprocess.run(["rm", "-rf", self.folder], check=True)
        subprocess.run(["cp", "-a", self.kept, self.folder], check=True)

    def outcome(self) -> dict[str, Any]:
        """Results that must not depend on kills; all files are read completely."""
        folder = self.folder
        load_bundle(folder / "models/unet-0")
        table = pd.read_parquet(folder / "data/ingested/catalog.parquet")
        for name in ("items", "regions", "windows"):
            pd.read_parquet(folder / f"data/prepared/{name}.parquet")
        (batch,) = retraining.batches(folder)
        commits = subprocess.run(
            ["git", "log", "--format=%s"], cwd=folder, capture_output=True, text=True, check=True
        )
        client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
        return {
            "weights": hashlib.sha256((folder / "models/unet-0/model.safetensors").read_bytes()).hexdigest(),
            "metrics": json.loads((folder / "comparison/metrics.json").read_text()),
            "items": sorted(table["id"]),
            "batch": batch.partition("-")[2],
            "inbox": sorted(
                p.name for p in (folder / "data/inbox").rglob("*.png") if ".taken" not in p.parts
            ),
            "taken": sorted(p.name for p in (folder / "data/inbox/.taken").rglob("*.png")),
            "commits": sorted(
                s.partition(":")[0].partition(" on batch")[0] for s in commits.stdout.splitlines()
            ),
            "decided": retraining.record(folder, batch)["acted"] is not None,
            "champion": "champion" in client.get_registered_model("tiny").aliases,
            "statuses": {
                run.info.status
                for kind in ("training", "comparison")
                for run in workspaces.runs(folder, kind)
            },
        }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, after_first_round: Path, server: str) -> Round:
    return Round(after_first_round, tmp_path_factory.mktemp("crash") / "project", server)


def living(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            if Path(process.cwd()) == folder and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill(victim: str, flow: subprocess.Popen[str], folder: Path, dice: random.Random) -> str:
    """Kill -9 a process of a kind, or the flow if there is none of that kind now; returns the kind killed."""
    here = living(folder)
    words = {p: " ".join(p.cmdline()) for p in here}
    kinds = {
        "stage": [p for p, text in words.items() if re.search(r"-m tasks[ .]", text) and "dvc" not in text],
        "dvc": [p for p, text in words.items() if "-m dvc" in text and "processes.py" not in text],
        "all": here,
    }
    found = kinds.get(victim) or []
    if not found:
        victim, found = "flow", [p for p in here if p.pid == flow.pid]
    for process in found if victim == "all" else [dice.choice(found)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return victim


def gone(folder: Path) -> bool:
    deadline = time.monotonic() + ORPHANS_GONE
    while living(folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def held_slots(api: str) -> int:
    import urllib.request

    body = json.dumps({}).encode()
    request = urllib.request.Request(
        f"{api}/v2/concurrency_limits/filter", body, {"Content-Type": "application/json"}, method="POST"
    )
    limits = json.loads(urllib.request.urlopen(request, timeout=30).read())
    return sum(limit["active_slots"] for limit in limits if limit["name"] == "segflow-gpu")


class Attempts:
    """The flow of one round, restarted after each kill that ended it."""

    def __init__(self, project: Round) -> None:
        self.project, self.flow, self.hurt = project, project.start(), False

    def ends_within(self, seconds: float) -> bool:
        """Whether the flow ended in time; it may fail only if one of its processes was killed."""
        try:
            output, _ = self.flow.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return False
        assert self.flow.returncode == 0 or self.hurt, output
        return True

    def again(self) -> None:
        assert gone(self.project.folder), f"left behind: {living(self.project.folder)}"
        self.flow, self.hurt = self.project.start(), False

    def kill(self, dice: random.Random) -> str:
        self.hurt = True
        victim = kill(dice.choice(VICTIMS), self.flow, self.project.folder, dice)
        if victim in ("flow", "all"):
            self.flow.communicate(timeout=ORPHANS_GONE)
        return victim


def disturb(
    project: Round, moments: list[float], begun: float, longest: float, dice: random.Random
) -> list[str]:
    """Kill processes of one round and complete it; returns the kinds killed, fewer than moments if it ends earlier.

    Args:
        project: the project.
        moments: seconds since the start of the round, ascending.
        begun: seconds that a start of the flow takes, added after each restart.
        longest: seconds that the rest of the round may take.
        dice: random numbers that select processes.
    """
    victims: list[str] = []
    attempts, now = Attempts(project), 0.0
    for moment in moments:
        wait, now = moment - now, moment
        while attempts.flow.returncode is not None or attempts.ends_within(wait):
            if attempts.flow.returncode == 0:
                return victims
            attempts.again()
            wait += begun
        victims.append(attempts.kill(dice))
        print(f"kill {len(victims)} of this round: {victims[-1]} after {moment:.0f} s", flush=True)
    while attempts.flow.returncode != 0:
        if attempts.flow.returncode is not None:
            attempts.again()
        assert attempts.ends_within(longest), "the round does not end"
    return victims


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.timeout(600 + 180 * MANY)
def test_a_round_killed_at_random_moments_ends_like_the_undisturbed_one(project: Round, count: int) -> None:
    project.restore()
    begun, usual = project.undisturbed()
    expected = project.outcome()
    assert expected["statuses"] == {"FINISHED"} and expected["inbox"] == [] and expected["decided"]
    dice, kills, whole = random.Random(SEED), Counter[str](), 0
    while (left := count - sum(kills.values())) > 0:
        project.restore()
        moments = sorted(dice.uniform(1, usual) for _ in range(min(left, KILLS_PER_ROUND)))
        kills.update(disturb(project, moments, begun, 10 * usual, dice))
        whole += 1
        assert gone(project.folder), f"left behind: {living(project.folder)}"
        assert project.outcome() == expected, f"after {sum(kills.values())} kills"
        assert held_slots(project.api) == 0
    print(
        f"{sum(kills.values())} kills ({dict(kills)}) in {whole} rounds; each ended like the undisturbed one"
    )
