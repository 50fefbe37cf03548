"""A class that is declared and in no mask is an error of the settings; keys that do no harm are noted."""

import json

import pandas as pd
import pytest

from segcore.errors import DataError
from segcore.ingest.label_keys import note_unused, require_matched
from tests.support.tiny import params_for


def data_for(label_values, **over):
    values = {
        "classes": ["background", "road", "tree"],
        "colors": [[0, 0, 0]] * 3,
        "label_values": {},
        **over,
    }
    data = params_for(".", data=values).data
    return type(data).model_validate({**data.model_dump(), "label_values": label_values})


def table_of(*counts, label="m.png", quarantined=0):
    rows = [
        {"status": "accepted", "label": label, "label_counts": json.dumps(c), "notes": "[]"} for c in counts
    ]
    rows += [{"status": "quarantined", "label": label, "label_counts": None, "notes": "[]"}] * quarantined
    return pd.DataFrame(rows)


def outcome(table, data):
    """Text of the note; empty where there is none."""
    note_unused(table, data)
    noted = [text for notes in table["notes"] for kind, text in json.loads(notes) if kind == "unused-key"]
    require_matched(table, data)
    return "; ".join(noted)


def error_of(table, data):
    with pytest.raises(DataError) as caught:
        require_matched(table, data)
    assert caught.value.kind == "unmatched-key"
    return f"{caught.value.what}; {caught.value.remedy}"


FOUND = ({"0": 90, "1": 10}, {"0": 95, "2": 5})


@pytest.mark.parametrize(
    "label_values",
    [
        {0: 0, 1: 1, 2: 2},
        {"0": 0, "1": 1, "others": 2},
        {"0": 0, "1-9": 1},
    ],
)
def test_keys_that_some_mask_matches_are_neither_errors_nor_noted(label_values):
    assert outcome(table_of(*FOUND), data_for(label_values)) == ""


@pytest.mark.parametrize("key", [7, "7-9", "#FF0000", "tree"])
def test_a_class_that_no_mask_has_is_an_error_with_what_is_found(key):
    text = error_of(table_of(*FOUND), data_for({"0": 0, "1": 1, "2": 1, str(key): "tree"}))
    assert (
        f"data.label_values: {key} matches no pixel of any mask, so that tree would never be learned" in text
    )
    assert "found are 0 (185), 1 (10), 2 (5) pixels" in text
    assert "remove from it what the data do not have" in text


def test_several_classes_are_named_and_quarantined_items_too():
    text = error_of(table_of({"0": 9}, quarantined=2), data_for({0: 0, 1: 1, 2: 2}))
    assert "1, 2 match no pixel" in text and "road, tree would never" in text
    assert "correct the 2 quarantined items, which may have them, or correct data.label_values" in text


def test_keys_of_ignore_or_of_a_class_with_another_key_are_noted():
    data = data_for({0: 0, 1: 1, 2: 2, 3: 2, 255: "ignore"})
    assert outcome(table_of(*FOUND), data) == "no mask of the data set has 3, 255 of data.label_values"


def test_colours_are_matched_in_either_case_and_by_any_mask():
    data = data_for({"#ff0000": "road", "#00FF00": "background", "0": "background", "1": "road"})
    assert outcome(table_of({"#FF0000": 5, "#00FF00": 9}, {"0": 9, "1": 2}), data) == ""


def test_values_that_were_counted_by_key_match():
    data = data_for({"0": 0, "1-99": 1, "others": 2}, instances=True)
    assert outcome(table_of({"0": 9, "1-99": 3, "other values": 20_000}), data) == ""


def test_polygons_and_older_catalogues_are_not_checked():
    data = data_for({"x": 1, "y": 2})
    assert outcome(table_of({"yes": 1}, label="a.geojson"), data) == ""
    table = table_of({"0": 1})
    table["label_counts"] = None
    assert outcome(table, data) == ""
    assert outcome(table_of({"0": 1}, quarantined=1).iloc[1:], data) == ""


def test_a_class_whose_files_are_missing_or_empty_everywhere_is_an_error():
    data = data_for({}, masks={"road": "a/*", "tree": "b/*", "ignore": "c/*"})
    text = error_of(table_of({"road": 4, "tree": 0}, {"road": 1}), data)
    assert text.startswith("data.masks: tree matches no pixel of any mask") and "ignore" not in text
    assert "unused" not in outcome(table_of({"road": 4, "tree": 1}), data)
