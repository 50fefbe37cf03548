"""Folds of a cross-validation: each group is tested once, and no fold trains on what it tests."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segcore.errors import DataError
from segcore.params import Split
from segcore.splits.folds import decide_folds
from segcore.splits.leakage import check
from segcore.splits.regions import assign
from segcore.splits.split_file import read_split_file, write_split_file
from tests.support.items import FRACTIONS, NO_LINKS, indexed, items, link


def split_of(folds: int, **over: object) -> Split:
    return Split.model_validate({"fractions": FRACTIONS, "folds": folds, **over})


def regions_of(table: pd.DataFrame, split: Split, links: pd.DataFrame = NO_LINKS) -> list[pd.DataFrame]:
    """Region table of each fold, checked for leaks."""
    found = []
    for decision in decide_folds(table, links, split):
        regions = assign(table, split, decision)
        check(regions, indexed(table, split, decision), table, split, links)
        found.append(regions)
    return found


def ids_in_test(regions: list[pd.DataFrame]) -> list[str]:
    return sorted(name for one in regions for name in one.loc[one["split"] == "test", "id"])


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=12, max_size=24),
    st.integers(3, 5),
    st.booleans(),
    st.permutations(range(10)),
)
def test_every_group_is_tested_once_and_never_trained_in_that_fold(
    groups: list[int], folds: int, stratify: bool, order: list[int]
) -> None:
    names = [f"i{index:02d}" for index in range(len(groups))]
    table = items(names, [f"g{group}" for group in groups])
    if len(set(groups)) < max(folds, 3):
        with pytest.raises(DataError, match="but there are only"):
            decide_folds(table, NO_LINKS, split_of(folds))
        return
    decisions = decide_folds(table, NO_LINKS, split_of(folds, stratify=stratify))
    in_test = [name for one in decisions for name, value in one.groups.items() if value == "test"]
    assert sorted(in_test) == sorted(set(table["group"]))
    for one in decisions:
        assert set(one.groups.values()) <= {"train", "validation", "test"} and not one.aside
        assert "test" in one.groups.values()
    again = decide_folds(
        table.sample(frac=1, random_state=order[0]), NO_LINKS, split_of(folds, stratify=stratify)
    )
    assert [one.groups for one in again] == [one.groups for one in decisions]


def test_linked_groups_are_tested_in_one_fold_and_count_as_one_cluster() -> None:
    table = items([f"i{n}" for n in range(8)])
    links = pd.concat([link("i0", "i5"), link("i5", "i7")])
    regions = regions_of(table, split_of(3), links)
    assert ids_in_test(regions) == sorted(table["id"])
    for one in regions:
        held = one.set_index("id")["split"]
        assert held["i0"] == held["i5"] == held["i7"]
    assert {one.set_index("id")["cluster"]["i7"] for one in regions} == {"i0"}


def test_parts_are_alike_in_classes_and_validation_comes_from_the_other_groups() -> None:
    table = items([f"i{n}" for n in range(12)])
    table["pixels_per_class"] = ['{"a": 900, "b": 100}', '{"a": 100, "b": 900}'] * 6
    regions = regions_of(table, split_of(3))
    for one in regions:
        test = one[one["split"] == "test"]["id"]
        assert len(test) == 4 and sum(int(name[1:]) % 2 for name in test) == 2
        assert (one["split"] == "validation").sum() == 2
    assert len({tuple(one["split"]) for one in regions}) == 3


def test_blocks_of_a_scene_are_each_tested_once() -> None:
    table = items(["scene"], size=256)
    split = split_of(3, block=64, buffer=8)
    regions = regions_of(table, split)
    assert len(ids_in_test(regions)) == len(set(ids_in_test(regions))) == 16
    for one in regions:
        counts = one["split"].value_counts()
        assert counts["test"] in (5, 6) and counts["validation"] >= 2 and counts["train"] >= 6
    # test blocks are whole, so that those of all folds make up the scene
    area = sum((one["height"] * one["width"])[one["split"] == "test"].sum() for one in regions)
    assert area == 256 * 256


def test_splits_of_the_data_set_are_refused() -> None:
    table = items([f"i{n}" for n in range(6)]).assign(split=["test", *[None] * 5])
    with pytest.raises(DataError, match="i0 is given as test"):
        decide_folds(table, NO_LINKS, split_of(3))


def test_groups_that_are_linked_may_be_too_few() -> None:
    table = items(["a", "b", "c"])
    with pytest.raises(DataError, match="only 2 groups after linked ones are joined"):
        decide_folds(table, link("a", "b"), split_of(3))


def test_the_split_file_names_the_fold_and_refuses_another_number(tmp_path) -> None:
    path, split = tmp_path / "x.csv", split_of(3)
    entries = decide_folds(items([f"i{n}" for n in range(6)]), NO_LINKS, split)[0].entries
    write_split_file(path, split, entries)
    assert read_split_file(path, split) == entries
    assert {entry.split for entry in entries.values()} == {"fold-0", "fold-1", "fold-2"}
    for other, text in ((split_of(4), "folds 3 -> 4"), (Split(fractions=FRACTIONS), "folds 3 -> None")):
        with pytest.raises(DataError, match=text):
            read_split_file(path, other)


def test_one_split_and_folds_do_not_share_a_file(tmp_path) -> None:
    write_split_file(tmp_path / "x.csv", Split(fractions=FRACTIONS), {})
    assert "folds" not in (tmp_path / "x.csv").read_text()
    with pytest.raises(DataError, match="folds None -> 3"):
        read_split_file(tmp_path / "x.csv", split_of(3))


@pytest.mark.parametrize("count", [7, 16, 23])
def test_test_parts_of_blocks_are_of_about_equal_size(count: int) -> None:
    from segcore.splits.blocks import block_splits

    grids = [block_splits("scene", 1, count, split_of(5, block=64), fold) for fold in range(5)]
    sizes = [(grid == "test").sum() for grid in grids]
    assert max(sizes) - min(sizes) <= 1 and sum(sizes) == count
    assert (np.sum([grid == "test" for grid in grids], axis=0) == 1).all()
