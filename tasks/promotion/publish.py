"""After a decision or rollback: commit it, and write the report again."""

from collections.abc import Sequence
from pathlib import Path

from segcore.data.prepared import PreparedData
from segcore.ingest import catalog
from segcore.params import Params
from tasks.project import DECISIONS, DVC_LOCK, PARAMS, PREPARED, report_folder, split_file
from tasks.versioning import git


def commit_records(p: Params, subject: str, sentence: str) -> None:
    """As `commit_decision`, but the decisions alone, for changes that use neither parameters nor results."""
    _commit([DECISIONS / p.data.name], subject, sentence)


def commit_decision(p: Params, subject: str, sentence: str) -> None:
    """Commit parameters, hashes, splits, scores and decisions of the project in the current folder, if it is in git.

    Args:
        p: all of params.yaml.
        subject: first line of the commit message.
        sentence: its body.

    Raises:
        StageError: git cannot be used, or failed.
    """
    name = p.data.name
    paths = [PARAMS, DVC_LOCK, split_file(name), report_folder(name) / "scores.md", DECISIONS / name]
    _commit(paths, subject, sentence)


def _commit(paths: Sequence[Path], subject: str, sentence: str) -> None:
    if git.is_repository() and git.commit(paths, f"{subject}\n\n{sentence}"):
        print(f"git: committed to {git.branch() or 'no branch (detached HEAD)'}: {subject}", flush=True)


def batch_names(batches: Sequence[str]) -> str:
    """Names of batches in a message; without a later batch, that of the data source, with its setting."""
    return ", ".join(batches) or f"{catalog.FIRST} (data.source)"


def write_report(p: Params, root: Path = Path()) -> None:
    """Write the report again, now with the decision.

    Raises:
        StageError: the output of an earlier stage is missing.
    """
    from tasks.report import report

    report(root, p, PreparedData(root / PREPARED))
