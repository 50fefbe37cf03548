"""Regions and windows: spatially apart, disjoint, and checked on what was prepared."""

import json

import numpy as np
import pandas as pd
import pytest

from segcore.errors import DataError, LeakError
from segcore.ingest.links.footprints import same_places
from segcore.params import Prepare, Split
from segcore.splits import assignment, blocks, leakage
from segcore.splits.regions import assign
from segcore.splits.windows import class_counts, index_item, tabulated

FRACTIONS = {"train": 0.5, "validation": 0.2, "test": 0.3}
SPLIT = Split(fractions=FRACTIONS, block=64, buffer=8)
WHOLE = Split(fractions=FRACTIONS)
WINDOWS = Prepare(window=40, stride=8)
NO_LINKS = pd.DataFrame(columns=["a", "b", "kind", "detail"])
AT = [0.5, 0, 500000, 0, -0.5, 5000000]


def items(names, groups=None, size=48):
    return pd.DataFrame(
        {
            "id": names,
            "group": groups or names,
            "height": size,
            "width": size,
            "sha256": [f"{i:064d}" for i in range(len(names))],
        }
    )


def placed(table, origins, crs="EPSG:32633"):
    """The items at (row, col) pixels of one world of half-metre pixels."""
    transforms = [json.dumps([0.5, 0, 500000 + c / 2, 0, -0.5, 5000000 - r / 2]) for r, c in origins]
    return table.assign(crs=crs, transform=transforms)


def link(a, b, kind="near-duplicate"):
    return pd.DataFrame([[*sorted((a, b)), kind, "as the test says"]], columns=NO_LINKS.columns)


def decided(table, split, links=NO_LINKS):
    decision = assignment.decide(table, links, split, {})
    return decision, assign(table, split, decision)


def assigned(table, split, links=NO_LINKS):
    return decided(table, split, links)[1]


def indexed(table, split, decision, label=None, prepare=WINDOWS):
    parts = []
    for row in table.itertuples():
        zeros = np.zeros((row.height, row.width), np.uint8)
        parts.append(index_item(row, zeros if label is None else label, 2, prepare, split, decision))
    return tabulated(list(table["id"]), parts, 2)


def test_train_validation_and_test_are_disjoint_by_id_and_group():
    table = items([f"i{i}" for i in range(60)], [f"g{i % 20}" for i in range(60)])
    regions = assigned(table, WHOLE)
    assert regions.groupby("group")["split"].nunique().max() == 1
    assert regions["id"].is_unique and set(regions["item"]) == set(table["id"])
    leakage.check(regions, regions.iloc[:0], table, WHOLE, NO_LINKS)


def test_a_group_in_two_splits_is_a_leak():
    table = items([f"i{i}" for i in range(60)], [f"g{i % 20}" for i in range(60)])
    regions = assigned(table, WHOLE)
    regions.loc[0, "split"] = "test" if regions.loc[0, "split"] == "train" else "train"
    with pytest.raises(LeakError, match="group 'g0' is in more than one split"):
        leakage.check(regions, regions.iloc[:0], table, WHOLE, NO_LINKS)


def one_of_each(regions, first="train", second="test"):
    return [regions[regions["split"] == name]["item"].iloc[0] for name in (first, second)]


def test_the_same_content_in_two_splits_is_a_leak_that_names_the_pair():
    table = items([f"i{i}" for i in range(60)])
    regions = assigned(table, WHOLE)
    one, two = one_of_each(regions)
    table.loc[table["id"] == two, "sha256"] = table.loc[table["id"] == one, "sha256"].iloc[0]
    with pytest.raises(LeakError, match="are the same picture") as caught:
        leakage.check(regions, regions.iloc[:0], table, WHOLE, NO_LINKS)
    assert one in str(caught.value) and two in str(caught.value)


@pytest.mark.parametrize("kind", ["duplicate", "near-duplicate", "same-place"])
def test_linked_items_in_two_splits_are_a_leak_that_names_the_pair(kind):
    table = items([f"i{i}" for i in range(60)])
    regions = assigned(table, WHOLE)
    one, two = one_of_each(regions, "validation", "test")
    with pytest.raises(LeakError, match=f"linked \\({kind}") as caught:
        leakage.check(regions, regions.iloc[:0], table, WHOLE, link(one, two, kind))
    assert one in str(caught.value) and two in str(caught.value)


