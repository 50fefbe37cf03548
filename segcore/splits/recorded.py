"""Groups stay in the split that the split file records: whatever would move one is an error, or set aside.

Otherwise images of the test set, on which models were chosen, would be used for training.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from segcore.errors import DataError
from segcore.params import Split
from segcore.splits.blocks import BLOCKS
from segcore.splits.constraints import CUT, Group
from segcore.splits.split_file import GroupSplit

_SHOWN = 5


def require_recorded(
    groups: Mapping[str, Group], split: Split, earlier: Mapping[str, GroupSplit], record: Path | str
) -> None:
    """Check that no group would leave the split that the split file records for it.

    Args:
        groups: groups of the catalogue.
        split: settings; groups in `given` need no data.
        earlier: entries of the split file, by group.
        record: path of the split file.

    Raises:
        DataError: split.given, a split of the data set, or another grid of a divided scene would move groups.
    """
    recorded = {name: entry.split for name, entry in earlier.items() if entry.split}
    by_hand = {name: value for value, names in split.given.items() for name in names}
    moved = [f"{n} ({recorded[n]} -> {v})" for n, v in sorted(by_hand.items()) if recorded.get(n, v) != v]
    anew = f"if no model was ever chosen on this test set, remove {record}; or use another data.name"
    _refuse(moved, f"{record}: split.given moves", f"undo this change of split.given; or, {anew}")

    present = {name: group for name, group in groups.items() if name in recorded and not group.by_hand}
    moved = [
        f"{name} ({recorded[name]} -> {group.given})"
        for name, group in present.items()
        if contradicts(group.given, earlier[name])
    ]
    back = "move their files back, or name the groups with their recorded splits in split.given"
    _refuse(moved, f"{record}: the splits of the data set move", f"{back}; or, {anew}")

    moved = [n for n, group in present.items() if recorded[n] == BLOCKS and not group.divisible]
    _refuse(moved, f"{record}: scenes of another size move", f"restore the scenes; or, {anew}")


def contradicts(value: str | None, entry: GroupSplit | None) -> bool:
    """Whether a split of the data set differs from the recorded one; a group of train may be recorded elsewhere."""
    if value is None or entry is None or entry.split is None:
        return False
    return entry.split != value and not (value == "train" and entry.reason.startswith(CUT))


def contradicting_items(
    items: pd.DataFrame, split: Split, earlier: Mapping[str, GroupSplit]
) -> dict[str, str]:
    """Items of later batches to which the data set gives another split than the recorded one, with the reason.

    They are set aside instead of raising an error, because batches arrive unattended and never change.

    Args:
        items: catalogue rows in the order of receipt, so that the first row is of the first batch.
        split: settings.
        earlier: entries of the split file, by group.
    """
    if not len(items) or not {"batch", "split"} <= set(items.columns):
        return {}
    by_hand = {name for names in split.given.values() for name in names}
    later = items[(items["batch"] != items["batch"].iloc[0]) & ~items["group"].isin(by_hand)]
    return {
        str(
            row.id
        ): f"the data set gives it to {row.split}, but its group {row.group} is in {earlier[row.group].split}"
        for row in later.itertuples()
        if isinstance(row.split, str) and contradicts(row.split, earlier.get(row.group))
    }


def _refuse(moved: Sequence[str], start: str, remedy: str) -> None:
    if moved:
        more = f" and {len(moved) - _SHOWN} more" if len(moved) > _SHOWN else ""
        count = "1 group" if len(moved) == 1 else f"{len(moved)} groups"
        shown = ", ".join(moved[:_SHOWN])
        raise DataError(f"{start} {count} out of the recorded split: {shown}{more}", remedy)
