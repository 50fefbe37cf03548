"""Nights with several rounds a day, deliveries that overlap, repeat and contradict, and kills at random moments.

    python -m tests.system.crash.nights --nights 20 --rounds 3 --kills 200 --seed 0

After each kill and at the end of each round, the accounts of the project are checked (tests/support/books.py). A round
that was not killed must succeed.
"""

import argparse
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from tests.support import prefect_server, retraining
from tests.support.books import check_books, digest
from tests.support.tiny import blobs
from tests.system.crash.test_crash import VICTIMS, gone, kill, living

# kinds of delivered items and their weights
KINDS = {"new": 6, "again": 2, "renamed": 1, "contradicting": 2, "without mask": 1}
ROUND_SECONDS = 600


@dataclass
class Deliveries:
    """Random deliveries into the inbox of a project.

    Attributes:
        folder: the project.
        dice: random numbers.
        digests: digests of all files in the inbox or taken from it.
        made: earlier items, as (seed of the image, seed of the mask).
    """

    folder: Path
    dice: random.Random
    digests: set[str] = field(default_factory=set)
    made: list[tuple[int, int]] = field(default_factory=list)

    def arrive(self) -> None:
        """Deliver one to four items."""
        for _ in range(self.dice.randint(1, 4)):
            kinds = KINDS if self.made else {"new": 1}
            (kind,) = self.dice.choices([*kinds], [*kinds.values()])
            image, mask = self.dice.choice(self.made) if kind not in ("new", "without mask") else self._new()
            if kind == "contradicting":
                mask = image + 1_000_000 + self.dice.randint(0, 1)
            name = f"other{image}" if kind == "renamed" else f"item{image}"
            self._write("images", name, blobs(48, 56, seed=image)[0])
            if kind != "without mask":
                self._write("masks", name, blobs(48, 56, seed=mask)[1] * 255)

    def clear(self) -> None:
        """Remove what was refused, as an operator would."""
        for path in self._waiting():
            self._forget(path)
            path.unlink()

    def _new(self) -> tuple[int, int]:
        seed = 10_000 + len(self.made)
        self.made.append((seed, seed))
        return seed, seed

    def _write(self, kind: str, name: str, array: object) -> None:
        path = self.folder / "data/inbox" / kind / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._forget(path)
        Image.fromarray(array).save(path)  # type: ignore[arg-type]
        retraining.age(path)
        self.digests.add(digest(path))

    def _waiting(self) -> Iterator[Path]:
        inbox = self.folder / "data/inbox"
        yield from (p for p in inbox.rglob("*.png") if ".taken" not in p.parts)

    def _forget(self, path: Path) -> None:
        """Leave a file out of the account unless a copy of it was taken."""
        self.digests.discard(digest(path))
        taken = {digest(p) for p in (self.folder / "data/inbox/.taken").rglob("*.png")}
        self.digests |= {digest(path)} & taken


@dataclass
class Nights:
    """A project that is retrained night after night.

    Attributes:
        folder: the project, after its first round.
        api: address of Prefect's server.
        dice: random numbers.
        kills: kills that are left.
        usual: seconds that a round takes.
        killed: number of kills by kind of process.
        rounds: number of rounds.
    """

    folder: Path
    api: str
    dice: random.Random
    kills: int
    usual: float = 30.0
    killed: Counter[str] = field(default_factory=Counter)
    rounds: int = 0

    def __post_init__(self) -> None:
        self.deliveries = Deliveries(self.folder, self.dice)

    def night(self, rounds: int, nights_left: int) -> None:
        """Some rounds with their share of the kills, then the inbox is cleared; a last night uses up all kills."""
        share = self.kills if nights_left == 0 else round(self.kills / (nights_left + 1))
        moments = Counter(self.dice.randrange(rounds) for _ in range(share))
        for number in range(rounds):
            self.round(moments[number])
        self._use_gate(always_promotes=self.dice.random() < 0.5)
        self.deliveries.clear()

    def round(self, kills: int) -> None:
        """A delivery and a round that is killed so many times, with further deliveries in between."""
        self.rounds += 1
        self.deliveries.arrive()
        done = 0
        while done < kills:
            if self._killed_round():
                done += 1
                self.kills -= 1
            if self.dice.random() < 0.4 or not self._has_work():
                self.deliveries.arrive()
        start = time.monotonic()
        status, output = retraining.retrain(self.folder, PREFECT_API_URL=self.api)
        assert status == 0, output
        if "Unchanged" not in output:
            self.usual = time.monotonic() - start
        self._check(at_rest=True, after=output)

    def _killed_round(self) -> bool:
        """Start a round and kill one of its processes; returns whether it had not ended before."""
        flow = retraining.start(self.folder, PREFECT_API_URL=self.api)
        output = ""
        try:
            output, _ = flow.communicate(timeout=self.dice.uniform(1, self.usual))
            assert flow.returncode == 0, output
            self._check(at_rest=True, after=output)
            return False
        except subprocess.TimeoutExpired:
            victim = kill(self.dice.choice(VICTIMS), flow, self.folder, self.dice)
            self.killed[victim] += 1
        output, _ = flow.communicate(timeout=ROUND_SECONDS)
        assert gone(self.folder), f"left behind: {living(self.folder)}"
        self._check(at_rest=False, after=f"{victim} was killed\n{output}")
        return True

    def _has_work(self) -> bool:
        return any(self.deliveries._waiting())

    def _check(self, at_rest: bool, after: str) -> None:
        found = check_books(self.folder, self.deliveries.digests, at_rest)
        assert found == [], f"{found} after kill {sum(self.killed.values())}, round {self.rounds}:\n{after}"

    def _use_gate(self, always_promotes: bool) -> None:
        if always_promotes:
            retraining.use_lenient_gate(self.folder)
        else:
            retraining.edit(self.folder, gate={"confidence": 0.95})

    def summary(self) -> str:
        """Counts of what happened."""
        batches = retraining.batches(self.folder)
        return (
            f"{self.rounds} rounds, {sum(self.killed.values())} kills {dict(self.killed)}, "
            f"{len(self.deliveries.made)} items made, {len(batches)} batches: all received, ingested, judged once"
        )


def run(
    first: Path, folder: Path, api: str, nights: int = 2, rounds: int = 2, kills: int = 4, seed: int = 0
) -> Nights:
    """Retrain a copy of the project `first` in `folder`, night after night.

    Raises:
        AssertionError: the accounts do not agree, or a round fails that was not killed.
    """
    retraining.copy(first, folder)
    retraining.use_constant_costs(folder)
    project = Nights(folder, api, random.Random(seed), kills)
    for night in range(nights):
        start, before = time.monotonic(), sum(project.killed.values())
        project.night(rounds, nights - night - 1)
        count = sum(project.killed.values()) - before
        seconds = time.monotonic() - start
        print(f"night {night + 1}: {rounds} rounds, {count} kills, {seconds:.0f} s", flush=True)
    return project


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.crash.nights", description=__doc__)
    for name, default in (("nights", 20), ("rounds", 3), ("kills", 200), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default: {default}")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        prefect_server.started() as (api, answers, log),
    ):
        assert answers, log
        first = retraining.first_round(Path(name), api)
        project = run(first, Path(name) / "project", api, **vars(arguments))
        print(project.summary())
        shutil.rmtree(name, ignore_errors=True)


if __name__ == "__main__":
    main()
