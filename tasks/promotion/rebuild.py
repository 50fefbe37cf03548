"""Restore the model registry from the records in decisions/, or the records from the registry."""

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

from segcore.errors import StageError
from segcore.files import locked
from segcore.models.base.bundle import load_description
from segcore.params import Params
from tasks.project import CHAMPIONS, DECISIONS, PROMOTE_LOCK, REBUILT
from tasks.promotion import agreement
from tasks.promotion.history import (
    CHAMPION,
    PREVIOUS,
    RegisteredVersion,
    history_path,
    holder,
    replace_history,
    with_deleted,
    write_copy,
)
from tasks.promotion.lost_bundles import find_bundle, is_bundle, stored_bundles
from tasks.promotion.model_card import CARD, model_card
from tasks.promotion.recorded import Recorded, recorded_and_damaged

if TYPE_CHECKING:
    from tasks.tracking.registry import Registry


@dataclass
class Rebuilt:
    """What a rebuild changed.

    Attributes:
        created: versions that were created.
        restored: versions whose files were stored again.
        lost: versions whose files were not found.
        set_aside: new name of the registered model that had other versions; None: there was none.
        damaged: one sentence per record that could not be read.
    """

    created: list[int] = field(default_factory=list)
    restored: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    set_aside: str | None = None
    damaged: list[str] = field(default_factory=list)


def rebuild(registry: "Registry", root: Path, p: Params) -> tuple[list[str], StageError | None]:
    """Make the registry as the records say: versions with numbers, files, cards, tags and aliases, and history.json.

    Versions that only the registry has are kept. Where a number is taken by other weights or cannot be given again, the
    registered model is renamed, with all its versions, and a new one is made. A repeated call changes nothing.

    Args:
        registry: registry of the data set.
        root: the project's folder, which must be the current folder.
        p: parameters of the project, for the model cards.

    Returns:
        Lines on what was done, and an error if files of the champion or the previous champion were not found.

    Raises:
        StageError: there are no records, or they do not show which version is the champion.
    """
    name = registry.name
    with locked(root / PROMOTE_LOCK):
        known = recorded_and_damaged(root, name)
        _require_records(root, name, known)
        done = Rebuilt(damaged=known.damaged)
        registry.finish_exchange()
        _create_versions(registry, root, known, done)
        for row in _present(known):
            _restore_files(registry, root, row, done)
            registry.tag(row.version, _tags(row))
            if row.version not in done.lost and not registry.is_described(row.version):
                _describe(registry, root, p, row)
        registry.set_aliases({alias: row.version for row in _present(known) for alias in row.aliases})
        replace_history(root, name, with_deleted(list(known.versions.values()), registry.history()))
        # copies of files in DVC's cache
        rmtree(root / REBUILT, ignore_errors=True)
        return _lines(registry, known, done), _loss(registry, known, done)


def accept(registry: "Registry", root: Path) -> list[str]:
    """Write the registry's state to the records; versions that it no longer has stay in the history as deleted.

    Raises:
        StageError: the registry has no champion, or the store lacks its files.
        ModelError: the champion's bundle is damaged.
    """
    name = registry.name
    with locked(root / PROMOTE_LOCK):
        registry.finish_exchange()
        champion = registry.champion()
        if champion is None:
            raise StageError(
                f"model {name} at {registry.tracker.address}: the registry has no champion that could be accepted",
                "give a version the alias champion in MLflow's UI (`make ui`), or run "
                "`make registry OPTIONS=--rebuild`",
            )
        agreement.require_files(registry, [champion])
        if champion.weights_sha256 is None:
            # registered by hand
            description = load_description(
                registry.fetch(champion.version, root / CHAMPIONS / str(champion.version))
            )
            facts = ("architecture", "seed", "title", "weights_sha256")
            registry.tag(champion.version, {fact: description.get(fact) for fact in facts})
        known = recorded_and_damaged(root, name)
        rows = with_deleted(list(known.versions.values()), registry.history())
        write_copy(root, name, rows, "accepted")
        replace_history(root, name, rows)
        path = history_path(Path(), name)
        return [f"registry: {path} now has the state of the registry; {_aliases(rows)}", *known.damaged]


def _require_records(root: Path, name: str, known: Recorded) -> None:
    folder = DECISIONS / name
    if known.damaged and not known.written:
        raise StageError(
            f"{folder}: the history cannot be read, and not all decisions can, so the champion is not known:\n"
            + "\n".join(known.damaged),
            "restore the files named above with git; if that is not possible, remove them, and the others are used",
        )
    if not known.versions:
        raise StageError(
            f"{folder}: there is no record of a registered version, so there is nothing to restore",
            f"restore {folder} with git; if this is a new project, run `make retrain`",
        )


def _present(known: Recorded) -> list[RegisteredVersion]:
    return [row for _, row in sorted(known.versions.items()) if not row.deleted]


