"""What the records say about the registry: history.json, and decisions that were acted upon after it was written."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from segcore.errors import DataError
from tasks.promotion.history import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    History,
    RegisteredVersion,
    copies,
    history_path,
    holder,
    read_history_file,
)
from tasks.promotion.record import DecisionRecord, read_record, record_files

T = TypeVar("T")


@dataclass(frozen=True)
class Recorded:
    """The versions that the records name, with the aliases that they should have.

    Attributes:
        versions: by number.
        written: when history.json was written, or the last change that it contains.
        is_complete: history.json is there and contains all decisions that were acted upon.
        decisions: all decisions.
        damaged: one sentence with a remedy per file that could not be read.
    """

    versions: Mapping[int, RegisteredVersion]
    written: str
    is_complete: bool
    decisions: list[DecisionRecord]
    damaged: list[str] = field(default_factory=list)

    def holder(self, alias: str) -> RegisteredVersion | None:
        """The version with an alias; None without one."""
        return holder(self.versions.values(), alias)


def recorded(root: Path, name: str) -> Recorded:
    """What the records of a dataset say; without history.json, its latest copy is used.

    Raises:
        DataError: a record is damaged.
    """
    path = history_path(root, name)
    files = [path] if path.exists() else copies(root, name)[-1:]
    history = next((read_history_file(file) for file in files), None)
    decisions = [record for file in record_files(root, name) if (record := read_record(file))]
    known = _combined(history, decisions, [])
    return replace(known, is_complete=known.is_complete and (path.exists() or not known.versions))


def recorded_and_damaged(root: Path, name: str) -> Recorded:
    """What the readable records of a dataset say; damaged ones are named and left out.

    If history.json cannot be read, its latest readable copy is used; without one, the decisions alone.
    """
    damaged: list[str] = []
    decisions = _readable(record_files(root, name), read_record, damaged)
    path = history_path(root, name)
    histories = _readable([path] if path.exists() else [], read_history_file, damaged)
    histories = histories or _readable(copies(root, name), read_history_file, damaged)
    latest = max(histories, key=lambda history: history.written or "", default=None)
    return _combined(latest, decisions, damaged)


def _readable(files: Iterable[Path], read: Callable[[Path], T | None], damaged: list[str]) -> list[T]:
    contents = []
    for file in files:
        try:
            content = read(file)
        except DataError as error:
            damaged.append(str(error))
        else:
            contents += [] if content is None else [content]
    return contents


def _combined(history: History | None, decisions: list[DecisionRecord], damaged: list[str]) -> Recorded:
    """The versions of a history, and those of the decisions that were acted upon later."""
    before = {row.version: row for row in history.versions} if history else {}
    changes = [row.last_change for row in before.values()] + [row.registered or "" for row in before.values()]
    written = (history.written if history else None) or max(changes, default="")
    versions = before
    if history is None or history.written is not None:
        for record in sorted(decisions, key=lambda record: record.acted or ""):
            if record.acted and record.acted >= written:
                versions = _after(versions, record)
    return Recorded(versions, written, versions == before, decisions, damaged)


def _after(versions: Mapping[int, RegisteredVersion], record: DecisionRecord) -> dict[int, RegisteredVersion]:
    """The versions after a decision was acted upon."""
    rows = dict(versions)
    for alias, number in record.versions.items():
        if record.best is None:
            continue
        one = record.challenger(record.best)
        row = rows.get(number) or RegisteredVersion(
            version=number,
            architecture=one.architecture,
            title=one.title,
            weights_sha256=one.weights_sha256,
            seed=one.seed,
            registered=record.acted,
        )
        row = replace(row, outcome=record.outcome, decision=record.reason, scores=record.best_scores)
        if alias == CHAMPION:
            row = replace(row, promoted=record.decided)
            rows = _without(rows, CHALLENGER)
            champion = holder(rows.values(), CHAMPION)
            if champion is not None and champion.version != number:
                rows = _with(_without(rows, PREVIOUS), PREVIOUS, champion)
            rows = _without(rows, CHAMPION)
        else:
            rows = _without(rows, alias)
        aliases = rows[number].aliases if number in rows else []
        rows = _with(rows, alias, replace(row, aliases=aliases))
    return rows


def _without(rows: Mapping[int, RegisteredVersion], alias: str) -> dict[int, RegisteredVersion]:
    return {n: replace(row, aliases=[a for a in row.aliases if a != alias]) for n, row in rows.items()}


def _with(
    rows: Mapping[int, RegisteredVersion], alias: str, row: RegisteredVersion
) -> dict[int, RegisteredVersion]:
    return {**rows, row.version: replace(row, aliases=sorted({*row.aliases, alias}))}
