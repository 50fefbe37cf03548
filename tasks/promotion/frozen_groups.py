"""decisions/<data.name>/test_groups.txt: groups and blocks of the test set on which decisions were made, one per line.

One that was in the test set of a decision must not be trained on later: scores on it would then prove nothing.
"""

import json
from pathlib import Path

from segcore.data.prepared import PreparedData
from segcore.errors import DataError, StageError
from segcore.files import atomic_write
from segcore.promotion.frozen import frozen_groups, moved_groups
from tasks.project import DECISIONS, split_file

TEST_GROUPS = "test_groups.txt"


def require_frozen(root: Path, name: str, data: PreparedData) -> None:
    """Check that no group on which a decision was made is in training or validation now.

    Raises:
        StageError: a group was moved.
        DataError: test_groups.txt is damaged.
    """
    moved = moved_groups(data, sorted(_read(root, name)))
    if moved:
        shown = ", ".join(f"{group} ({split})" for group, split in list(moved.items())[:5])
        more = f" and {len(moved) - 5} more" if len(moved) > 5 else ""
        raise StageError(
            f"{split_file(name)}: decisions were made on test groups that are in other splits now: {shown}{more}",
            f"remove them from split.given in params.yaml, restore {split_file(name)} with git, and run `make run`",
        )


def add_groups(root: Path, name: str, data: PreparedData) -> None:
    """Add the groups of the present test set to the file."""
    present = set(frozen_groups(data))
    groups = _read(root, name)
    if not present <= groups:
        with atomic_write(_path(root, name)) as temporary:
            lines = [json.dumps(group) for group in sorted(groups | present)]
            temporary.write_text("\n".join([*lines, ""]), encoding="utf-8")


def _path(root: Path, name: str) -> Path:
    return root / DECISIONS / name / TEST_GROUPS


def _read(root: Path, name: str) -> set[str]:
    path = _path(root, name)
    if not path.exists():
        return set()
    try:
        # quoted as in JSON, since a name may contain any character
        return {str(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()}
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: not a readable list of test groups ({error})", "restore it with git"
        ) from error