def _create_versions(registry: "Registry", root: Path, known: Recorded, done: Rebuilt) -> None:
    """Create the missing versions with their numbers; MLflow numbers versions in the order of their creation."""
    if not _fits(known, registry.history()):
        done.set_aside = registry.set_aside()
    registered = {row.version for row in registry.history()}
    for number in range(1, max(row.version for row in _present(known)) + 1):
        row = known.versions.get(number)
        if number in registered or (registered and number < max(registered)):
            continue
        created = _create(registry, root, row)
        if created != number:
            # numbers of deleted versions are not given again
            if done.set_aside is not None:
                raise StageError(
                    f"model {registry.name} at {registry.tracker.address}: version {number} was created as {created}",
                    "end other programs that register versions of this model, then run again",
                )
            done.set_aside, done.created = registry.set_aside(), []
            return _create_versions(registry, root, known, done)
        if row is None or row.deleted:
            registry.delete(number)
        else:
            done.created.append(number)
    return None


def _fits(known: Recorded, rows: Sequence[RegisteredVersion]) -> bool:
    """Whether each version of the registry is that of the records, and those that it lacks have higher numbers."""
    registered = {row.version: row.weights_sha256 for row in rows}
    for row in _present(known):
        if row.version not in registered:
            if registered and row.version < max(registered):
                return False
        elif row.weights_sha256 not in (None, registered[row.version]):
            return False
    return True


def _create(registry: "Registry", root: Path, row: RegisteredVersion | None) -> int:
    if row is None or row.deleted:
        return registry.add_without_files({})
    with _bundle(registry, root, row) as bundle:
        if bundle is None:
            return registry.add_without_files(_tags(row))
        return registry.add(bundle, load_description(bundle), row.run_id, _tags(row))


def _restore_files(registry: "Registry", root: Path, row: RegisteredVersion, done: Rebuilt) -> None:
    if registry.is_stored(row) and registry.is_model(row.version):
        return
    with _bundle(registry, root, row) as bundle:
        if bundle is not None:
            registry.restore_files(row.version, bundle)
    if bundle is not None and registry.is_stored(row):
        done.restored.append(row.version)
    else:
        done.lost.append(row.version)


def _describe(registry: "Registry", root: Path, p: Params, row: RegisteredVersion) -> None:
    """Give a version its card: that of an earlier store where this machine has it, otherwise a new one."""
    card = next((folder / CARD for folder in stored_bundles(root, row) if (folder / CARD).is_file()), None)
    if card is not None:
        registry.describe(row.version, card.read_text(encoding="utf-8"))
        return
    with _bundle(registry, root, row) as bundle:
        if bundle is not None:
            registry.describe(row.version, model_card(bundle, p, row.version, root))


@contextmanager
def _bundle(registry: "Registry", root: Path, row: RegisteredVersion) -> Iterator[Path | None]:
    """The bundle of a version, from this machine or another version in the store; None if it is nowhere."""
    local = find_bundle(root, row)
    if local is not None or row.weights_sha256 is None:
        yield local
        return
    copies = registry.copies_of(row.weights_sha256)
    try:
        yield next((folder for folder in copies if is_bundle(folder, row)), None)
    finally:
        copies.close()


def _tags(row: RegisteredVersion) -> dict[str, object]:
    return {
        "architecture": row.architecture,
        "seed": row.seed,
        "title": row.title,
        "weights_sha256": row.weights_sha256,
        "description_sha256": row.description_sha256,
        "scores": json.dumps(row.scores) if row.scores else None,
        "gate.outcome": row.outcome,
        "gate.reason": row.decision,
        "promoted": row.promoted,
        "restored": row.restored,
        "registered": row.registered,
    }


def _lines(registry: "Registry", known: Recorded, done: Rebuilt) -> list[str]:
    def numbers(versions: Sequence[int]) -> str:
        return ", ".join(map(str, versions))

    parts = [f"created version {numbers(done.created)}"] * bool(done.created)
    parts += [f"stored the files of version {numbers(done.restored)} again"] * bool(done.restored)
    what = "; ".join(parts) or "nothing was missing"
    aliases = _aliases(known.versions.values())
    lines = [f"registry: model {registry.name} at {registry.tracker.address}: {what}; {aliases}"]
    if done.set_aside:
        lines.append(f"The model that had this name, with other versions, is now called {done.set_aside}.")
    if done.lost:
        lines.append(
            f"The files of version {numbers(done.lost)} were not found; the number stays, without files."
        )
    return lines + [f"Left out: {sentence}" for sentence in done.damaged]


def _loss(registry: "Registry", known: Recorded, done: Rebuilt) -> StageError | None:
    for alias in (CHAMPION, PREVIOUS):
        row = known.holder(alias)
        if row is not None and row.version in done.lost:
            return StageError(
                f"version {row.version}, the {alias} of {registry.name}: no bundle with the weights "
                f"{row.weights_sha256 or 'unknown'} is in models/, work/, mlruns/, the store or DVC's cache",
                f"copy its folder with model.json and model.safetensors to {CHAMPIONS / str(row.version)} and run "
                f"again; if it is lost, give another version the alias {alias} in MLflow's UI and run "
                "`make registry OPTIONS=--accept`",
            )
    return None


def _aliases(rows: Collection[RegisteredVersion]) -> str:
    found = [(alias, holder(rows, alias)) for alias in (CHAMPION, PREVIOUS)]
    return ", ".join(f"{alias} is version {row.version}" for alias, row in found if row) or "no champion"
