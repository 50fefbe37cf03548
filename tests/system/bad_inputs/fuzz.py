"""Fuzzing of the readers: random damage to valid files of each format.

For a longer search, from another seed:
`SEGFLOW_FUZZ_SECONDS=180 SEGFLOW_FUZZ_SEED=7 python -m tests.system.bad_inputs.fuzz`.
"""

import gzip
import os
import random
import re
import resource
import shutil
import struct
import tempfile
import time
import traceback
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from segcore.errors import DataError
from segcore.ingest import inspection
from segcore.ingest.problems import KINDS
from segcore.ingest.reader_pool import run_each
from segcore.io import layouts
from tests.system.bad_inputs.case import data_section
from tests.system.bad_inputs.samples import SAMPLES

# Seconds per item.
LIMIT = 20.0
# Items of each format per batch.
BATCH = 12


class Outcome(NamedTuple):
    """Outcome of reading an item.

    Attributes:
        what: "accepted", the kind of its DataError, or "escaped" for any other exception or an unhelpful error.
        detail: message or traceback.
        bytes: peak memory of the process.
    """

    what: str
    detail: str
    bytes: int


_TEXT = (".json", ".geojson", ".csv", ".vrt", ".xml", ".txt")
_WORDS = [
    b"-1",
    b"0",
    b"1e308",
    b"NaN",
    b"99999999999999999999",
    b"null",
    b'""',
    b"[[]]",
    b"{}",
    b"\x00",
    b"../x",
]


