"""Folders of a project that DVC and git manage: they can be no links to another disk."""

from pathlib import Path
from shlex import quote

from segcore.errors import StageError
from segcore.files import LOST, lost_link
from tasks.project import (
    COMPARISON,
    DECISIONS,
    ENSEMBLES,
    EVALUATIONS,
    INGESTED,
    MODELS,
    PREPARED,
    REPORTS,
    SPLITS,
    START,
    WORK,
)

_MANAGED = (
    *(INGESTED, INGESTED.with_name("packed"), PREPARED, INGESTED.with_name("batches")),
    *(SPLITS, MODELS, EVALUATIONS, ENSEMBLES, COMPARISON, REPORTS, DECISIONS, START),
)


def require_folders(root: Path = Path()) -> None:
    """Check that no managed folder of a project is, or is in, a link that leads out of the project or nowhere.

    Raises:
        StageError: one is.
    """
    for path in (*_MANAGED, WORK):
        lost = lost_link(root / path)
        if lost:
            raise StageError(f"{lost}: is a link to {lost.readlink()}, which leads nowhere", LOST)
    inside = root.resolve()
    parts = [part for path in _MANAGED for part in (*reversed(path.parents[:-1]), path)]
    for path in dict.fromkeys(parts):
        link = root / path
        if link.is_symlink() and not link.resolve().is_relative_to(inside):
            target = link.resolve()
            raise StageError(
                f"{path}: is a link to {target}, which is outside of this project; DVC and git cannot manage it there",
                f"put the folder back (`rm {quote(str(link))} && mv {quote(str(target))} {quote(str(link))}`); to use "
                f"another disk, move the whole project there, or DVC's cache (`dvc cache dir FOLDER`) and work/, which "
                "may be a link",
            )
