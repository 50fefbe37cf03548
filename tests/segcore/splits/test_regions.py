"""Every item is in one split with its group, and no split is empty."""

import pandas as pd
import pytest

from segcore.errors import DataError
from segcore.splits import leakage
from tests.support.items import NO_LINKS, SPLIT, WHOLE, assigned, decided, items


def test_train_validation_and_test_are_disjoint_by_id_and_group():
    table = items([f"i{i}" for i in range(60)], [f"g{i % 20}" for i in range(60)])
    regions = assigned(table, WHOLE)
    assert regions.groupby("group")["split"].nunique().max() == 1
    assert regions["id"].is_unique and set(regions["item"]) == set(table["id"])
    leakage.check(regions, regions.iloc[:0], table, WHOLE, NO_LINKS)


def test_an_empty_split_is_an_error_with_a_remedy():
    with pytest.raises(DataError, match="split is empty") as caught:
        assigned(items(["only"]), WHOLE)
    # no seed divides one group
    assert "split.block" in caught.value.remedy and "split.seed" not in caught.value.remedy


def test_links_that_leave_a_split_empty_are_named_with_the_setting_that_leaves_them_out():
    names = [f"p{i:02d}" for i in range(8)]
    text = "perceptual hashes differ in 4 of 64 bits, detail correlates by 0.93"
    pairs = [("p00", name, "near-duplicate", text) for name in names[1:]]
    links = pd.DataFrame(pairs, columns=["a", "b", "kind", "detail"])
    with pytest.raises(DataError) as caught:
        decided(items(names), SPLIT, links)
    assert "8 groups, 1 after linked ones are joined" in caught.value.what
    assert "7 near-duplicate pairs such as p00 and p01 (perceptual hashes differ in 4" in caught.value.what
    assert "at most 10 of 64 bits differ, and detail correlates by 0.75" in caught.value.what
    assert "leave near-duplicate out of split.links" in caught.value.remedy
