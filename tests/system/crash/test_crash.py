"""Nights that are killed at random moments end like undisturbed ones.

`make test` kills three times, `make test-all` ten times, `make test-crash` fifty times (SEGFLOW_KILLS). A night is
killed several times, a victim of several kinds each time, at moments spread evenly over all that it does; then it comes
to its end, everything is compared with the night that nobody disturbed, and the next night begins.
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
from tests.support import nights, workspaces

FEW, MANY = 3, int(os.environ.get("SEGFLOW_KILLS", "10"))
KILLS_A_NIGHT = 10
SEED = int(os.environ.get("SEGFLOW_KILL_SEED", "0"))
VICTIMS = ("flow", "stage", "dvc", "all")
ORPHANS_GONE = 20  # seconds
KINDS = ("training", "comparison")  # of MLflow runs


class Night:
    """A project whose first night is over, with a batch in the inbox; it can be put back into that state."""

    def __init__(self, first: Path, folder: Path, api: str) -> None:
        self.folder, self.api, self.kept = folder, api, folder.with_name("kept")
        nights.copy(first, folder)
        nights.arrive(folder, ["n1", "n2", "n3"], seed=300)
        subprocess.run(["cp", "-a", folder, self.kept], check=True)

    def start(self) -> subprocess.Popen[str]:
        return nights.start(self.folder, PREFECT_API_URL=self.api)

    def undisturbed(self) -> tuple[float, float]:
        """Seconds until the flow says its first word, and until it ends."""
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
        """What must be the same whatever happened on the way; everything is read whole."""
        folder = self.folder
        load_bundle(folder / "models/unet-0")
        table = pd.read_parquet(folder / "data/ingested/catalog.parquet")
        for name in ("items", "regions", "windows"):
            pd.read_parquet(folder / f"data/prepared/{name}.parquet")
        (batch,) = nights.batches(folder)
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
            "decided": nights.record(folder, batch)["acted"] is not None,
            "champion": "champion" in client.get_registered_model("tiny").aliases,
            "statuses": {
                run.info.status
                for kind in ("training", "comparison")
                for run in workspaces.runs(folder, kind)
            },
        }


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory, after_first_night: Path, server: str) -> Night:
    return Night(after_first_night, tmp_path_factory.mktemp("crash") / "project", server)


def living(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            if Path(process.cwd()) == folder and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill(victim: str, flow: subprocess.Popen[str], folder: Path, dice: random.Random) -> str:
    """Kill -9 a victim; where there is none of its kind at the moment, the flow."""
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
    """The flow of one night, started again as often as kills have ended it."""

    def __init__(self, night: Night) -> None:
        self.night, self.flow, self.hurt = night, night.start(), False

    def ends_within(self, seconds: float) -> bool:
        """Whether the flow came to an end by itself; it may fail only where something of it was killed."""
        try:
            output, _ = self.flow.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return False
        assert self.flow.returncode == 0 or self.hurt, output
        return True

    def again(self) -> None:
        assert gone(self.night.folder), f"left behind: {living(self.night.folder)}"
        self.flow, self.hurt = self.night.start(), False

    def kill(self, dice: random.Random) -> str:
        self.hurt = True
        victim = kill(dice.choice(VICTIMS), self.flow, self.night.folder, dice)
        if victim in ("flow", "all"):
            self.flow.communicate(timeout=ORPHANS_GONE)
        return victim


def disturb(
    night: Night, moments: list[float], begun: float, longest: float, dice: random.Random
) -> list[str]:
    """Victims of one night, which ends before this returns; fewer than moments where it ends before the last of them.

    Args:
        moments: seconds into the night, ascending; a flow that is started again gets the seconds that its start takes.
        longest: seconds that what is left may take.
    """
    victims: list[str] = []
    attempts, now = Attempts(night), 0.0
    for moment in moments:
        wait, now = moment - now, moment
        while attempts.flow.returncode is not None or attempts.ends_within(wait):
            if attempts.flow.returncode == 0:
                return victims
            attempts.again()
            wait += begun
        victims.append(attempts.kill(dice))
        print(f"kill {len(victims)} of this night: {victims[-1]} after {moment:.0f} s", flush=True)
    while attempts.flow.returncode != 0:
        if attempts.flow.returncode is not None:
            attempts.again()
        assert attempts.ends_within(longest), "the night does not end"
    return victims


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.timeout(600 + 180 * MANY)
def test_killed_at_random_moments_every_night_ends_like_the_undisturbed_one(night: Night, count: int) -> None:
    night.restore()
    begun, usual = night.undisturbed()
    expected = night.outcome()
    assert expected["statuses"] == {"FINISHED"} and expected["inbox"] == [] and expected["decided"]
    dice, kills, whole = random.Random(SEED), Counter[str](), 0
    while (left := count - sum(kills.values())) > 0:
        night.restore()
        moments = sorted(dice.uniform(1, usual) for _ in range(min(left, KILLS_A_NIGHT)))
        kills.update(disturb(night, moments, begun, 10 * usual, dice))
        whole += 1
        assert gone(night.folder), f"left behind: {living(night.folder)}"
        assert night.outcome() == expected, f"after {sum(kills.values())} kills"
        assert held_slots(night.api) == 0
    print(
        f"{sum(kills.values())} kills ({dict(kills)}) in {whole} nights; each ended like the undisturbed one"
    )
