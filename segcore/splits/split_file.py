"""The split file, splits/<name>.csv: it keeps the split of each group when data are added.

Its first line records the settings of the splits. With other settings, reading it is an error until the user deletes
the file and thereby allows groups to change their split. It has one row per group: group, split (one of SPLITS,
"blocks", or empty if the group is set aside), reason. With folds it names the fold that tests each group, such as
"fold-2"; then it is a record, by which nothing is decided, since every group is tested in any case.
"""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from segcore.data.prepared import fold_name
from segcore.errors import DataError
from segcore.files import atomic_write
from segcore.params import SPLITS, Split
from segcore.splits.blocks import BLOCKS

# version of the rules of assignment; a new one invalidates old split files
VERSION = 1
_HEADER = ["group", "split", "reason"]
_MARK = "# decided with "


class GroupSplit(NamedTuple):
    """Assignment of a group: its split, BLOCKS, or None if it is set aside; and the reason."""

    split: str | None
    reason: str


def _settings(split: Split) -> dict[str, object]:
    named = {"fractions": {name: split.fractions[name] for name in SPLITS}}  # type: ignore[index]
    # as in files of earlier versions, where there are no folds
    folds = {"folds": split.folds} if split.folds else {}
    keys = {"seed", "stratify", "block", "buffer"}
    return {"version": VERSION, **split.model_dump(include=keys), **named, **folds}


def read_split_file(path: Path | str, split: Split) -> dict[str, GroupSplit]:
    """Splits of earlier runs by group; empty without a file.

    Raises:
        DataError: the file is damaged, or was made with other settings.
    """
    path = Path(path)
    damaged = f"restore it with `git checkout {path}`, or delete it: groups may then change their split"
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            first = stream.readline()
            settings = json.loads(first.removeprefix(_MARK)) if first.startswith(_MARK) else None
            rows = list(csv.reader(stream, strict=True))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path.name}: the split file cannot be read ({error})", damaged) from error
    if not isinstance(settings, dict) or not rows or rows[0] != _HEADER:
        raise DataError(f"{path.name}: the first two lines of the split file are missing or damaged", damaged)
    entries: dict[str, GroupSplit] = {}
    folds = settings.get("folds")
    known = {*SPLITS, BLOCKS, "", *map(fold_name, range(folds if isinstance(folds, int) else 0))}
    for number, row in enumerate(rows[1:], start=3):
        if len(row) != 3 or not row[0] or row[1] not in known:
            raise DataError(f"{path.name}: line {number} of the split file is not valid: {row}", damaged)
        if row[0] in entries:
            raise DataError(f"{path.name}: group {row[0]!r} is in the split file twice", damaged)
        entries[row[0]] = GroupSplit(row[1] or None, row[2])
    now = json.loads(json.dumps(_settings(split)))
    if settings != now:
        keys = [*now, *(key for key in settings if key not in now)]
        changed = [f"{k} {settings.get(k)} -> {now.get(k)}" for k in keys if settings.get(k) != now.get(k)]
        raise DataError(
            f"{path}: {len(entries)} groups were given their split with other settings: {', '.join(changed)}",
            "restore the old settings under split in params.yaml, so that no test image is ever used for training, or "
            "delete the file to assign all groups again",
        )
    return entries


def write_split_file(path: Path | str, split: Split, entries: Mapping[str, GroupSplit]) -> None:
    """Write all entries, sorted by group, atomically.

    Raises:
        DataError: the disk is full or not writable.
    """
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        stream.write(_MARK + json.dumps(_settings(split), sort_keys=True) + "\n")
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_HEADER)
        for group, entry in sorted(entries.items()):
            writer.writerow([group, entry.split or "", entry.reason])
