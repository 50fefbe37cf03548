"""Batches of a dataset: their folders and tags, their record in DVC and git, and those without a decision."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from segcore.files import read_json
from segcore.ingest import catalog
from segcore.params import Params
from tasks.promotion.record import decided_batches, records
from tasks.versioning import dvc_batches, git, stages


def folder_of(p: Params) -> Path:
    """Folder of the dataset's batches."""
    return Path(p.data.batches) / p.data.name


def tag_of(p: Params, batch: str) -> str:
    """Git tag of a data version."""
    return f"data/{p.data.name}/{batch}"


def undecided(p: Params, root: Path = Path()) -> list[str]:
    """Names of the batches on which no decision was acted upon, in the order of their receipt."""
    decided = decided_batches(root, p.data.name)
    return [name for name in catalog.batch_folders(p.data) if name not in decided]


def next_round(p: Params) -> datetime | None:
    """When the next round may begin by `retrain.at_least.hours`, if that is later than now; in local time.

    Batches without a decision do not wait. A decision with a later time than now was made while the clock was wrong,
    and is left out.
    """
    now = datetime.now(UTC)
    acted = [datetime.fromisoformat(one.acted) for one in records(Path(), p.data.name) if one.acted]
    last = max((moment for moment in acted if moment <= now), default=None)
    if last is None or undecided(p):
        return None
    begins = last + timedelta(hours=p.retrain.at_least.hours)
    return begins.astimezone() if begins > now else None


def waiting_text(p: Params) -> str:
    """When the next round may begin, as a sentence; empty if it may begin now."""
    begins, hours = next_round(p), p.retrain.at_least.hours
    if begins is None:
        return ""
    return f"The next round may begin at {begins:%Y-%m-%d %H:%M} (retrain.at_least.hours: {hours:g})"


def finish(p: Params) -> None:
    """Record (DVC, git) batches that a killed run had created but not recorded.

    Raises:
        StageError: DVC or git failed.
    """
    for name, folder in catalog.batch_folders(p.data).items():
        record(p, name, folder)


def record(p: Params, batch: str, folder: Path) -> None:
    """Record a batch in DVC, and in a git repository as a commit with the batch's tag; repeated calls change nothing.

    Raises:
        StageError: DVC or git failed.
    """
    tracked = folder.with_name(folder.name + ".dvc")
    if not tracked.exists():
        stages.add(folder)
    if git.is_repository():
        # missing in batch folders that were created by hand
        facts = folder / "batch.json"
        remedy = f"`dvc checkout {tracked}` restores the batch"
        items = read_json(facts, remedy).get("items") if facts.exists() else None
        count = f", {items} items" if items is not None else ""
        message = f"Data of {p.data.name}: batch {batch}{count}"
        git.commit([tracked, folder.parent / ".gitignore"], message, tag_of(p, batch))


def pull_missing(p: Params) -> None:
    """Pull batches of which only the .dvc file is here, as in a new clone.

    Raises:
        StageError: a batch is neither in DVC's cache nor in its remote.
    """
    dvc_batches.pull(dvc_batches.missing_batches(folder_of(p)))


def provide(p: Params) -> None:
    """Pull batches that are not here, and check the others for edits.

    Raises:
        StageError: a batch is neither in DVC's cache nor in its remote, or its files differ from its .dvc file.
    """
    pull_missing(p)
    dvc_batches.require_unchanged_batches(folder_of(p))
