"""Parts of the test set that are in another split later are found, whether groups or blocks."""

from types import SimpleNamespace

import pandas as pd
import pytest

from segcore.promotion.frozen import frozen_groups, moved_groups

ROWS = [
    ("p1", "p1-a", "test"),
    ("p1", "p1-b", "test"),
    ("p2", "p2-a", "train"),
    ("p3", "p3-a", "validation"),
    ("scene", "scene_r0c0", "test"),
    ("scene", "scene_r0c1", "train"),
]


def prepared(*changed: tuple[str, str, str], without: str = "") -> SimpleNamespace:
    rows = {name: (group, name, split) for group, name, split in (*ROWS, *changed) if group != without}
    return SimpleNamespace(regions=pd.DataFrame(rows.values(), columns=["group", "id", "split"]))


def test_an_unchanged_test_set_and_new_data_move_nothing() -> None:
    names = frozen_groups(prepared())
    assert names == ["p1", "p1-a", "p1-b", "scene_r0c0"]
    assert moved_groups(prepared(), names) == {}
    grown = prepared(("p1", "p1-c", "test"), ("p4", "p4-a", "train"), ("scene", "later_r0c1", "train"))
    assert moved_groups(grown, names) == {}
    assert moved_groups(prepared(without="p1"), names) == {}, "removed data are in no split"


@pytest.mark.parametrize("split", ["train", "validation"])
def test_groups_and_blocks_in_another_split_are_found(split: str) -> None:
    names = frozen_groups(prepared())
    assert moved_groups(prepared(("p1", "p1-a", split), ("p1", "p1-b", split)), names) == {"p1": split}
    assert moved_groups(prepared(("scene", "scene_r0c0", split)), names) == {"scene_r0c0": split}


def test_a_test_group_that_is_only_partly_in_training_is_found() -> None:
    names = frozen_groups(prepared())
    divided = prepared(("p1", "p1-a_r0c0", "train"), ("p1", "p1-a_r0c1", "validation"))
    assert moved_groups(divided, names) == {"p1": "train and validation"}


def test_images_of_the_test_set_are_found_though_their_groups_have_other_names() -> None:
    names = frozen_groups(prepared())
    renamed = prepared(("site", "p1-a", "train"), ("site", "p1-b", "test"))
    assert moved_groups(renamed, names) == {"p1-a": "train"}


def test_a_region_with_the_name_of_another_group_is_not_taken_for_it() -> None:
    same = prepared(("p9", "p1", "train"), ("p1-a", "p9-z", "train"))
    names = frozen_groups(same)
    assert {"p1", "p1-a"} <= set(names) and moved_groups(same, names) == {}
