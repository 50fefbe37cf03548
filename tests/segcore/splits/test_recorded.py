"""No group leaves the split that the split file records: by hand, by the data set, or by another size of its scene."""

import pandas as pd
import pytest

from segcore.errors import DataError, LeakError
from segcore.splits.assignment import decide
from segcore.splits.blocks import BLOCKS
from segcore.splits.split_file import GroupSplit
from tests.segcore.splits.test_assignment import FRACTIONS, SCENES, SPLIT, catalogue, linked, names

FILE = "splits/mine.csv"


def one_of(decision, split):
    return min(name for name, value in decision.groups.items() if value == split)


def given(**groups):
    return SPLIT.model_copy(update={"given": groups})


@pytest.mark.parametrize("here", list(FRACTIONS))
@pytest.mark.parametrize("there", list(FRACTIONS))
def test_split_given_moves_no_recorded_group(here, there):
    table = catalogue(names(20))
    before = decide(table, linked(), SPLIT, {})
    group = one_of(before, here)
    if here == there:
        after = decide(table, linked(), given(**{there: [group]}), before.entries, FILE)
        assert after.groups == before.groups
        return
    for rows in (table, table[table["id"] != group]):
        with pytest.raises(DataError) as caught:
            decide(rows, linked(), given(**{there: [group]}), before.entries, FILE)
        assert caught.value.what == (
            f"{FILE}: split.given moves 1 group out of the recorded split: {group} ({here} -> {there})"
        )
        assert f"remove {FILE}" in caught.value.remedy and "data.name" in caught.value.remedy


def test_many_moved_groups_are_counted_and_the_first_are_named():
    table = catalogue(names(40))
    before = decide(table, linked(), SPLIT, {})
    train = [name for name, value in before.groups.items() if value == "train"]
    with pytest.raises(DataError, match=rf"moves {len(train)} groups .*i\d+ \(train -> test\) and \d+ more"):
        decide(table, linked(), given(test=train), before.entries, FILE)
    # as the remedy says: without the split file
    assert {decide(table, linked(), given(test=train[:5]), {}).groups[g] for g in train[:5]} == {"test"}


def test_new_groups_and_those_without_a_split_follow_split_given():
    before = decide(catalogue(names(20)), linked(), SPLIT, {})
    test, train = one_of(before, "test"), one_of(before, "train")
    grown = catalogue([*names(20), "aside", "new"])
    bridged = decide(grown, linked(("aside", test), ("aside", train)), SPLIT, before.entries)
    assert bridged.groups["aside"] is None
    after = decide(grown, linked(), given(train=["aside"]), bridged.entries, FILE)
    assert after.groups["aside"] == "train"
    assert {g: after.groups[g] for g in before.groups} == before.groups
    assert decide(grown, linked(), given(test=["new"]), before.entries).groups["new"] == "test"


def test_a_scene_in_blocks_is_given_to_no_single_split():
    table = catalogue(["s1", "s2"], height=256, width=256)
    before = decide(table, linked(), SCENES, {})
    assert before.groups == {"s1": BLOCKS, "s2": BLOCKS}
    for split in FRACTIONS:
        with pytest.raises(DataError, match=rf"s1 \(blocks -> {split}\)"):
            decide(
                table, linked(), SCENES.model_copy(update={"given": {split: ["s1"]}}), before.entries, FILE
            )
    smaller = table.assign(height=[48, 256], width=[48, 256])
    with pytest.raises(DataError, match="scenes of another size move 1 group out of the recorded split: s1"):
        decide(smaller, linked(), SCENES, before.entries, FILE)


@pytest.mark.parametrize("value", ["train", "validation"])
def test_a_file_moved_to_the_folder_of_another_split_moves_no_group(value):
    own = ["train"] * 6 + ["validation"] * 3 + ["test"] * 3
    table = catalogue(names(12), split=own)
    before = decide(table, linked(), SPLIT, {})
    moved = table.assign(split=[*own[:-1], value])
    with pytest.raises(DataError) as caught:
        decide(moved, linked(), SPLIT, before.entries, FILE)
    assert f"{FILE}: the splits of the data set move 1 group" in str(caught.value)
    assert f"i0011 (test -> {value})" in str(caught.value)
    # as the remedy says
    kept = decide(moved, linked(), given(test=["i0011"]), before.entries, FILE)
    assert kept.groups == before.groups
    assert decide(table, linked(), SPLIT, before.entries, FILE).groups == before.groups


def test_folders_that_appear_after_the_splits_were_recorded_move_no_group():
    table = catalogue(names(12))
    before = decide(table, linked(), SPLIT, {})
    with pytest.raises(DataError, match=r"the splits of the data set move \d+ groups"):
        decide(
            table.assign(split=["train"] * 8 + ["validation"] * 2 + ["test"] * 2),
            linked(),
            SPLIT,
            before.entries,
        )


def test_an_item_of_a_later_batch_in_the_folder_of_another_split_is_set_aside():
    own = ["train"] * 6 + ["validation"] * 3 + ["test"] * 3
    table = catalogue(names(12), split=own, batch="0")
    before = decide(table, linked(), SPLIT, {})
    new = catalogue(
        ["b-late", "b-sound"], ["i0011", "i0011"], seed=1, split=["train", "test"], batch="20300101-b"
    )
    after = decide(pd.concat([table, new], ignore_index=True), linked(), SPLIT, before.entries, FILE)
    assert after.aside == {"b-late": "the data set gives it to train, but its group i0011 is in test"}
    assert after.groups == before.groups


def test_the_later_of_two_batches_is_the_one_received_later_whatever_its_name():
    table = catalogue(names(30), batch="0")
    before = decide(table, linked(), SPLIT, {})
    train, test = one_of(before, "train"), one_of(before, "test")
    first = catalogue(["f-item"], [test], seed=1, batch="20300101-f")
    second = catalogue(["a-item"], [train], seed=2, batch="20300101-a")
    rows = pd.concat([table, first, second], ignore_index=True)
    after = decide(rows, linked(("f-item", "a-item")), SPLIT, before.entries)
    assert set(after.aside) == {"a-item"}, "the item of the frozen test set stays"


def test_a_new_link_between_recorded_groups_of_two_splits_is_an_error():
    table = catalogue(names(20))
    before = decide(table, linked(), SPLIT, {})
    with pytest.raises(LeakError, match="are linked, but in different splits"):
        decide(table, linked((one_of(before, "test"), one_of(before, "train"))), SPLIT, before.entries)


def test_an_edited_record_of_blocks_without_their_scene_is_not_taken_for_a_free_choice():
    table = catalogue(["s1", "s2", "s3"], height=[256, 48, 48], width=[256, 48, 48])
    entries = {"s2": GroupSplit(BLOCKS, "blocks of s2")}
    with pytest.raises(DataError, match="out of the recorded split: s2"):
        decide(table, linked(), SCENES, entries, FILE)
