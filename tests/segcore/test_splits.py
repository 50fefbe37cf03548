"""Splits: stable, grouped, spatially apart, and checked on what was prepared."""

import numpy as np
import pandas as pd
import pytest

from segcore import splits
from segcore.errors import DataError, LeakError
from segcore.params import Prepare, Split
from segcore.windows import class_counts, index_item

FRACTIONS = {"train": 0.5, "validation": 0.2, "test": 0.3}
SPLIT = Split(fractions=FRACTIONS, block=64, buffer=8)
WHOLE = Split(fractions=FRACTIONS)


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


def test_21_train_validation_and_test_are_disjoint_by_id_and_group():
    table = items([f"i{i}" for i in range(60)], [f"g{i % 20}" for i in range(60)])
    regions = splits.assign(table, WHOLE)
    assert regions.groupby("group")["split"].nunique().max() == 1
    splits.check(regions, regions.iloc[:0], table, WHOLE)


def test_21_a_group_in_two_splits_is_a_leak():
    table = items([f"i{i}" for i in range(60)], [f"g{i % 20}" for i in range(60)])
    regions = splits.assign(table, WHOLE)
    regions.loc[0, "split"] = "test" if regions.loc[0, "split"] == "train" else "train"
    with pytest.raises(LeakError, match="group 'g0' is in more than one split"):
        splits.check(regions, regions.iloc[:0], table, WHOLE)


def test_21_the_same_content_in_two_splits_is_a_leak_that_names_the_pair():
    table = items([f"i{i}" for i in range(60)])
    regions = splits.assign(table, WHOLE)
    one = regions[regions["split"] == "train"]["item"].iloc[0]
    two = regions[regions["split"] == "test"]["item"].iloc[0]
    table.loc[table["id"] == two, "sha256"] = table.loc[table["id"] == one, "sha256"].iloc[0]
    with pytest.raises(LeakError, match="are the same picture") as caught:
        splits.check(regions, regions.iloc[:0], table, WHOLE)
    assert one in str(caught.value) and two in str(caught.value)


def test_growth_never_moves_an_item():
    before = splits.assign(items([f"i{i}" for i in range(40)]), WHOLE).set_index("id")["split"]
    after = splits.assign(items([f"i{i}" for i in range(400)]), WHOLE).set_index("id")["split"]
    assert before.equals(after[before.index])
    shares = after.value_counts(normalize=True)
    assert all(abs(shares[name] - share) < 0.08 for name, share in FRACTIONS.items())


def test_22_no_window_and_no_region_comes_within_the_buffer_of_another_split():
    label = np.zeros((512, 512), np.uint8)
    table = items(["scene"], size=512)
    regions = splits.assign(table, SPLIT)
    windows = index_item("scene", "scene", label, 2, Prepare(window=40, stride=8), SPLIT)
    assert len(windows) > 20
    owner = np.full((512, 512), "", dtype=object)
    for r in regions.itertuples():
        owner[r.row : r.row + r.height, r.col : r.col + r.width] = r.split
    for w in windows.itertuples():  # pixel by pixel, not by the code under test
        around = owner[max(w.row - 8, 0) : w.row + 48, max(w.col - 8, 0) : w.col + 48]
        assert not {"validation", "test"} & set(around.ravel())
    splits.check(regions, windows, table, SPLIT)


def test_22_a_window_that_reaches_a_test_block_is_a_leak():
    table = items(["scene"], size=512)
    regions = splits.assign(table, SPLIT)
    windows = index_item(
        "scene", "scene", np.zeros((512, 512), np.uint8), 2, Prepare(window=40, stride=8), SPLIT
    )
    test = regions[regions["split"] == "test"].iloc[0]
    windows.loc[0, ["row", "col"]] = [test["row"], test["col"]]
    with pytest.raises(
        LeakError, match=r"training window .* and scene_r\dc\d \(\w+\) of scene are 0 pixels apart"
    ):
        splits.check(regions, windows, table, SPLIT)


def test_22_without_a_buffer_regions_may_touch_but_not_overlap():
    regions = splits.assign(items(["scene"], size=512), SPLIT.model_copy(update={"buffer": 0}))
    split, none = SPLIT.model_copy(update={"buffer": 0}), regions.iloc[:0]
    splits.check(regions, none, items(["scene"], size=512), split)
    row = regions.index[(regions["split"] == "train") & (regions["col"] > 0)][0]
    grown = regions.copy()
    grown.loc[row, ["row", "col", "height", "width"]] = [0, 0, 512, 512]
    with pytest.raises(LeakError, match="0 pixels apart"):
        splits.check(grown, none, items(["scene"], size=512), split)


def test_test_blocks_stay_whole_and_shares_are_exact():
    regions = splits.assign(items(["scene"], size=640), Split(fractions=FRACTIONS, block=64, buffer=8))
    counts = regions["split"].value_counts()
    assert dict(counts) == {"train": 50, "test": 30, "validation": 20}
    test = regions[regions["split"] == "test"]
    assert (test["height"] == 64).all() and (test["width"] == 64).all()


def test_given_splits_are_honoured_and_checked():
    given = {"test": ["i3"], "validation": ["i1"], "train": ["i0", "i2"]}
    regions = splits.assign(items(["i0", "i1", "i2", "i3"]), Split(fractions=FRACTIONS, given=given))
    assert dict(zip(regions["id"], regions["split"], strict=True))["i3"] == "test"
    with pytest.raises(DataError, match="unknown groups \\['i9'\\]"):
        splits.assign(items(["i0"]), Split(fractions=FRACTIONS, given={"test": ["i9"]}))
    with pytest.raises(DataError, match="twice"):
        splits.assign(items(["i0"]), Split(fractions=FRACTIONS, given={"test": ["i0"], "train": ["i0"]}))


def test_an_empty_split_is_an_error_with_a_remedy():
    with pytest.raises(DataError, match=r"split is empty[\s\S]*split.seed"):
        splits.assign(items(["only"]), WHOLE)


def test_23_windows_are_cut_after_splitting_and_cover_every_pixel_of_a_training_item():
    split = Split(fractions=FRACTIONS, given={"train": ["a"]})
    windows = index_item("a", "a", np.zeros((70, 53), np.uint8), 2, Prepare(window=32, stride=16), split)
    seen = np.zeros((70, 53), bool)
    for w in windows.itertuples():
        seen[w.row : w.row + w.height, w.col : w.col + w.width] = True
    assert seen.all()
    held = Split(fractions=FRACTIONS, given={"test": ["a"]})
    assert index_item("a", "a", np.zeros((70, 53), np.uint8), 2, Prepare(window=32, stride=16), held).empty


def test_class_counts_equal_plain_counting():
    label = np.random.default_rng(0).integers(0, 4, (50, 61)).astype(np.uint8)
    rows, cols = np.arange(0, 50, 9), np.arange(0, 61, 7)
    counts = class_counts(label, rows, cols, 20, 3)
    for i, r in enumerate(rows):
        for j, c in enumerate(cols):
            part = label[r : r + 20, c : c + 20]
            assert list(counts[i, j]) == [int((part == k).sum()) for k in range(3)]
