"""Split assignment: linked groups stay together, and no group ever changes its split when data are added.

    links = footprints.links(catalogue)                                # a, b, kind, detail
    earlier = split_file.read_split_file(path, split)                  # {} at first
    decision = assignment.decide(catalogue, links, split, earlier)
    items = prepared items whose `volume` (id in the catalogue) is not in decision.aside
    table = regions.assign(items, split, decision)
    index = windows.index_item(row, label, classes, prepare, split, decision)   # row: id, volume, group
    leakage.check(table, index, items, split, links)
    split_file.write_split_file(path, split, decision.entries)         # last: a failed run decides nothing

The split file of earlier runs takes precedence, and what contradicts it is an error; then splits given by hand
(split.given), then splits of the data set, then links to groups that have a split. The remaining groups are stratified.
A new group that is linked to two splits is set aside.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from segcore.errors import DataError
from segcore.ingest.links.footprints import frames
from segcore.params import SPLITS, Split
from segcore.splits.blocks import BLOCKS, bucket, fraction, is_divided
from segcore.splits.constraints import (
    ASIDE,
    BLOCKS_OF,
    CUT,
    State,
    divide,
    edges_of,
    groups_of,
    honour,
    open_given_train,
    propagate,
    units_of,
)
from segcore.splits.recorded import contradicting_items, require_recorded
from segcore.splits.split_file import GroupSplit, read_split_file, write_split_file
from segcore.splits.stratify import stratify

__all__ = ["Assignment", "GroupSplit", "decide", "read_split_file", "write_split_file"]


@dataclass(frozen=True)
class Assignment:
    """Splits of groups and items.

    Attributes:
        groups: split of each group, BLOCKS if its scenes are divided, or None if it is set aside.
        aside: ids (in the catalogue) of items without a split, with the reason.
        anchors: for items that are divided into blocks, the item that the blocks are named after (the item itself, or
            an earlier date of its grid).
        clusters: for items that count as one case in statistics, the name of the case: the group, or the smallest of
            the groups that it is linked to. Of an item that is missing here, each block is a case.
        entries: entries of the split file, old and new.
        joined: links that join groups, as text, by their kind; only links that `split.links` can leave out.
        fold: index of the fold of a cross-validation; None without folds.
    """

    groups: dict[str, str | None]
    aside: dict[str, str]
    anchors: dict[str, str]
    clusters: dict[str, str]
    entries: dict[str, GroupSplit]
    joined: dict[str, list[str]] = field(default_factory=dict)
    fold: int | None = None


def _check_given(items: pd.DataFrame, split: Split, earlier: Mapping[str, GroupSplit]) -> None:
    given = [name for members in split.given.values() for name in members]
    absent = sorted(set(given) - set(items["group"]) - set(earlier))
    twice = sorted({name for name in given if given.count(name) > 1})
    if absent or twice:
        what = f"split.given names unknown groups {absent}" if absent else f"split.given names {twice} twice"
        raise DataError(
            what, f"correct split.given; existing groups: {', '.join(sorted(set(items['group']))[:20])}"
        )


def _strays(
    items: pd.DataFrame, frame: Mapping[str, str], earlier: Mapping[str, GroupSplit]
) -> dict[str, str]:
    """Items on another grid than the one by which their group was divided into blocks earlier, with the reason."""
    strays = {}
    divided = {name for name, entry in earlier.items() if entry.reason.startswith(BLOCKS_OF)}
    for group, rows in items.loc[items["group"].isin(list(divided)), ["id", "group"]].groupby("group"):
        reason = earlier[str(group)].reason
        first = frame.get(reason.removeprefix(BLOCKS_OF), frame[rows["id"].iloc[0]])
        for name in rows["id"]:
            if frame[name] != first and first in {frame[i] for i in rows["id"]}:
                strays[name] = f"its group {group} is divided into {reason}, on another grid than this item's"
    return strays


def _late(
    items: pd.DataFrame, links: pd.DataFrame, split: Split, earlier: Mapping[str, GroupSplit]
) -> dict[str, str]:
    """Items linked to an item of an earlier batch whose split differs from that of their own group, with the reason.

    They are set aside instead of raising an error, because batches arrive unattended. Rows are in the order of receipt.
    """
    if "batch" not in items:
        return {}
    decided = {name: entry.split for name, entry in earlier.items() if entry.split in SPLITS}
    decided |= {name: value for value, members in split.given.items() for name in members}
    order = {batch: place for place, batch in enumerate(items["batch"].unique())}
    rows = items[["id", "group", "batch"]].to_numpy().tolist()
    group, batch = {i: g for i, g, _ in rows}, {i: order[b] for i, _, b in rows}
    late: dict[str, str] = {}
    for a, b, kind in zip(links["a"], links["b"], links["kind"], strict=True):
        if a not in batch or b not in batch or batch[a] == batch[b]:
            continue
        new, old = (a, b) if batch[a] > batch[b] else (b, a)
        own, other = decided.get(group[new]), decided.get(group[old])
        if own and other and own != other:
            late.setdefault(
                new,
                f"it is linked to {old} ({kind}), which is in {other}; its own group {group[new]} is in {own}",
            )
    return late


def vectors_of(items: pd.DataFrame) -> dict[str, np.ndarray]:
    """Vector of each group: pixels per class and, last, 1 (to count groups)."""
    counts = [json.loads(c) if isinstance(c, str) else {} for c in items.get("pixels_per_class", [])]
    names = sorted({name for c in counts for name in c})
    vectors: dict[str, np.ndarray] = {}
    for group, count in zip(items["group"], counts or [{}] * len(items), strict=True):
        vector = vectors.setdefault(group, np.r_[np.zeros(len(names)), 1.0])
        vector[:-1] += [count.get(name, 0) for name in names]
    return vectors


def choose(
    units: list[list[str]],
    allowed: tuple[str, ...],
    held: Mapping[str, str],
    vectors: Mapping[str, np.ndarray],
    split: Split,
) -> list[str]:
    """A split for each unit, given the groups that each split already has."""
    wanted: dict[str, float] = {s: share for s, share in split.fractions.items() if s in allowed}
    fractions = {s: wanted[s] / sum(wanted.values()) for s in allowed}
    if not split.stratify:
        everywhere = {s: fractions.get(s, 0.0) for s in SPLITS}
        return [bucket(fraction(split.seed, min(unit)), everywhere) for unit in units]
    size = len(next(iter(vectors.values())))
    present = np.zeros((len(allowed), size))
    for name, value in sorted(held.items()):
        if value in allowed:
            present[allowed.index(value)] += vectors[name]
    sums = np.array([sum(vectors[name] for name in sorted(unit)) for unit in units])
    return [allowed[i] for i in stratify(sums, list(fractions.values()), present)]


def _spread(state: State, units: list[list[str]], vectors: Mapping[str, np.ndarray]) -> None:
    """Assign the remaining units: first those that the data set gives to train, then all others."""
    pools: dict[tuple[str, ...], list[list[str]]] = {}
    for unit in units:
        allowed = tuple(s for s in SPLITS if all(s in state.groups[name].allowed for name in unit))
        pools.setdefault(allowed, []).append(unit)
    for allowed, members in sorted(pools.items(), key=lambda pool: len(pool[0])):
        assigned = {n: v for n, v in state.values.items() if v in SPLITS}
        if allowed != SPLITS:
            # balanced only among the groups that the data set gives to train
            assigned = {n: v for n, v in assigned.items() if state.groups[n].from_given_train}
        for unit, value in zip(
            members, choose(members, allowed, assigned, vectors, state.split), strict=True
        ):
            how = "stratified" if state.split.stratify else "hash"
            for name in unit:
                reason = how if name == unit[0] else f"linked to {unit[0]}"
                if state.groups[name].given:
                    reason = "given" if value == "train" else f"{CUT}, {reason}"
                state.fix(name, value, reason)


def clusters_of(
    state: State, items: pd.DataFrame, links: pd.DataFrame, frame: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Anchors and clusters of items; see Assignment."""
    unit = state.components()
    mixed = {
        frame[i]
        for a, b in zip(links["a"], links["b"], strict=True)
        if a in frame and b in frame and frame[a] != frame[b]
        for i in (a, b)
    }
    anchors, clusters = {}, {}
    for row in items[["id", "group", "height", "width"]].itertuples():
        value = state.values[row.group]
        if value is None:
            continue
        large = is_divided(int(row.height), int(row.width), state.split)
        if large:
            anchors[row.id] = value.removeprefix(BLOCKS_OF) if value.startswith(BLOCKS_OF) else frame[row.id]
        if not large or frame[row.id] in mixed:
            clusters[row.id] = unit[row.group]
    return anchors, clusters


