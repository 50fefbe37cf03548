"""A large scene is divided into blocks, the same ones at every date, unless its group or overlaps forbid it."""

import json

import numpy as np
import pandas as pd
import pytest

from segcore.errors import LeakError
from segcore.ingest.links.footprints import same_places
from segcore.params import Split
from segcore.splits import blocks, leakage
from tests.support.items import FRACTIONS, NO_LINKS, SPLIT, assigned, decided, indexed, items, placed


def test_test_blocks_stay_whole_and_shares_are_exact():
    regions = assigned(items(["scene"], size=640), Split(fractions=FRACTIONS, block=64, buffer=8))
    counts = regions["split"].value_counts()
    assert dict(counts) == {"train": 50, "test": 30, "validation": 20}
    test = regions[regions["split"] == "test"]
    assert (test["height"] == 64).all() and (test["width"] == 64).all()


def painted(regions, windows, table, size=160):
    """(3, 4 * size, 4 * size) bool: pixels of the world in train (with windows), validation and test."""
    world = np.zeros((3, 4 * size, 4 * size), bool)
    origin = {
        row.id: [round(v) for v in np.array(json.loads(row.transform))[[5, 2]]] for row in table.itertuples()
    }
    for r in pd.concat([regions, windows.assign(split="train")]).itertuples():
        row, col = (5000000 - origin[r.item][0]) * 2 + r.row, (origin[r.item][1] - 500000) * 2 + r.col
        world[list(FRACTIONS).index(r.split), row : row + r.height, col : col + r.width] = True
    return world


def test_other_dates_of_a_scene_share_its_blocks():
    table = placed(items(["day1", "day2", "day3"], size=320), [(0, 0)] * 3)
    links = same_places(table)
    decision, regions = decided(table, SPLIT, links)
    windows = indexed(table, SPLIT, decision)
    assert set(decision.groups.values()) == {blocks.BLOCKS} and set(decision.anchors.values()) == {"day1"}
    assert {e.reason for e in decision.entries.values()} == {"blocks of day1"}
    assert len(regions) > 60 and regions.groupby("cluster")["item"].nunique().eq(3).all()
    leakage.check(regions, windows, table, SPLIT, links)
    world = painted(regions, windows, table)
    # pixel by pixel: nothing of another split is within the buffer
    for k in range(3):
        around = np.zeros_like(world[k])
        for r, c in np.argwhere(world[k])[:: 1 if k else 7]:
            around[max(r - 8, 0) : r + 9, max(c - 8, 0) : c + 9] = True
        assert not (around & world[[m for m in range(3) if m != k]]).any()
    moved = regions[regions["item"] == "day2"].index[0]
    other = {"train": "test", "validation": "test", "test": "train"}[regions.loc[moved, "split"]]
    regions.loc[moved, "split"] = other
    with pytest.raises(LeakError, match="day2_r0c0"):
        leakage.check(regions, windows, table, SPLIT, links)


def test_scenes_that_overlap_otherwise_are_not_divided_and_stay_in_one_split():
    names = [f"s{i}" for i in range(6)]
    table = placed(items(names, size=160), [(0, 0), (100, 100), (0, 300), (320, 0), (320, 200), (320, 400)])
    links = same_places(table)
    split = SPLIT.model_copy(update={"given": {"test": ["s2"], "validation": ["s3"], "train": ["s4"]}})
    decision, regions = decided(table, split, links)
    windows = indexed(table, split, decision)
    assert decision.groups["s0"] == decision.groups["s1"] in FRACTIONS
    assert decision.groups["s5"] == blocks.BLOCKS
    assert regions[regions["item"].isin(["s0", "s1"])]["cluster"].unique().tolist() == ["s0"]
    leakage.check(regions, windows, table, split, links)
    assert painted(regions, windows, table).sum(axis=0).max() == 1


def test_a_group_with_several_scenes_is_not_divided():
    table = items(["a", "b", "c"], ["city", "city", "other"], size=320)
    regions = assigned(table, SPLIT)
    assert regions[regions["group"] == "city"]["split"].nunique() == 1
    assert regions[regions["group"] == "other"]["split"].nunique() == 3
    leakage.check(regions, regions.iloc[:0], table, SPLIT, NO_LINKS)


def test_given_scenes_stay_in_one_split_but_each_of_their_blocks_is_a_case():
    table = items(["a", "b", "c"], size=320)
    split = SPLIT.model_copy(update={"given": {"test": ["a"], "train": ["b"], "validation": ["c"]}})
    regions = assigned(table, split)
    assert regions.groupby("item")["split"].unique().map(list).to_dict() == {
        "a": ["test"],
        "b": ["train"],
        "c": ["validation"],
    }
    assert regions["cluster"].is_unique and len(regions) == 75
    assert (regions[["height", "width"]] == 64).all(axis=None)
