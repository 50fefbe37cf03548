"""No split leaks, whatever links, given splits and new data there are; checked by painting pixels, not by segcore."""

import json

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from segcore.errors import DataError, LeakError
from segcore.ingest.links.footprints import same_places
from segcore.params import Split
from segcore.splits.assignment import decide
from segcore.splits.leakage import check
from segcore.splits.regions import assign

FRACTIONS = {"train": 0.6, "validation": 0.2, "test": 0.2}
KINDS_OF_SPLIT = [
    Split(fractions=FRACTIONS),
    Split(fractions=FRACTIONS, stratify=False),
    Split(fractions=FRACTIONS, block=16),
]


def linked(*pairs):
    rows = [[*sorted(pair), "near-duplicate", "as the test says"] for pair in pairs]
    return pd.DataFrame(rows, columns=["a", "b", "kind", "detail"])


worlds = st.lists(
    st.tuples(
        st.integers(0, 13),  # group
        st.integers(0, 7),  # row, in steps of 16 pixels
        st.integers(0, 7),  # column
        st.sampled_from([16, 32, 48]),  # size: 32 and more may be divided
        st.integers(0, 15),  # content
        st.booleans(),  # whether it is georeferenced
    ),
    min_size=8,
    max_size=16,
)


def world(items):
    rows = []
    for index, (group, row, col, size, content, is_placed) in enumerate(items):
        transform = json.dumps([1, 0, 500000 + 16 * col, 0, -1, 5000000 - 16 * row]) if is_placed else None
        crs = "EPSG:32633" if is_placed else None
        place = {"crs": crs, "transform": transform, "height": size, "width": size}
        digest = f"content {content}-{size}" if content < 4 else f"unique {index}"
        rows.append({"id": f"i{index:02d}", "group": f"g{group}", "sha256": digest, **place})
    return pd.DataFrame(rows)


def leaks(regions, items, pairs):
    """All leaks, found by painting and by comparing each pair, without code of segcore."""
    found = []
    canvas = {name: np.zeros((192, 192), bool) for name in FRACTIONS}
    held = regions.groupby("item")["split"].agg(set).to_dict()
    rows = {row.id: row for row in items.itertuples() if row.id in held}
    for r in regions.itertuples():
        if isinstance(rows[r.item].transform, str):
            t = json.loads(rows[r.item].transform)
            top, left = 5000000 - int(t[5]) + r.row, int(t[2]) - 500000 + r.col
            canvas[r.split][top : top + r.height, left : left + r.width] = True
    if sum(c.astype(int) for c in canvas.values()).max() > 1:
        found.append("a place in two splits")
    for a in rows.values():
        for b in rows.values():
            one_grid = (a.height, a.transform) == (b.height, b.transform)
            same = a.sha256 == b.sha256
            related = a.group == b.group or same or (a.id, b.id) in pairs
            if a.id < b.id and related and not one_grid and not same and len(held[a.id] | held[b.id]) > 1:
                found.append((a.id, b.id))
            if a.id < b.id and same:
                mine, theirs = (
                    {(r.row, r.col): r.split for r in regions[regions["item"] == i].itertuples()}
                    for i in (a.id, b.id)
                )
                if mine != theirs:
                    found.append((a.id, b.id, "content"))
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    worlds,
    st.sets(st.tuples(st.integers(0, 15), st.integers(0, 15)), max_size=5),
    st.dictionaries(st.integers(0, 13), st.sampled_from(list(FRACTIONS)), max_size=2),
    st.lists(st.integers(4, 16), min_size=1, max_size=4),
    st.sampled_from(KINDS_OF_SPLIT),
)
def test_no_sequence_of_groups_links_given_splits_and_growth_ever_leaks(items, pairs, hand, steps, split):
    everything = world(items)
    pairs = {(f"i{a:02d}", f"i{b:02d}") for a, b in pairs if a < b}
    registry, none = {}, everything.iloc[:0].assign(item=[], row=[], col=[])
    for count in sorted(set(steps)):
        table = everything[:count]
        by_hand = {
            s: [f"g{g}" for g, v in hand.items() if v == s and f"g{g}" in set(table["group"])]
            for s in FRACTIONS
        }
        now = split.model_copy(update={"given": by_hand})
        links = pd.concat([linked(*pairs), same_places(table)], ignore_index=True)
        try:
            decision = decide(table, links, now, registry)
        except LeakError:
            # Only splits given by hand or decided earlier may make a leak unavoidable.
            if not hand and not registry:
                raise
            event("leak refused")
            return
        for group, entry in registry.items():
            if group in decision.groups and f"g{group}" not in by_hand:
                given_now = any(group in members for members in by_hand.values())
                assert given_now or decision.groups[group] == entry.split
        try:
            regions = assign(table, now, decision)
        except DataError:  # too few groups to fill every split
            continue
        event("checked, with blocks" if decision.anchors else "checked")
        assert leaks(regions, table, pairs) == []
        check(regions, none, table, now, links)
        registry = decision.entries