def mutated(content: bytes, rng: random.Random, text: bool = False) -> bytes:
    """Content with one to three random changes, half of them in the first 512 bytes; in text, mostly to its words."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not data:
            break
        at = rng.randrange(min(len(data), 512) if rng.random() < 0.5 else len(data))
        size = rng.choice((1, 2, 4, 8, 30, 200, len(data) // 4))
        match 6 if text and rng.random() < 0.7 else rng.randrange(7):
            case 0:
                for _ in range(rng.choice((1, 1, 4, 16))):
                    data[rng.randrange(at, len(data))] ^= 1 << rng.randrange(8)
            case 1:
                del data[at:]
            case 2:
                del data[at : at + size]
            case 3:
                data[at:at] = data[at : at + size] * rng.choice((1, 1, 50))
            case 4:
                width = rng.choice((1, 2, 4, 8))
                value = rng.choice(
                    (0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), 2 ** (8 * width - 1) - 1)
                )
                data[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))
            case 5:
                data[at : at + size] = rng.randbytes(size)
            case 6:
                numbers = [
                    m.span() for m in re.finditer(rb"-?\d[\d.]*|\"[^\"]{0,40}\"", bytes(data[:20_000]))
                ]
                start, end = rng.choice(numbers) if numbers else (at, at + 2)
                data[start:end] = rng.choice(_WORDS)
    return bytes(data)


def checksums(png: bytes) -> bytes:
    """A PNG with correct checksums of its chunks, so that damage reaches the decoder."""
    out, at = png[:8], 8
    while at + 12 <= len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        end = min(at + 8 + length, len(png) - 4)
        out += png[at:end] + struct.pack(">I", zlib.crc32(png[at + 4 : end]))
        at = end + 4
    return out


def damage(path: Path, rng: random.Random) -> None:
    """Change a file at random."""
    content = path.read_bytes()
    if path.suffix == ".gz" and rng.random() < 0.6:
        content = gzip.compress(mutated(gzip.decompress(content), rng), 1)
    else:
        content = mutated(content, rng, path.suffix in _TEXT)
    if path.suffix == ".png" and rng.random() < 0.6:
        content = checksums(content)
    path.write_bytes(content)


def _check(error: DataError, folder: Path, items: list[Any]) -> Outcome | None:
    """Outcome "escaped" for an error without a known kind, remedy or name; None if the error is fine."""
    named = (
        [path.name for path in folder.rglob("*")] + [item.image.name for item in items] + [str(folder), "'"]
    )
    ok = error.kind in KINDS and error.remedy.strip() and "\n" not in error.what
    if ok and (error.what.startswith(tuple(named)) or any(item.problem for item in items)):
        return None
    return Outcome(
        "escaped", f"unhelpful error of kind {error.kind!r}: {error.what!r} -> {error.remedy!r}", 0
    )


def attempt(job: tuple[str, int, Path]) -> Outcome:
    """Damage a copy of a sample and read it as the ingest does."""
    name, number, root = job
    sample, rng = SAMPLES[name], random.Random(f"{name} {number}")
    folder = root / f"{name.replace(' ', '-')}-{number}"
    shutil.copytree(root / "sound" / name.replace(" ", "-"), folder)
    damage(rng.choice(sorted(folder.glob(sample.files))), rng)
    target, items = folder / ".packed", []
    target.mkdir()
    data = data_section(folder, sample.data)
    outcome = Outcome("accepted", "", 0)
    try:
        items = layouts.find(data, folder)
        for item in items:
            if item.problem:
                raise item.problem
            inspection.inspect(item, folder, data, target, "")
    except DataError as error:
        outcome = _check(error, folder, items) or Outcome(error.kind, error.what, 0)
    except MemoryError:
        # The pool turns it into a DataError.
        raise
    # Any other exception is what the fuzzing searches for.
    except Exception:  # noqa: BLE001
        outcome = Outcome("escaped", traceback.format_exc(limit=-6), 0)
    shutil.rmtree(folder)
    return outcome._replace(bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


class Search:
    """Outcomes of many attempts.

    Attributes:
        tried: format -> number of attempts.
        outcomes: format -> outcome -> number of attempts.
        escaped: jobs with exceptions that no reader may raise.
        ended: jobs whose process was ended.
        bytes: peak memory of any process.
    """

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.outcomes: dict[str, Counter[str]] = {name: Counter() for name in SAMPLES}
        self.escaped: list[str] = []
        self.ended: list[str] = []
        self.bytes = 0

    def run(self, root: Path, seconds: float, seed: int = 0) -> "Search":
        """Run batches of attempts until the time is over."""
        for name, sample in SAMPLES.items():
            sample.make(root / "sound" / name.replace(" ", "-"))
        start, number = time.monotonic(), seed * 1_000_000
        while time.monotonic() - start < seconds:
            jobs = [(name, number + i, root) for i in range(BATCH) for name in SAMPLES]
            names = [f"{name} {n}" for name, n, _ in jobs]
            for index, outcome in run_each(attempt, jobs, names, [LIMIT] * len(jobs)):
                self._add(jobs[index][0], names[index], outcome)
            number += BATCH
        return self

    def _add(self, name: str, job: str, outcome: Outcome | DataError) -> None:
        self.tried[name] += 1
        kind = outcome.kind if isinstance(outcome, DataError) else outcome.what
        self.outcomes[name][kind] += 1
        if isinstance(outcome, DataError):
            self.ended.append(f"{job}: {outcome.what}")
        else:
            self.bytes = max(self.bytes, outcome.bytes)
            if outcome.what == "escaped":
                self.escaped.append(f"{job}: {outcome.detail}")

    def table(self) -> str:
        """Attempts and outcomes per format, as text."""
        lines = [
            f"{sum(self.tried.values())} damaged files; at most {self.bytes / 2**20:.0f} MiB in a process"
        ]
        for name, outcomes in self.outcomes.items():
            listed = ", ".join(f"{kind} {count}" for kind, count in outcomes.most_common())
            lines.append(f"  {name:<18} {self.tried[name]:>6}  {listed}")
        return "\n".join([*lines, *(f"  ended: {job}" for job in self.ended)])


def seconds() -> float:
    """Duration of the search, from SEGFLOW_FUZZ_SECONDS."""
    return float(os.environ.get("SEGFLOW_FUZZ_SECONDS", "10"))


def seed() -> int:
    """Seed of the search, from SEGFLOW_FUZZ_SEED."""
    return int(os.environ.get("SEGFLOW_FUZZ_SEED", "0"))


if __name__ == "__main__":
    # Imported by name, because worker processes cannot import it from __main__.
    from tests.system.bad_inputs.fuzz import Search

    with tempfile.TemporaryDirectory() as scratch:
        search = Search().run(Path(scratch), seconds(), seed())
    print(search.table())
    count_of: Counter[str] = Counter()
    for text in search.escaped:
        last = text.strip().splitlines()[-1]
        last = re.sub(r"[0-9]+", "#", last)
        count_of[last[:80]] += 1
        if count_of[last[:80]] <= 2:
            print("=" * 100, text, sep="\n")
    print("escaped:", len(search.escaped), dict(count_of))