def decide(
    items: pd.DataFrame,
    links: pd.DataFrame,
    split: Split,
    earlier: Mapping[str, GroupSplit],
    record: Path | str = "split file",
) -> Assignment:
    """Assign every group of the catalogue to a split.

    Args:
        items: catalogue rows, batches in the order of their receipt, with id, group, height, width; optional: split (of
            the data set), status (only "accepted" rows are used), sha256, crs, transform, pixels_per_class.
        links: a, b, kind, detail; links of ids that are not in `items` are ignored.
        split: settings.
        earlier: entries of the split file, by group.
        record: path of the split file, for errors.

    Raises:
        DataError: split.given names an unknown group, or a group twice; or a group would leave its recorded split.
        LeakError: linked items have different splits by split.given, the split file or the data set.
    """
    if "status" in items:
        items = items[items["status"] == "accepted"]
    aside = _late(items, links, split, earlier) | contradicting_items(items, split, earlier)
    items = items.sort_values("id", ignore_index=True)
    _check_given(items, split, earlier)
    frame = dict(zip(items["id"], frames(items), strict=True))
    aside = _strays(items, frame, earlier) | aside
    if aside:
        items = items[~items["id"].isin(list(aside))]
        frame = dict(zip(items["id"], frames(items), strict=True))
    state = State(groups_of(items, frame, split), edges_of(items, links, frame), split)
    require_recorded(state.groups, split, earlier, record)
    open_given_train(state.groups, split, earlier)
    honour(state, earlier)
    propagate(state)
    _spread(state, divide(state, units_of(state)), vectors_of(items))
    anchors, clusters = clusters_of(state, items, links, frame)
    groups, entries = {}, dict(earlier)
    for name, value in state.values.items():
        groups[name] = BLOCKS if value and value.startswith(BLOCKS_OF) else value
        entries[name] = GroupSplit(groups[name], state.reasons[name])
        if value is None:
            reason = state.reasons[name].removeprefix(ASIDE)
            aside.update(dict.fromkeys(state.groups[name].items, reason))
    return Assignment(groups, aside, anchors, clusters, entries, joined_of(state))


def joined_of(state: State) -> dict[str, list[str]]:
    """Links that join groups, as `Assignment.joined`."""
    joined: dict[str, list[str]] = {}
    for edge in state.edges:
        kind, _, detail = edge.why.partition(": ")
        if kind in ("near-duplicate", "same-place"):
            pair = " and ".join(sorted(edge.members.values()))
            joined.setdefault(kind, []).append(f"{pair} ({detail})")
    return joined
