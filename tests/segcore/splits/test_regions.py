"""Every item is in one split with its group, and no split is empty."""

import pytest

from segcore.errors import DataError
from segcore.splits import leakage
from tests.support.items import NO_LINKS, WHOLE, assigned, items


def test_train_validation_and_test_are_disjoint_by_id_and_group():
    table = items([f"i{i}" for i in range(60)], [f"g{i % 20}" for i in range(60)])
    regions = assigned(table, WHOLE)
    assert regions.groupby("group")["split"].nunique().max() == 1
    assert regions["id"].is_unique and set(regions["item"]) == set(table["id"])
    leakage.check(regions, regions.iloc[:0], table, WHOLE, NO_LINKS)


def test_an_empty_split_is_an_error_with_a_remedy():
    with pytest.raises(DataError, match=r"split is empty[\s\S]*split.seed"):
        assigned(items(["only"]), WHOLE)
