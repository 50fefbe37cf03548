"""Groups, their links, and the steps, ordered by `segcore.splits.assignment`, that assign determined groups."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pandas as pd

from segcore.errors import LeakError
from segcore.params import SPLITS, Split
from segcore.splits.blocks import BLOCKS, fraction, is_divided
from segcore.splits.split_file import GroupSplit

CUT = "cut from the given train"
BLOCKS_OF = "blocks of "
ASIDE = "set aside: "


@dataclass
class Edge:
    """A link: groups that must not be in different splits.

    Attributes:
        members: for each group, its item that the link is about.
        why: kind and detail of the link.
        decided: for each assigned value, the first group that it was assigned to.
    """

    members: dict[str, str]
    why: str
    decided: dict[str, str] = field(default_factory=dict)


@dataclass
class Group:
    """A group before splits are assigned.

    Attributes:
        items: ids of its items.
        frame: pixel grid of its items; None if they are on several grids.
        divisible: whether it can be divided into blocks.
        given: split given by hand or by the data set.
        by_hand: whether `given` comes from split.given.
        allowed: splits that it may be assigned to.
        from_given_train: whether the data set gives it to train.
    """

    items: list[str]
    frame: str | None
    divisible: bool
    given: str | None = None
    by_hand: bool = False
    allowed: tuple[str, ...] = SPLITS
    from_given_train: bool = False


class State:
    """Groups, links, and the splits that are assigned so far.

    Attributes:
        values: for each assigned group, its split, "blocks of X", or None if it is set aside.
        reasons: for each assigned group, the reason.
        touched: groups without a value that are linked to groups with one.
    """

    def __init__(self, groups: dict[str, Group], edges: list[Edge], split: Split) -> None:
        self.groups, self.edges, self.split = groups, edges, split
        self.edges_of: dict[str, list[Edge]] = defaultdict(list)
        for edge in edges:
            for name in edge.members:
                self.edges_of[name].append(edge)
        self.values: dict[str, str | None] = {}
        self.reasons: dict[str, str] = {}
        self.touched: set[str] = set()

    def order(self, names: Iterable[str]) -> list[str]:
        """Names in the order of their hashes, so that neither row order nor alphabet matters."""
        return sorted(names, key=lambda name: (fraction(self.split.seed, name), name))

    def undecided(self) -> list[str]:
        """Groups without a value, in the order of their hashes."""
        return [name for name in self.order(self.groups) if name not in self.values]

    def fix(self, name: str, value: str, reason: str) -> None:
        """Assign a value to a group, and record it in its links."""
        self.values[name], self.reasons[name] = value, reason
        for edge in self.edges_of[name]:
            edge.decided.setdefault(value, name)
            self.touched.update(m for m in edge.members if m not in self.values)

    def set_aside(self, name: str, reason: str) -> None:
        """Leave a group out of all splits."""
        self.values[name], self.reasons[name] = None, ASIDE + reason

    def neighbours(self, name: str) -> dict[str, tuple[str, Edge]]:
        """Values of the assigned groups that a group is linked to, each with one such group and the link."""
        linked: dict[str, tuple[str, Edge]] = {}
        for edge in self.edges_of[name]:
            for value, other in edge.decided.items():
                if other != name:
                    linked.setdefault(value, (other, edge))
        return linked

    def components(self) -> dict[str, str]:
        """For each group that is not set aside, the smallest group that it is linked to, directly or indirectly."""
        unit: dict[str, str] = {}
        for start in sorted(n for n, v in self.values.items() if v is not None):
            queue = [] if start in unit else [start]
            while queue:
                name = queue.pop()
                if name not in unit and self.values[name] is not None:
                    unit[name] = start
                    queue += [m for edge in self.edges_of[name] for m in edge.members if m not in unit]
        return unit

    def leak(self, name: str, value: str, other: str, edge: Edge) -> LeakError:
        """The error for two linked groups that are fixed in different splits."""
        return LeakError(
            f"{edge.members[name]} (group {name}, {value}) and {edge.members[other]} (group {other}, "
            f"{self.values[other]}) are linked, but in different splits ({edge.why})",
            "remove one of the two; if they only look alike, leave near-duplicate out of split.links; or, if neither "
            "has a recorded split, give both the same split in split.given or the same data.group",
        )


def edges_of(items: pd.DataFrame, links: pd.DataFrame, frame: Mapping[str, str]) -> list[Edge]:
    """Links between groups: those of the table, and groups of equal content or on one grid."""
    group = dict(zip(items["id"], items["group"], strict=True))
    edges = []
    for a, b, kind, detail in (
        links[["a", "b", "kind", "detail"]].sort_values(["a", "b"]).itertuples(index=False)
    ):
        if a in group and b in group and group[a] != group[b]:
            edges.append(Edge({group[a]: a, group[b]: b}, f"{kind}: {detail}"))
    shared: dict[str, dict[str, str]] = defaultdict(dict)
    for name, key in frame.items():
        shared[key].setdefault(group[name], name)
    edges += [Edge(members, "same grid or same content") for members in shared.values() if len(members) > 1]
    return edges


def groups_of(items: pd.DataFrame, frame: Mapping[str, str], split: Split) -> dict[str, Group]:
    """Groups with their given splits.

    Raises:
        LeakError: the data set gives items of one group different splits.
    """
    by_hand = {name: s for s, members in split.given.items() for name in members}
    # Lists instead of one table per group, which would take minutes.
    rows: dict[str, list[tuple[str, int, int, str | None]]] = defaultdict(list)
    given_splits = items["split"] if "split" in items else [None] * len(items)
    columns = (items["group"], items["id"], items["height"], items["width"], given_splits)
    for name, *row in zip(*columns, strict=True):
        rows[name].append(tuple(row))
    groups = {}
    for name in sorted(rows):
        group_frames = {frame[i] for i, *_ in rows[name]}
        large = all(is_divided(int(h), int(w), split) for _, h, w, _ in rows[name])
        one = len(group_frames) == 1
        group = Group([i for i, *_ in rows[name]], group_frames.pop() if one else None, large and one)
        given = [(i, s) for i, *_, s in rows[name] if isinstance(s, str)]
        if name in by_hand:
            group.given, group.by_hand = by_hand[name], True
        elif given:
            first, value = given[0]
            for other, its in given[1:]:
                if its != value:
                    raise LeakError(
                        f"{first} ({value}) and {other} ({its}) are in "
                        f"one group, {name}, but the data set puts them into different splits",
                        "give the group one split in split.given, or correct data.group",
                    )
            group.given = value
            group.from_given_train = value == "train"
        groups[name] = group
    return groups


def open_given_train(groups: dict[str, Group], split: Split, earlier: Mapping[str, GroupSplit]) -> None:
    """Allow groups that the data set gives to train in the validation or test split, if it gives none to these."""
    by_data_set = [g for g in groups.values() if g.given and not g.by_hand]
    present = {g.given for g in groups.values()}
    lacking = [s for s in SPLITS if split.fractions[s] > 0 and s not in present]  # type: ignore[index]
    complete = all(g.given for g in groups.values())
    before = any(e.reason.startswith(CUT) for e in earlier.values())
    if lacking and (complete or before):
        for group in by_data_set:
            if group.given == "train":
                group.allowed = ("train", *lacking)
    for group in groups.values():
        if group.given and group.allowed == SPLITS:
            group.allowed = (group.given,)


def honour(state: State, earlier: Mapping[str, GroupSplit]) -> None:
    """Assign groups by split.given and the split file, which agree, then by the splits of the data set.

    Raises:
        LeakError: two groups with a given or earlier split are linked, but in different splits.
    """

    def fix(name: str, value: str, reason: str) -> None:
        for other_value, (other, edge) in state.neighbours(name).items():
            if other_value == value:
                continue
            group = state.groups[name]
            if name in earlier or group.by_hand or state.groups[other].given:
                raise state.leak(name, value, other, edge)
            state.set_aside(name, f"given as {value}, but linked to {other} ({other_value})")
            return
        state.fix(name, value, reason)

    ordered = state.order(state.groups)
    for name in ordered:
        if state.groups[name].by_hand:
            fix(name, str(state.groups[name].given), "given")
    for name in ordered:
        group, entry = state.groups[name], earlier.get(name)
        if name in state.values or entry is None:
            continue
        if entry.split is None:
            state.values[name], state.reasons[name] = None, entry.reason
        elif entry.reason.startswith(CUT):
            # The data set gives it to train, but an earlier run moved it to another split.
            group.given = None
            fix(name, entry.split, entry.reason)
        elif group.given:
            fix(name, group.given, "given")
        elif entry.split != BLOCKS:
            fix(name, entry.split, entry.reason)
        elif group.divisible and entry.reason.startswith(BLOCKS_OF):
            fix(name, entry.reason, entry.reason)
    for name in ordered:
        group = state.groups[name]
        if name not in state.values and group.given and len(group.allowed) == 1:
            fix(name, group.given, "given")


def propagate(state: State) -> None:
    """Assign groups to the split that they are linked to; groups that are linked to two splits are set aside.

    Raises:
        LeakError: a group that the data set gives to train is linked to one that is given to another split.
    """
    while state.touched:
        ready, state.touched = state.order(state.touched), set()
        for name in ready:
            if name in state.values:
                continue
            group, near = state.groups[name], state.neighbours(name)
            value, (other, _) = next(iter(near.items()))
            if group.given:
                for v, (o, e) in near.items():
                    if state.groups[o].given and v not in group.allowed:
                        raise state.leak(name, group.given, o, e)
            blocks = value.startswith(BLOCKS_OF)
            if len(near) > 1:
                both = " and ".join(f"{o} ({v})" for v, (o, _) in sorted(near.items()))
                state.set_aside(name, f"linked to {both}, which are in different splits")
            elif blocks and not (group.divisible and group.frame == state.groups[other].frame):
                state.set_aside(name, f"linked to {other}, which is divided into blocks of another grid")
            elif not blocks and value not in group.allowed:
                state.set_aside(name, f"given as {group.given}, but linked to {other} ({value})")
            else:
                cut = group.given is not None and value != group.given
                reason = value if blocks else f"linked to {other}"
                state.fix(name, value, f"{CUT}, {reason}" if cut else reason)


def units_of(state: State) -> list[list[str]]:
    """Units: lists of undecided groups that are linked to each other, in the order of their hashes."""
    units, seen = [], set()
    for start in state.undecided():
        if start in seen:
            continue
        unit, queue = [], [start]
        seen.add(start)
        while queue:
            name = queue.pop()
            unit.append(name)
            for edge in state.edges_of[name]:
                fresh = [m for m in edge.members if m not in seen and m not in state.values]
                seen.update(fresh)
                queue += fresh
        units.append(state.order(unit))
    return units


def divide(state: State, units: list[list[str]]) -> list[list[str]]:
    """Divide units on one grid that are large enough into blocks; return the other units."""
    whole = []
    for unit in units:
        members = [state.groups[name] for name in unit]
        one_grid = len({g.frame for g in members}) == 1
        if one_grid and all(g.divisible and not g.given for g in members):
            value = BLOCKS_OF + min(i for g in members for i in g.items)
            for name in unit:
                state.fix(name, value, value)
        else:
            whole.append(unit)
    return whole
