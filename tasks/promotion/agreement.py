"""Whether the model registry and the records in decisions/ agree, and what a kill left unfinished between them.

The records decide whether there is a champion, not what a store contains: a store that is lost, replaced by another
one, or restored from an old copy would otherwise look like a first round.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from segcore.errors import StageError
from segcore.files import locked
from tasks.project import DECISIONS, PROMOTE_LOCK
from tasks.promotion.history import (
    CHAMPION,
    PREVIOUS,
    RegisteredVersion,
    holder,
    now,
    write_copy,
    write_history,
)
from tasks.promotion.json_files import write_json
from tasks.promotion.record import DecisionRecord, record_path
from tasks.promotion.recorded import Recorded, recorded

if TYPE_CHECKING:
    from tasks.tracking.registry import Registry

_REBUILD = "run `make registry OPTIONS=--rebuild`, which restores the registry from the records"
_ACCEPT = "run `make registry OPTIONS=--accept`, which writes the registry's state to the records"


def require(registry: "Registry", root: Path, dry_run: bool) -> None:
    """Check that registry and records agree, as `Registry.require_agreement`."""
    known = recorded(root, registry.name)
    if dry_run or (known.is_complete and not registry.has_exchange()):
        rows = registry.history()
        problem = disagreement(registry, known, rows)
        if problem is None or (dry_run and _is_unfinished(registry, known, rows)):
            require_files(registry, rows)
            return
        if dry_run:
            raise problem
    # a promotion by another process may be between two steps
    with locked(root / PROMOTE_LOCK):
        settle(registry, root)
        require_files(registry, registry.history())


def require_champion(registry: "Registry", root: Path) -> None:
    """Check that the champion of the registry is that of the records, if they have one; for reading it only.

    Nothing is completed or waited for: while another process promotes, either champion may be read.

    Raises:
        StageError: they name different models.
        DataError: a record cannot be read.
    """
    known = recorded(root, registry.name)
    expected, rows = known.holder(CHAMPION), registry.history()
    found = holder(rows, CHAMPION)
    if expected is None:
        return
    is_same = found is not None and found.version == expected.version
    if found is not None and is_same and expected.weights_sha256 in (None, found.weights_sha256):
        return
    problem = disagreement(registry, known, rows)
    if problem is not None and not _is_unfinished(registry, known, rows):
        raise problem


def require_files(registry: "Registry", rows: Sequence[RegisteredVersion]) -> None:
    """Check that the store has the champion's files; they are not read.

    Raises:
        StageError: they are gone.
    """
    champion = holder(rows, CHAMPION)
    if champion is not None and not registry.has_files(champion.version):
        raise StageError(
            f"{place(registry)}: the files of version {champion.version}, the champion, are gone from the store",
            "restore them, or run `make registry OPTIONS=--rebuild`, which looks for them on this machine",
        )


def settle(registry: "Registry", root: Path) -> bool:
    """Complete what a kill left unfinished, then check that registry and records agree; the caller holds the lock.

    Returns:
        Whether a rollback was completed.

    Raises:
        StageError: they disagree.
        DataError: a record cannot be read.
    """
    name = registry.name
    registry.finish_exchange()
    known, rows = recorded(root, name), registry.history()
    champion = holder(rows, CHAMPION)
    pending, rolled_back = _pending(known, champion), False
    if champion is not None and pending is not None:
        registry.promote(champion.version, pending.tags())
        pending = replace(pending, versions={CHAMPION: champion.version}, acted=now())
        write_json(record_path(root, name, pending.key), pending.as_json())
    elif _is_half_promoted(known, rows):
        registry.set_aliases({alias: row.version for row in known.versions.values() for alias in row.aliases})
    elif _is_own_change(registry, known, rows):
        rolled_back = champion is not None and (champion.restored or "") > known.written
        write_copy(root, name, rows, "recovered")
        write_history(root, name, rows)
    known, rows = recorded(root, name), registry.history()
    problem = disagreement(registry, known, rows)
    if problem is not None:
        raise problem
    if not known.is_complete:
        write_history(root, name, rows)
    return rolled_back


def _is_unfinished(registry: "Registry", known: Recorded, rows: Sequence[RegisteredVersion]) -> bool:
    """Whether a call without dry_run would complete something first."""
    return (
        registry.has_exchange()
        or _pending(known, holder(rows, CHAMPION)) is not None
        or _is_half_promoted(known, rows)
        or _is_own_change(registry, known, rows)
    )


def _pending(known: Recorded, champion: RegisteredVersion | None) -> DecisionRecord | None:
    """The decision that made this version the champion, if a kill kept it from being marked as acted upon."""
    before = known.holder(CHAMPION)
    if champion is None or champion.weights_sha256 is None:
        return None
    if before is not None and before.weights_sha256 == champion.weights_sha256:
        return None
    version = before.version if before else None
    unacted = [one for one in known.decisions if not one.acted and one.champion_version == version]
    made = [one for one in unacted if one.weights_of(one.winner) == champion.weights_sha256]
    return max(made, key=lambda record: record.decided, default=None)


def _is_half_promoted(known: Recorded, rows: Sequence[RegisteredVersion]) -> bool:
    """Whether a promotion was killed after it gave the champion the alias `previous` too."""
    champion, previous, before = holder(rows, CHAMPION), holder(rows, PREVIOUS), known.holder(CHAMPION)
    return (
        champion is not None
        and before is not None
        and champion.version == before.version
        and previous is not None
        and previous.version == champion.version
    )


def _is_own_change(registry: "Registry", known: Recorded, rows: Sequence[RegisteredVersion]) -> bool:
    """Whether the champion changed by a rollback, or a recorded promotion, after the records were written.

    A version that no record names was promoted elsewhere, or its decision is lost.
    """
    champion, before = holder(rows, CHAMPION), known.holder(CHAMPION)
    if champion is None or before is None or champion.version == before.version:
        return False
    if champion.version not in known.versions:
        return False
    return champion.last_change > known.written and _other_versions(registry, known, rows) is None


def disagreement(
    registry: "Registry", known: Recorded, rows: Sequence[RegisteredVersion]
) -> StageError | None:
    """The first difference between records and registry as an error; None if they agree.

    Versions that only the registry has, and the alias `challenger`, may differ: no decision depends on them.
    """
    return _other_versions(registry, known, rows) or _other_aliases(registry, known, rows)


def _other_versions(
    registry: "Registry", known: Recorded, rows: Sequence[RegisteredVersion]
) -> StageError | None:
    folder = DECISIONS / registry.name
    champion = known.holder(CHAMPION)
    if not rows and champion is not None:
        return StageError(
            f"{place(registry)}: the registry has no version of this model, but {folder} records "
            f"{_number(len(known.versions))}, with version {champion.version} as the champion",
            f"if tracking.uri or the working folder is wrong, correct it; if the store is lost, {_REBUILD}",
        )
    registered = {row.version: row for row in rows}
    for number, row in sorted(known.versions.items()):
        if row.deleted:
            continue
        if number not in registered:
            return _error(registry, f"{folder} records version {number}, which the registry does not have")
        weights = registered[number].weights_sha256
        if row.weights_sha256 is not None and weights != row.weights_sha256:
            return _error(
                registry,
                f"version {number} has the weights {_short(weights)} in the registry, but "
                f"{_short(row.weights_sha256)} in {folder}",
            )
    return None


def _other_aliases(
    registry: "Registry", known: Recorded, rows: Sequence[RegisteredVersion]
) -> StageError | None:
    folder = DECISIONS / registry.name
    for alias in (CHAMPION, PREVIOUS):
        in_registry, in_records = holder(rows, alias), known.holder(alias)
        if in_registry is not None and in_records is None and not known.versions:
            return StageError(
                f"{place(registry)}: the registry has version {in_registry.version} as {alias}, but {folder} has no "
                "record of it",
                f"restore {folder} with git, or correct data.name or tracking.uri in params.yaml; if the registry is "
                f"right, {_ACCEPT}",
            )
        numbers = [row.version if row else None for row in (in_registry, in_records)]
        if numbers[0] != numbers[1]:
            found, expected = (f"version {n}" if n is not None else "no version" for n in numbers)
            what = f"{alias} is {found} in the registry, but {expected} in {folder}"
            error = _error(registry, what)
            if in_registry is not None and in_registry.version not in known.versions:
                # another copy of the project, or an old copy of decisions/
                remedy = f"get its decision with `git pull`, or restore {folder} from git; {error.remedy}"
                error = StageError(error.what, remedy)
            return error
    return None


def _error(registry: "Registry", what: str) -> StageError:
    return StageError(
        f"{place(registry)}: {what}",
        f"if the records are right, {_REBUILD}; if the registry is right, {_ACCEPT}",
    )


def place(registry: "Registry") -> str:
    """Model and address, for messages."""
    return f"model {registry.name} at {registry.tracker.address}"


def _number(count: int) -> str:
    return "1 version" if count == 1 else f"{count} versions"


def _short(weights: str | None) -> str:
    return weights[:12] if weights else "unknown"
