"""The registry of decisions, splits/<name>.csv: what was decided once stays, whatever data come later.

Its first line records the settings it was made with; with other settings nothing is decided until somebody says, by
deleting the file, that groups may move. It holds a row a group: group, split (a name of SPLITS, "blocks", or nothing
where the group was set aside), reason.
"""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from segcore.errors import DataError
from segcore.files import atomic_write
from segcore.params import SPLITS, Split
from segcore.splits.blocks import BLOCKS

VERSION = 1  # of the rules that decide; a new one makes old registries void
_HEADER = ["group", "split", "reason"]
_MARK = "# decided with "


class GroupSplit(NamedTuple):
    """What was decided for a group: its split, BLOCKS, or None where it was set aside; and why."""

    split: str | None
    reason: str


def _settings(split: Split) -> dict[str, object]:
    named = {"fractions": {name: split.fractions[name] for name in SPLITS}}  # type: ignore[index]
    return {"version": VERSION, **split.model_dump(include={"seed", "stratify", "block", "buffer"}), **named}


def read_registry(path: Path | str, split: Split) -> dict[str, GroupSplit]:
    """Decisions of earlier runs: group -> Entry; empty without a file.

    Raises:
        DataError: the file is damaged, or was made with other settings.
    """
    path = Path(path)
    damaged = f"restore it with `git checkout {path}`, or delete it to split anew; groups may then change their split"
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            first = stream.readline()
            settings = json.loads(first.removeprefix(_MARK)) if first.startswith(_MARK) else None
            rows = list(csv.reader(stream, strict=True))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path.name}: the registry of splits cannot be read ({error})", damaged) from error
    if not isinstance(settings, dict) or not rows or rows[0] != _HEADER:
        raise DataError(f"{path.name}: the registry of splits lacks its first two lines", damaged)
    registry: dict[str, GroupSplit] = {}
    for number, row in enumerate(rows[1:], start=3):
        if len(row) != 3 or not row[0] or row[1] not in (*SPLITS, BLOCKS, ""):
            raise DataError(
                f"{path.name}: row {number} of the registry of splits is not sound: {row}", damaged
            )
        if row[0] in registry:
            raise DataError(f"{path.name}: group {row[0]!r} is twice in the registry of splits", damaged)
        registry[row[0]] = GroupSplit(row[1] or None, row[2])
    now = json.loads(json.dumps(_settings(split)))
    if settings != now:
        changed = [f"{k} {settings.get(k)} -> {now[k]}" for k in now if settings.get(k) != now[k]]
        raise DataError(
            f"{path}: {len(registry)} groups were given their split with other settings: {', '.join(changed)}",
            "set split in params.yaml back, so that no test image ever trains, or delete the file to deal out all "
            "groups anew",
        )
    return registry


def write_registry(path: Path | str, split: Split, registry: Mapping[str, GroupSplit]) -> None:
    """Write all decisions, sorted by group, in one step.

    Raises:
        DataError: the disk is full or not writable.
    """
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        stream.write(_MARK + json.dumps(_settings(split), sort_keys=True) + "\n")
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_HEADER)
        for group, entry in sorted(registry.items()):
            writer.writerow([group, entry.split or "", entry.reason])
