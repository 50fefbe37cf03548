"""Names of classes in any script have keys of their own."""

import re
import unicodedata

import pytest

from segcore.names import key_of, same_key, short_names

WORDS = (
    "水体",
    "林地",
    "建筑",
    "лес",
    "луг",
    "غابة",
    "δάσος",
    "जंगल",
    "पानी",
    "पाना",
    "ป่า",
    "יער",
    "木 🌲",
    "木 🌊",
)


def test_names_of_any_script_have_different_keys_of_letters_and_digits() -> None:
    keys = [key_of(f"test/iou.dataset.{word}") for word in WORDS]
    assert len(set(keys)) == len(WORDS) and same_key(WORDS) is None
    assert all(re.fullmatch(r"[/\w.\- :]+", key) for key in keys)
    assert keys[0] == "test/iou.dataset.水体"


def test_keys_of_ascii_names_are_those_of_earlier_versions() -> None:
    printable = "".join(map(chr, range(32, 127)))
    assert key_of(printable) == re.sub(r"[^0-9A-Za-z_\-. :/]", "_", printable)
    assert key_of("tree (dead)") == "tree _dead_"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("tree (dead)", "tree [dead]"),
        ("caf\u00e9", "cafe\u0301"),
        ("dry  land", "dry land"),
        ("water ", "water"),
        ("a/b", "a.b"),
        ("dry\u00a0land", "dry land"),
        ("thing", "thing"),
    ],
)
def test_names_that_would_share_a_key_are_found(first: str, second: str) -> None:
    assert same_key(["x", first, "y", second]) == (first, second)


def test_names_that_differ_in_case_or_accent_are_different() -> None:
    assert same_key(["Tree", "tree", "e", unicodedata.normalize("NFD", "é"), "ё", "е"]) is None


def test_short_names_are_of_ascii_and_differ() -> None:
    titles = ["水体", "林地", "field & meadow", "field, meadow", "wald ä", "wald", "wald_5"]
    names = short_names(titles)
    assert names[:4] == ["class_0", "class_1", "field_meadow", "field_meadow_3"] and names[4] == "wald"
    assert len(set(names)) == len(names) and all(re.fullmatch(r"[0-9A-Za-z_-]+", name) for name in names)
