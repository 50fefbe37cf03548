"""Accounts of a retrained project: what was delivered, received, ingested, judged, committed and registered agrees."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import pandas as pd
import yaml
from mlflow import MlflowClient

from tasks.promotion.history import read_history
from tasks.promotion.publish import batch_names
from tasks.promotion.record import DecisionRecord, records
from tests.support import workspaces


def digest(path: Path) -> str:
    """Hex sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_books(folder: Path, delivered: Collection[str] = (), at_rest: bool = True) -> list[str]:
    """Statements that should hold and do not; empty if all accounts agree.

    Args:
        folder: a project with git, an embedded MLflow store and the inbox data/inbox.
        delivered: digests of all files that were put into the inbox and not removed by hand.
        at_rest: the last round ended undisturbed; False: a round was just killed, and only what holds at every moment
            is checked.
    """
    books = _Books(folder)
    found = [*books.batches(), *books.decisions(), *books.deliveries(delivered)]
    if at_rest:
        found += [*books.commits(), *books.catalogue(), *books.registry(), *books.leftovers()]
    return found


class _Books:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = yaml.safe_load((folder / "params.yaml").read_text())["data"]["name"]
        parent = folder / "data/batches" / self.name
        self.present = {p.name: p for p in parent.glob("[!.]*") if p.is_dir()} if parent.is_dir() else {}
        self.subjects = self._git("log", "--format=%s").splitlines()
        self.acted = [one for one in records(folder, self.name) if one.acted]

    def _git(self, *arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    def batches(self) -> Iterator[str]:
        """Batches, their tags and their commits."""
        place = f"data/{self.name}/"
        tags = {tag.removeprefix(place) for tag in self._git("tag", "--list", f"{place}*").splitlines()}
        data = f"Data of {self.name}: batch "
        commits = Counter(s.removeprefix(data).partition(",")[0] for s in self.subjects if s.startswith(data))
        for what, names in (("a tag", tags), ("a commit", set(commits))):
            if names - set(self.present):
                yield f"{what} of a batch that is not there: {sorted(names - set(self.present))}"
        yield from (f"{count} commits of batch {name}" for name, count in commits.items() if count > 1)

    def commits(self) -> Iterator[str]:
        """At rest, each batch and each decision has its commit, and nothing is left to commit."""
        for name, path in self.present.items():
            if not path.with_name(f"{name}.dvc").exists():
                yield f"batch {name} has no .dvc file"
            message = self._git("log", "-1", "--format=%s", f"data/{self.name}/{name}", "--")
            if not message.startswith(f"Data of {self.name}: batch {name}"):
                yield f"the tag of batch {name} is at the commit {message!r}"
        made = Counter(s for s in self.subjects if s.startswith(f"Retraining of {self.name} on batch "))
        wanted = Counter(self._subject(one) for one in self.acted)
        if made != wanted:
            yield f"commits of decisions: {made - wanted} too many, {wanted - made} missing"
        paths = ("dvc.lock", "splits", "reports", "decisions", "data/batches")
        if left := self._git("status", "--porcelain", "--", *paths):
            yield f"not committed: {left}"

    def _subject(self, one: DecisionRecord) -> str:
        return f"Retraining of {self.name} on batch {batch_names(one.batches)}"

    def decisions(self) -> Iterator[str]:
        """No batch is judged twice."""
        judged = Counter(batch for one in self.acted for batch in one.batches)
        yield from (f"batch {name} is in {n} decisions" for name, n in judged.items() if n > 1)
        if set(judged) - set(self.present):
            yield f"decisions on batches that are not there: {sorted(set(judged) - set(self.present))}"

    def deliveries(self, delivered: Collection[str]) -> Iterator[str]:
        """Every delivered file is in the inbox, among the taken files or in a batch."""
        places = (self.folder / "data/inbox", self.folder / "data/batches")
        there = {digest(p) for place in places for p in place.rglob("*") if p.is_file()}
        if lost := set(delivered) - there:
            yield f"{len(lost)} delivered files are gone"

    def catalogue(self) -> Iterator[str]:
        """Every batch is ingested with all of its items, and no item twice; each batch is judged."""
        table = pd.read_parquet(self.folder / "data/ingested/catalog.parquet")
        if not table["id"].is_unique:
            yield "an id is in the catalogue twice"
        accepted = table[table["status"] == "accepted"]
        if not accepted["sha256"].is_unique:
            yield f"{accepted['sha256'].duplicated().sum()} images are in the data twice"
        counts = Counter(name for name in table["batch"].astype(str) if name != "0")
        for name, path in self.present.items():
            facts = path / "batch.json"
            items = json.loads(facts.read_text())["items"] if facts.exists() else counts[name]
            if counts[name] != items or not items:
                yield f"batch {name} has {items} items, {counts[name]} of them in the catalogue"
        if set(counts) - set(self.present):
            yield f"in the catalogue, but not there: {sorted(set(counts) - set(self.present))}"
        judged = {batch for one in self.acted for batch in one.batches}
        if set(self.present) - judged:
            yield f"not judged: {sorted(set(self.present) - judged)}"

    def registry(self) -> Iterator[str]:
        """Registry, history.json and the decisions name the same champion, and no run is left open."""
        client = MlflowClient(f"sqlite:///{self.folder}/mlflow.db")
        versions = {int(v.version): v for v in client.search_model_versions(f"name='{self.name}'")}
        aliases = {a: int(v) for a, v in client.get_registered_model(self.name).aliases.items()}
        history = read_history(self.folder, self.name)
        if {one.version: one.weights_sha256 for one in history} != {
            number: v.tags.get("weights_sha256") for number, v in versions.items()
        }:
            yield "history.json lists other versions than the registry"
        if {alias: one.version for one in history for alias in one.aliases} != aliases:
            yield f"history.json has other aliases than the registry: {aliases}"
        changes = [one for one in self.acted if one.outcome in ("first", "promoted")]
        last = max(changes, key=lambda one: one.acted or "", default=None)
        if last is not None and aliases.get("champion") != last.versions.get("champion"):
            yield f"champion {aliases.get('champion')}, the last promotion was of {last.versions}"
        hashes = Counter(v.tags.get("weights_sha256") for v in versions.values())
        yield from (f"{n} versions with the same weights" for n in hashes.values() if n > 1)
        for kind in ("training", "comparison", "registration"):
            for run in workspaces.runs(self.folder, kind):
                if run.info.status == "RUNNING":
                    yield f"a {kind} is still RUNNING"

    def leftovers(self) -> Iterator[str]:
        """No temporary file is left, and DVC finds nothing to do."""
        for path in self.folder.rglob(".*"):
            if path.suffix in (".part", ".old") and ".git" not in path.parts:
                yield f"left behind: {path.relative_to(self.folder)}"
        command = [sys.executable, "-m", "dvc", "status", "--json"]
        env = workspaces.environment(self.folder)
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True)
        if done.stdout.strip() != "{}":
            yield f"dvc status: {done.stdout.strip() or done.stderr.strip()}"