def test_training_windows_of_a_test_item_are_a_leak():
    table = items([f"i{i}" for i in range(60)])
    decision, regions = decided(table, WHOLE)
    windows = indexed(table, WHOLE, decision)
    leakage.check(regions, windows, table, WHOLE, NO_LINKS)
    windows.loc[0, "item"] = one_of_each(regions)[1]
    with pytest.raises(LeakError, match=r"training window 0, 0 \(train\) and i\d+ \(test\)"):
        leakage.check(regions, windows, table, WHOLE, NO_LINKS)
    with pytest.raises(LeakError, match="a training window is of nobody, which is no item"):
        leakage.check(regions, windows.assign(item="nobody"), table, WHOLE, NO_LINKS)


def test_planes_of_a_volume_stay_together_and_one_in_another_split_is_a_leak():
    table = items([f"v{i // 5}_z{i % 5:03d}" for i in range(60)], [f"v{i // 5}" for i in range(60)])
    table = table.assign(volume=table["group"], sha256=table["group"])
    catalogue = table.drop_duplicates("volume").assign(id=lambda t: t["volume"])
    decision = assignment.decide(catalogue, NO_LINKS, WHOLE, {})
    regions = assign(table, WHOLE, decision)
    windows = indexed(table, WHOLE, decision)
    assert regions.groupby("group")["split"].nunique().max() == 1
    assert set(regions["id"]) == set(table["id"])
    leakage.check(regions, windows, table, WHOLE, NO_LINKS)
    where = regions["item"].isin(windows["item"])
    regions.loc[regions.index[where][0], "split"] = "test"
    with pytest.raises(LeakError, match=r"v\d+_z000"):
        leakage.check(regions, windows, table, WHOLE, NO_LINKS)


def test_overlapping_items_in_two_splits_are_a_leak_that_names_the_pair():
    table = placed(items([f"i{i}" for i in range(12)]), [(0, 100 * i) for i in range(12)])
    regions = assigned(table, WHOLE)
    none = regions.iloc[:0]
    leakage.check(regions, none, table, WHOLE, NO_LINKS)
    one, two = one_of_each(regions)
    table.loc[table["id"] == two, "transform"] = placed(table[:1], [(20, 100 * int(one[1:]) + 20)])[
        "transform"
    ][0]
    with pytest.raises(LeakError, match="the same place on the map") as caught:
        leakage.check(regions, none, table, WHOLE, NO_LINKS)
    assert one in str(caught.value) and two in str(caught.value)


def test_the_buffer_holds_on_the_map_between_regions_of_different_grids():
    table = placed(items(["a", "b", "c", "d"]), [(0, 0), (0, 40), (500, 0), (900, 0)])
    row = {"item": "a", "group": "a", "id": "a", "split": "train", "cluster": "a", "row": 0, "col": 0}
    regions = pd.DataFrame([{**row, "height": 48, "width": 36}])
    regions.loc[1] = {**row, "item": "b", "id": "b", "group": "b", "split": "test", "height": 48, "width": 48}
    apart = Split(fractions=FRACTIONS, buffer=4)
    leakage.check(regions, regions.iloc[:0], table, apart, NO_LINKS)
    with pytest.raises(LeakError, match="buffer of 5 pixels"):
        leakage.check(regions, regions.iloc[:0], table, Split(fractions=FRACTIONS, buffer=5), NO_LINKS)
    windows = pd.DataFrame({"item": ["a"], "row": 0, "col": 0, "height": 40, "width": 40})
    with pytest.raises(LeakError, match=r"training window 0, 0 \(train\) of a"):
        leakage.check(regions, windows, table, apart, NO_LINKS)


def test_no_window_and_no_region_comes_within_the_buffer_of_another_split():
    label = np.zeros((512, 512), np.uint8)
    table = items(["scene"], size=512)
    decision, regions = decided(table, SPLIT)
    windows = indexed(table, SPLIT, decision, label)
    assert len(windows) > 20
    owner = np.full((512, 512), "", dtype=object)
    for r in regions.itertuples():
        owner[r.row : r.row + r.height, r.col : r.col + r.width] = r.split
    for w in windows.itertuples():  # pixel by pixel, not by the code under test
        around = owner[max(w.row - 8, 0) : w.row + 48, max(w.col - 8, 0) : w.col + 48]
        assert not {"validation", "test"} & set(around.ravel())
    leakage.check(regions, windows, table, SPLIT, NO_LINKS)


def test_a_window_that_reaches_a_test_block_is_a_leak():
    table = items(["scene"], size=512)
    decision, regions = decided(table, SPLIT)
    windows = indexed(table, SPLIT, decision)
    test = regions[regions["split"] == "test"].iloc[0]
    windows.loc[0, ["row", "col"]] = [test["row"], test["col"]]
    with pytest.raises(
        LeakError, match=r"training window .* and scene_r\dc\d \(\w+\) of scene are 0 pixels apart"
    ):
        leakage.check(regions, windows, table, SPLIT, NO_LINKS)


