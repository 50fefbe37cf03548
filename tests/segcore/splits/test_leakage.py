"""The leakage check finds each kind of leak, and names the pair."""

import numpy as np
import pandas as pd
import pytest

from segcore.errors import LeakError
from segcore.params import Split
from segcore.splits import assignment, leakage
from segcore.splits.regions import assign
from tests.support.items import (
    FRACTIONS,
    NO_LINKS,
    SPLIT,
    WHOLE,
    assigned,
    decided,
    indexed,
    items,
    link,
    placed,
)


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
    with pytest.raises(LeakError, match="a training window is of nobody, which is not an item"):
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
    # pixel by pixel, without the code under test
    for w in windows.itertuples():
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


def test_the_check_stays_fast_for_ten_thousand_items():
    names = [f"i{i:05d}" for i in range(10_000)]
    table = placed(items(names), [(60 * (i // 100), 60 * (i % 100)) for i in range(10_000)])
    regions = assigned(table, WHOLE)
    windows = regions.assign(row=0, col=0)[regions["split"] == "train"]
    leakage.check(regions, windows, table, WHOLE, NO_LINKS)
    shares = regions["split"].value_counts(normalize=True)
    assert all(abs(shares[name] - share) < 0.001 for name, share in FRACTIONS.items())
