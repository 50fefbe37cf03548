"""Batches of a dataset: their folders and tags, their record in DVC and git, and those without a decision."""

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from segcore.errors import StageError
from segcore.files import digest, read_json, sha256
from segcore.ingest import catalog
from segcore.params import Params
from tasks.project import DECISIONS
from tasks.promotion.record import decided_batches, records
from tasks.versioning import dvc_batches, git, stages

# usable in a git tag and as the name of the decision's file
_NAME = re.compile(r"(?!.*\.(?:dvc|lock)$)[A-Za-z0-9](?:[.+_-]?\w)*")


def folder_of(p: Params) -> Path:
    """Folder of the dataset's batches."""
    return Path(p.data.batches) / p.data.name


def tag_of(p: Params, batch: str) -> str:
    """Git tag of a data version."""
    return f"data/{p.data.name}/{batch}"


def content_of(folder: Path, files: Sequence[str]) -> str:
    """Digest of a batch's files, the last part of its name."""
    return digest(*(f"{name} {sha256(folder / name)}" for name in files))[:8]


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
        StageError: a recorded batch is gone, or is there twice; DVC or git failed.
    """
    require_complete(p)
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


def require_complete(p: Params) -> None:
    """Check that every recorded batch has its folder or .dvc file, and that no batch is there under two names.

    Raises:
        StageError: one is gone, renamed or copied; or git failed.
    """
    parent, folders, recorded = folder_of(p), catalog.batch_folders(p.data), _recorded(p)
    tracked = {path.stem for path in parent.glob("*.dvc") if path.is_file()}
    _require_usable([path for name, path in folders.items() if name not in tracked])
    _require_names(folders, tracked, (recorded | tracked) - set(folders))
    lost = recorded - set(folders) - tracked
    if lost:
        raise _lost(p, sorted(lost))
    # no two batches have the same time of receipt
    names: dict[datetime, str] = {}
    for name, path in folders.items():
        if not (path / "batch.json").is_file():
            continue
        received = catalog.time_of_receipt(path)
        other = names.setdefault(received, name)
        if other != name:
            copy = other if name in tracked and other not in tracked else name
            files = f"{parent / copy} {parent / copy}.dvc" if copy in tracked else f"{parent / copy}"
            raise StageError(
                f"{parent}: {other} and {name} are one batch (both batch.json have the same time of receipt), which "
                "would be counted twice",
                f"remove the copy: rm -r {files}" + (", and commit that" if copy in tracked else ""),
            )


def _require_usable(new: Sequence[Path]) -> None:
    """Check folders that are not recorded yet: they may have been made by hand.

    Raises:
        StageError: one is empty, or its name cannot be that of a tag or of a decision.
    """
    for folder in new:
        if not _NAME.fullmatch(folder.name) or folder.name == "history":
            raise StageError(
                f"{folder}: not usable as the name of a batch",
                "rename the folder: letters and digits, between them single - _ + or ., not .dvc or .lock at the end",
            )
        if not any(path.is_file() for path in folder.rglob("*")):
            raise StageError(f"{folder}: is empty, so it is no batch", f"remove it: rm -r {folder}")


def _require_names(folders: Mapping[str, Path], tracked: Collection[str], absent: Collection[str]) -> None:
    """Check that no folder without a .dvc file has the content of a recorded batch whose folder is absent.

    Raises:
        StageError: one was renamed.
    """
    for name, path in folders.items():
        if not absent or name in tracked:
            continue
        facts = path / "batch.json"
        files = read_json(facts, f"restore {path} from a backup").get("files", []) if facts.is_file() else []
        if not files or not all((path / file).is_file() for file in files):
            continue
        content = content_of(path, files)
        for batch in sorted(absent):
            if batch.endswith(f"-{content}"):
                target = path.with_name(batch)
                raise StageError(
                    f"{path}: has the content of batch {batch}, whose folder is gone: it was renamed",
                    f"rename it back: mv {path} {target}",
                )


def _recorded(p: Params) -> set[str]:
    """Names of the batches that git's last commit has, and of those with a decision and a tag.

    Without a git repository, names of those with a decision.
    """
    decided = decided_batches(Path(), p.data.name)
    if not git.is_repository():
        return decided
    files = {Path(name) for name in git.committed(folder_of(p))}
    tags = git.tags(tag_of(p, "")) if decided else set()
    return {file.stem for file in files if file.suffix == ".dvc"} | {
        n for n in decided if tag_of(p, n) in tags
    }


def _lost(p: Params, names: list[str]) -> StageError:
    folder, first = folder_of(p), names[0]
    what = f"{folder}: the folder and the .dvc file of these batches are gone, but "
    file = folder / f"{first}.dvc"
    if not git.is_repository():
        records = DECISIONS / p.data.name
        return StageError(
            f"{what}{records} has decisions on them: {', '.join(names)}",
            f"restore {folder / first} from a backup, or rename it back; if data.batches in params.yaml was changed, "
            f"correct it; if the batch was removed on purpose, remove its name from `batches` in {records}/*.json",
        )
    tag = tag_of(p, first)
    restore = (
        f"restore it with git checkout {tag} -- {file}, and run again"
        if git.has_file(tag, file)
        else "set data.batches in params.yaml to the folder where they are"
    )
    return StageError(
        f"{what}git has them: {', '.join(names)}",
        f"{restore}; if {first} was removed on purpose: git rm --cached --ignore-unmatch {file}, git commit, and "
        f"git tag -d {tag}",
    )


def pull_missing(p: Params) -> None:
    """Pull batches of which only the .dvc file is here, as in a new clone.

    Raises:
        StageError: a batch is neither in DVC's cache nor in its remote.
    """
    dvc_batches.pull(dvc_batches.missing_batches(folder_of(p)))


def provide(p: Params) -> None:
    """Pull batches that are not here, and check the others for edits.

    Raises:
        StageError: a batch is gone, renamed or copied, is neither in DVC's cache nor in its remote, or its files differ
            from its .dvc file.
    """
    # a copy of the project without .git has settings of DVC that expect it
    stages.init_if_needed()
    require_complete(p)
    pull_missing(p)
    dvc_batches.require_unchanged_batches(folder_of(p))