def test_without_a_buffer_regions_may_touch_but_not_overlap():
    regions = assigned(items(["scene"], size=512), SPLIT.model_copy(update={"buffer": 0}))
    split, none = SPLIT.model_copy(update={"buffer": 0}), regions.iloc[:0]
    leakage.check(regions, none, items(["scene"], size=512), split, NO_LINKS)
    row = regions.index[(regions["split"] == "train") & (regions["col"] > 0)][0]
    grown = regions.copy()
    grown.loc[row, ["row", "col", "height", "width"]] = [0, 0, 512, 512]
    with pytest.raises(LeakError, match="0 pixels apart"):
        leakage.check(grown, none, items(["scene"], size=512), split, NO_LINKS)


def test_test_blocks_stay_whole_and_shares_are_exact():
    regions = assigned(items(["scene"], size=640), Split(fractions=FRACTIONS, block=64, buffer=8))
    counts = regions["split"].value_counts()
    assert dict(counts) == {"train": 50, "test": 30, "validation": 20}
    test = regions[regions["split"] == "test"]
    assert (test["height"] == 64).all() and (test["width"] == 64).all()


def painted(regions, windows, table, size=160):
    """(3, 4 * size, 4 * size) bool: which pixels of the world train, select, test; windows train."""
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
    assert {e.reason for e in decision.registry.values()} == {"blocks of day1"}
    assert len(regions) > 60 and regions.groupby("cluster")["item"].nunique().eq(3).all()
    leakage.check(regions, windows, table, SPLIT, links)
    world = painted(regions, windows, table)
    for k in range(3):  # pixel by pixel: nothing of another split within the buffer
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


def test_given_scenes_stay_whole_but_their_blocks_are_cases_of_their_own():
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


def test_an_empty_split_is_an_error_with_a_remedy():
    with pytest.raises(DataError, match=r"split is empty[\s\S]*split.seed"):
        assigned(items(["only"]), WHOLE)


def test_windows_are_cut_after_splitting_and_cover_every_pixel_of_a_training_item():
    table = items(["a", "b", "c"]).assign(height=70, width=53)
    split = Split(fractions=FRACTIONS, given={"train": ["a"], "test": ["b"], "validation": ["c"]})
    windows = indexed(table, split, decided(table, split)[0], prepare=Prepare(window=32, stride=16))
    seen = np.zeros((70, 53), bool)
    for w in windows.itertuples():
        seen[w.row : w.row + w.height, w.col : w.col + w.width] = True
    assert seen.all() and set(windows["item"]) == {"a"}


def test_the_check_stays_fast_for_ten_thousand_items():
    names = [f"i{i:05d}" for i in range(10_000)]
    table = placed(items(names), [(60 * (i // 100), 60 * (i % 100)) for i in range(10_000)])
    regions = assigned(table, WHOLE)
    windows = regions.assign(row=0, col=0)[regions["split"] == "train"]
    leakage.check(regions, windows, table, WHOLE, NO_LINKS)
    shares = regions["split"].value_counts(normalize=True)
    assert all(abs(shares[name] - share) < 0.001 for name, share in FRACTIONS.items())


class LazyLabel:
    """Rows on demand, and a record of the largest piece that was asked for."""

    def __init__(self, array):
        self.array, self.shape, self.largest = array, array.shape, 0

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        self.largest = max(self.largest, self.array[rows].size)
        return self.array[rows]


def test_windows_are_counted_from_rows_read_a_few_megabytes_at_a_time():
    array = np.random.default_rng(1).integers(0, 3, (3000, 3000), dtype=np.uint8)
    label = LazyLabel(array)
    rows, cols = np.arange(0, 3000, 700), np.arange(0, 3000, 900)
    counts = class_counts(label, rows, cols, 1000, 3)
    assert label.largest <= 2**21 < array.size
    assert counts[2, 1].tolist() == [int((array[1400:2400, 900:1900] == k).sum()) for k in range(3)]


def test_class_counts_equal_plain_counting():
    label = np.random.default_rng(0).integers(0, 4, (50, 61)).astype(np.uint8)
    rows, cols = np.arange(0, 50, 9), np.arange(0, 61, 7)
    counts = class_counts(label, rows, cols, 20, 3)
    for i, r in enumerate(rows):
        for j, c in enumerate(cols):
            part = label[r : r + 20, c : c + 20]
            assert list(counts[i, j]) == [int((part == k).sum()) for k in range(3)]
