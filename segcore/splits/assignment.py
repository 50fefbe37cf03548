"""Which group goes into which split: linked groups stay together, and no group ever moves when data grow.

    links = footprints.links(catalogue)                      # a, b, kind, detail
    registry = linking.read_registry(path, split)            # {} at first
    decision = linking.decide(catalogue, links, split, registry)
    items = prepared items whose `volume` (id in the catalogue) is not in decision.aside
    regions = splits.assign(items, split, decision)
    windows = windows.index_item(row, label, classes, prepare, split, decision)   # row: id, volume, group
    splits.check(regions, windows, items, split, links)
    linking.write_registry(path, split, decision.registry)   # last: a run that failed fixes nothing

What is given by hand comes first, then the registry, then what the data set says, then links to what is decided, and
what is left is stratified. A new group that would bridge two splits is set aside.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

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
from segcore.splits.split_file import GroupSplit, read_registry, write_registry
from segcore.splits.stratify import stratify

__all__ = ["Assignment", "GroupSplit", "decide", "read_registry", "write_registry"]


@dataclass(frozen=True)
class Assignment:
    """What goes where.

    Attributes:
        groups: each group's split, BLOCKS where its scenes are divided, or None where it was set aside.
        aside: ids (in the catalogue) that belong to no split, with the reason.
        anchors: of items that are cut into blocks, the item that names the blocks (itself, or an earlier date).
        clusters: of items that count as one case in statistics, what they are a case of: the group, or the smallest
            of the groups it is linked to. The blocks of an item that is not here are cases each.
        registry: old and new entries, to be written once all else succeeded.
    """

    groups: dict[str, str | None]
    aside: dict[str, str]
    anchors: dict[str, str]
    clusters: dict[str, str]
    registry: dict[str, GroupSplit]


def _check_given(items: pd.DataFrame, split: Split, registry: Mapping[str, GroupSplit]) -> None:
    given = [name for members in split.given.values() for name in members]
    absent = sorted(set(given) - set(items["group"]) - set(registry))
    twice = sorted({name for name in given if given.count(name) > 1})
    if absent or twice:
        what = f"split.given names unknown groups {absent}" if absent else f"split.given names {twice} twice"
        raise DataError(what, f"groups there are: {', '.join(sorted(set(items['group']))[:20])}")


def _strays(
    items: pd.DataFrame, frame: Mapping[str, str], registry: Mapping[str, GroupSplit]
) -> dict[str, str]:
    """Items of groups that are divided into blocks already, but that lie on another grid than those."""
    strays = {}
    divided = {name for name, entry in registry.items() if entry.reason.startswith(BLOCKS_OF)}
    for group, rows in items.loc[items["group"].isin(list(divided)), ["id", "group"]].groupby("group"):
        reason = registry[str(group)].reason
        first = frame.get(reason.removeprefix(BLOCKS_OF), frame[rows["id"].iloc[0]])
        for name in rows["id"]:
            if frame[name] != first and first in {frame[i] for i in rows["id"]}:
                strays[name] = f"its group {group} is divided into {reason}, on another grid than this item's"
    return strays


def _late(
    items: pd.DataFrame, links: pd.DataFrame, split: Split, registry: Mapping[str, GroupSplit]
) -> dict[str, str]:
    """Items that came in a later batch than one they are linked to, which is in another split than their known group.

    Nobody watches when a batch comes in, so that the pair must not stop everything else.
    """
    if "batch" not in items:
        return {}
    decided = {name: entry.split for name, entry in registry.items() if entry.split in SPLITS}
    decided |= {name: value for value, members in split.given.items() for name in members}
    known = items[["id", "group", "batch"]].to_numpy().tolist()
    group, batch = {i: g for i, g, _ in known}, {i: b for i, _, b in known}
    late: dict[str, str] = {}
    for a, b, kind in zip(links["a"], links["b"], links["kind"], strict=True):
        if a not in batch or b not in batch or batch[a] == batch[b]:
            continue
        new, old = (a, b) if batch[a] > batch[b] else (b, a)
        own, other = decided.get(group[new]), decided.get(group[old])
        if own and other and own != other:
            late.setdefault(
                new, f"it is linked to {old} ({kind}), which is in {other}; its group {group[new]}, in {own}"
            )
    return late


def _vectors(items: pd.DataFrame) -> dict[str, np.ndarray]:
    """For each group its pixels of each class and, last, 1."""
    counts = [json.loads(c) if isinstance(c, str) else {} for c in items.get("pixels_per_class", [])]
    names = sorted({name for c in counts for name in c})
    vectors: dict[str, np.ndarray] = {}
    for group, count in zip(items["group"], counts or [{}] * len(items), strict=True):
        vector = vectors.setdefault(group, np.r_[np.zeros(len(names)), 1.0])
        vector[:-1] += [count.get(name, 0) for name in names]
    return vectors


def _choose(
    units: list[list[str]],
    allowed: tuple[str, ...],
    held: Mapping[str, str],
    vectors: Mapping[str, np.ndarray],
    split: Split,
) -> list[str]:
    """A split for each unit, given what groups are held where."""
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
    """Decide for the units that nothing decides: first those that the data set lets train, then all others."""
    pools: dict[tuple[str, ...], list[list[str]]] = {}
    for unit in units:
        allowed = tuple(s for s in SPLITS if all(s in state.groups[name].allowed for name in unit))
        pools.setdefault(allowed, []).append(unit)
    for allowed, members in sorted(pools.items(), key=lambda pool: len(pool[0])):
        ours = {n: v for n, v in state.values.items() if v in SPLITS}
        if allowed != SPLITS:  # the balance among what the data set gives to train
            ours = {n: v for n, v in ours.items() if state.groups[n].from_given_train}
        for unit, value in zip(members, _choose(members, allowed, ours, vectors, state.split), strict=True):
            how = "stratified" if state.split.stratify else "hash"
            for name in unit:
                reason = how if name == unit[0] else f"linked to {unit[0]}"
                if state.groups[name].given:
                    reason = "given" if value == "train" else f"{CUT}, {reason}"
                state.fix(name, value, reason)


def _clusters(
    state: State, items: pd.DataFrame, links: pd.DataFrame, frame: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Anchors and clusters of items; see Decision."""
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
    items: pd.DataFrame, links: pd.DataFrame, split: Split, registry: Mapping[str, GroupSplit]
) -> Assignment:
    """Decide for every group of the catalogue.

    Args:
        items: catalogue rows with id, group, height, width; where there, split (as the data set gives it), status
            (only "accepted" ones count), sha256, crs, transform, pixels_per_class.
        links: a, b, kind, detail; of ids that are not in `items` they count nothing.
        registry: decisions of earlier runs.

    Raises:
        DataError: split.given names an unknown group, or one twice.
        LeakError: what is given, or what was decided earlier, puts linked items into different splits.
    """
    if "status" in items:
        items = items[items["status"] == "accepted"]
    items = items.sort_values("id", ignore_index=True)
    _check_given(items, split, registry)
    frame = dict(zip(items["id"], frames(items), strict=True))
    aside = _strays(items, frame, registry) | _late(items, links, split, registry)
    if aside:
        items = items[~items["id"].isin(list(aside))]
        frame = dict(zip(items["id"], frames(items), strict=True))
    state = State(groups_of(items, frame, split), edges_of(items, links, frame), split)
    open_given_train(state.groups, split, registry)
    honour(state, registry)
    propagate(state)
    _spread(state, divide(state, units_of(state)), _vectors(items))
    anchors, clusters = _clusters(state, items, links, frame)
    groups, entries = {}, dict(registry)
    for name, value in state.values.items():
        groups[name] = BLOCKS if value and value.startswith(BLOCKS_OF) else value
        entries[name] = GroupSplit(groups[name], state.reasons[name])
        if value is None:
            reason = state.reasons[name].removeprefix(ASIDE)
            aside.update(dict.fromkeys(state.groups[name].items, reason))
    return Assignment(groups, aside, anchors, clusters, entries)
