"""Words of the data patterns are columns of the evaluation table, whatever they are called."""

import json

import numpy as np
import pandas as pd

from segcore.tables.counts import COUNTS, as_arrays, count, counts_table
from segcore.tables.slices import PREFIX, add_words, known_texts, of_images, slices_of

REGIONS = pd.DataFrame({"id": ["a_r0c0", "a_r0c1", "b"], "item": ["a", "a", "b"]})
# items that are not in the test split have words too
WORDS = {
    "b": {"site": "oslo"},
    "a": {"site": "bergen", "sensor": "s2"},
    "c": {"site": "tromsø", "sensor": "s1"},
}


def prepared(words: dict[str, dict[str, str]]) -> pd.DataFrame:
    return pd.DataFrame({"item": list(words), "words": [json.dumps(found) for found in words.values()]})


def table() -> pd.DataFrame:
    label = np.eye(4, dtype=np.uint8)
    images = [(name, f"c-{name}", count(label, label, 2)) for name in REGIONS["id"]]
    return counts_table(images, ["background", "thing"])


def test_all_blocks_of_a_scene_have_its_words_and_a_missing_one_is_no_text(tmp_path) -> None:
    found = add_words(table(), REGIONS, prepared(WORDS))
    found.to_parquet(tmp_path / "counts.parquet", index=False)
    for one in (found, pd.read_parquet(tmp_path / "counts.parquet")):
        assert slices_of(one) == {
            "site": {"a_r0c0": "bergen", "a_r0c1": "bergen", "b": "oslo"},
            "sensor": {"a_r0c0": "s2", "a_r0c1": "s2"},
        }
        assert list(of_images(one, "sensor", "s2")["item"].unique()) == ["a_r0c0", "a_r0c1"]
        assert of_images(one, "sensor", "s9").empty and of_images(one, "year", "s2").empty


def test_words_with_the_names_of_other_columns_change_none_of_them() -> None:
    names = [*table().columns, *COUNTS, "slice", PREFIX]
    words = {item: {name: f"{item} {name}" for name in names} for item in "ab"}
    plain, found = table(), add_words(table(), REGIONS, prepared(words))
    pd.testing.assert_frame_equal(found[plain.columns], plain)
    assert set(slices_of(found)) == set(names)
    for name, counts in as_arrays(found).counts.items():
        np.testing.assert_array_equal(counts, as_arrays(plain).counts[name])


def test_data_without_words_and_tables_of_earlier_versions_have_no_slices() -> None:
    earlier = pd.DataFrame({"item": ["a", "b"]})
    for items in (earlier, prepared({"a": {}, "b": {}})):
        pd.testing.assert_frame_equal(add_words(table(), REGIONS, items), table())
        assert known_texts(items) == {}
    assert slices_of(table()) == {}


def test_known_texts_are_those_of_all_items_in_every_split() -> None:
    assert known_texts(prepared(WORDS)) == {"site": ["bergen", "oslo", "tromsø"], "sensor": ["s1", "s2"]}
