"""Minimum scores of slices: their keys, what is refused, and what is not met."""

import re

import pandas as pd
import pytest

from segcore.errors import ParamsError
from segcore.gate_rules import Costs, Finding
from segcore.metrics.scores import scores
from segcore.params.operations import Gate
from segcore.promotion.gate import Candidate, Decision, decide
from segcore.promotion.slice_floors import SliceKey, parse, require_known, slice_scores
from segcore.tables.slices import PREFIX
from tests.support.sliced_counts import CLASSES, table

WORDS = {"site": ["bergen", "new york=2", "oslo", "tromsø"], "sensor": ["s1", "s2"]}
SITE = f"{PREFIX}site"
SITES = ["oslo"] * 5 + ["bergen"] * 4 + ["new york=2"] * 3


def frozen(skill: float = 0.9, **sites: float) -> pd.DataFrame:
    return table(SITES, dict.fromkeys(SITES, skill) | sites, 0)


def judge(rows: pd.DataFrame, **floors: float) -> Decision:
    model = Candidate("unet", "U-Net", 0.9, rows, rows.iloc[:0], Costs(10, 800, 20))
    return decide(None, [model], Gate(bootstrap=100, floors=floors), "iou", [1, 2], CLASSES, 0)


def floors_of(decision: Decision) -> dict[str, Finding]:
    return {found.rule: found for found in decision.challengers[0].rules if found.kind == "floor"}


@pytest.mark.parametrize(
    ("key", "slice_"),
    [
        ("site=oslo", SliceKey(None, "site", "oslo")),
        ("road site=new york=2", SliceKey("road", "site", "new york=2")),
        ("bare soil site=oslo", SliceKey("bare soil", "site", "oslo")),
        ("a=b site=oslo", SliceKey("a=b", "site", "oslo")),
        ("site=", SliceKey(None, "site", "")),
        ("site=Troms\u00f8a\u030a", SliceKey(None, "site", "Troms\u00f8\u00e5")),
        # classes, whatever they look like, and what is neither
        ("a=b", None),
        ("soil", None),
        ("roof site=oslo", None),
        ("site", None),
        ("", None),
    ],
)
def test_a_key_has_one_meaning_also_with_blanks_and_signs_in_names(key: str, slice_: SliceKey | None) -> None:
    assert parse(key, ["soil", "bare soil", "a=b", "road"]) == slice_


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("roof", r"'roof' is neither a class nor a slice; classes: background, road"),
        ("roof site=oslo", r"'roof site=oslo' is neither a class nor a slice; classes: background, road"),
        ("year=2020", r"unknown word 'year'; words: site, sensor"),
        ("road sensor=s9", r"'s9', which no image has as sensor; known: s1, s2"),
        ("site=Oslo", r"'Oslo', which no image has as site; known: bergen, new york=2, oslo, tromsø"),
    ],
)
def test_unknown_names_are_refused_and_the_known_ones_listed(key: str, text: str) -> None:
    with pytest.raises(ParamsError, match=re.escape(text)) as caught:
        require_known({"road": 0.5, key: 0.5}, ["background", "road"], WORDS)
    assert "gate.floors" in str(caught.value) and "word=text" in caught.value.remedy


def test_long_lists_are_cut_and_data_without_words_have_none() -> None:
    with pytest.raises(ParamsError, match=r"t19 and 5 more"):
        require_known(["site=x"], CLASSES, {"site": [f"t{i:02d}" for i in range(25)]})
    with pytest.raises(ParamsError, match=r"unknown word 'site'; data.images has no words"):
        require_known(["site=oslo"], CLASSES, {})
    require_known(["road", "site=new york=2", "roof sensor=s1"], CLASSES, WORDS)


def test_a_floor_is_compared_with_the_score_of_the_slice_alone() -> None:
    rows = frozen(bergen=0.6)
    limits = {"road": 0.4, "site=bergen": 0.7, "roof site=bergen": 0.3, "site=new york=2": 0.5}
    found = floors_of(judge(rows, **limits))
    mine = scores(rows[rows[SITE] == "bergen"], [1, 2])
    assert found["site=bergen"].measured == pytest.approx(mine["iou/dataset/foreground_mean"], abs=1e-6)
    assert found["roof site=bergen"].measured == pytest.approx(mine["iou/dataset/roof"], abs=1e-6)
    assert {name: one.passed for name, one in found.items()} == {
        "road": True, "site=bergen": False, "roof site=bergen": True, "site=new york=2": True
    }  # fmt: skip


def test_a_challenger_below_the_floor_of_one_slice_is_not_chosen_and_the_sentence_says_which() -> None:
    rows = frozen(bergen=0.6)
    assert judge(rows, road=0.4).outcome == "first"
    decision = judge(rows, **{"site=bergen": 0.9})
    assert decision.outcome == "refused" and "minimum score of site=bergen" in decision.reason
    assert judge(rows, **{"site=oslo": 0.7}).outcome == "first"


@pytest.mark.parametrize("key", ["site=tromsø", "road site=tromsø", "site=sea", "roof site=sea"])
def test_a_slice_without_a_pixel_in_the_frozen_test_set_does_not_meet_its_minimum(key: str) -> None:
    rows = frozen().replace({SITE: {"new york=2": "sea"}})
    # at sea there is no foreground, and none is predicted, which scores 100 % by the rule for empty classes
    at_sea = (rows[SITE] == "sea") & (rows["class_index"] > 0)
    rows.loc[at_sea, ["tp", "fn", "fp"]] = 0
    decision = judge(rows, **{key: 0.1})
    one = floors_of(decision)[key]
    assert (one.measured, one.passed) == (None, False)
    assert "the frozen test set has no pixel of this slice" in one.note and decision.outcome == "refused"


def test_a_table_of_an_earlier_version_has_no_slice_and_classes_are_judged_as_before() -> None:
    rows = frozen().drop(columns=SITE)
    assert slice_scores(rows, ["road", "site=oslo"], "iou", CLASSES, [1, 2]) == {"site=oslo": None}
    assert judge(rows, road=0.4).outcome == "first"
