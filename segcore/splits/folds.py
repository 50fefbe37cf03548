"""Cross-validation by groups: one split assignment per fold, in which another part of the groups is tested.

Linked groups are in one part. Parts are stratified as splits are; the validation split of a fold is taken from the
groups that it does not test. Scenes that are divided have blocks in every fold (`segcore.splits.blocks`).

All is decided anew when data are added: every group is tested in any case, so that no test set is kept apart.
"""

import numpy as np
import pandas as pd

from segcore.data.prepared import fold_name
from segcore.errors import DataError
from segcore.ingest.links.footprints import frames
from segcore.params import Split
from segcore.splits.assignment import Assignment, choose, clusters_of, joined_of, vectors_of
from segcore.splits.blocks import BLOCKS
from segcore.splits.constraints import BLOCKS_OF, State, divide, edges_of, groups_of, units_of
from segcore.splits.split_file import GroupSplit
from segcore.splits.stratify import stratify

_TRAINED = ("train", "validation")


def decide_folds(items: pd.DataFrame, links: pd.DataFrame, split: Split) -> list[Assignment]:
    """Assign every group to a split in each fold; in exactly one of them it is tested.

    Args:
        items: as of `segcore.splits.assignment.decide`, without splits of the data set.
        links: a, b, kind, detail; links of ids that are not in `items` are ignored.
        split: settings with `folds`.

    Returns:
        One assignment per fold, with the same entries of the split file: the fold that tests each group.

    Raises:
        DataError: the data set has splits of its own, or there are too few groups.
    """
    assert split.folds is not None
    items = items.sort_values("id", ignore_index=True)
    _require_no_splits(items)
    frame = dict(zip(items["id"], frames(items), strict=True))
    groups = groups_of(items, frame, split)
    state = State(groups, edges_of(items, links, frame), split)
    units = divide(state, units_of(state))
    _require_enough(units, state, split)
    vectors = vectors_of(items)
    sums = np.array([sum(vectors[name] for name in sorted(unit)) for unit in units])
    tested = _parts(units, sums, split)
    how = "stratified" if split.stratify else "hash"
    entries = {name: GroupSplit(BLOCKS, value or "") for name, value in state.values.items()}
    for unit, fold in zip(units, tested, strict=True):
        for name in unit:
            entries[name] = GroupSplit(fold_name(fold), how if name == unit[0] else f"linked to {unit[0]}")
    decisions = []
    for fold in range(split.folds):
        rest = [unit for unit, own in zip(units, tested, strict=True) if own != fold]
        values = (
            dict(zip(map(min, rest), choose(rest, _TRAINED, {}, vectors, split), strict=True)) if rest else {}
        )
        one = State(groups, state.edges, split)
        for name, value in state.values.items():
            one.fix(name, str(value), str(value))
        for unit in units:
            for name in unit:
                one.fix(name, values.get(min(unit), "test"), entries[name].reason)
        anchors, clusters = clusters_of(one, items, links, frame)
        placed = {n: BLOCKS if v and v.startswith(BLOCKS_OF) else v for n, v in one.values.items()}
        decisions.append(Assignment(placed, {}, anchors, clusters, entries, joined_of(one), fold))
    return decisions


def _parts(units: list[list[str]], sums: np.ndarray, split: Split) -> list[int]:
    """The fold that tests each unit."""
    folds = split.folds or 1
    if not split.stratify:
        # units are in the order of their hashes
        return [place * folds // len(units) for place in range(len(units))]
    if not units:
        return []
    nothing = np.zeros((folds, sums.shape[1]))
    return [int(fold) for fold in stratify(sums, [1 / folds] * folds, nothing)]


def _require_no_splits(items: pd.DataFrame) -> None:
    own = items[items["split"].notna()] if "split" in items else items[:0]
    if len(own):
        raise DataError(
            f"split.folds tests every group once, but the data set has splits of its own: {own['id'].iloc[0]} is given "
            f"as {own['split'].iloc[0]}",
            "set split.folds: null in params.yaml, or leave the splits out of data.images and data.splits",
        )


def _require_enough(units: list[list[str]], state: State, split: Split) -> None:
    """Check that each fold has a group to test, and two others; divided scenes have blocks in every fold."""
    folds = split.folds or 1
    if state.values or (len(units) >= folds and len(units) > 2):
        return
    joined = len(units) < len(state.groups)
    raise DataError(
        f"split.folds: {folds}, but there are only {len(units)} groups"
        f"{' after linked ones are joined' if joined else ''}",
        "set split.folds: null, or as many folds as groups (at least 3) with as many seeds; or make data.group finer",
    )
