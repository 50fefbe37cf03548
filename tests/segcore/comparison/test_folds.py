"""Rounds of folds, pooled tables, and what is said of them."""

import pandas as pd
import pytest

from segcore.comparison.folds import note, pooled, rounds, words


def test_a_round_has_one_seed_of_each_fold() -> None:
    assert rounds([3, 1, 5, 2, 0, 4], 3) == [[3, 1, 5], [0, 4, 2]]
    assert rounds([7, 2], None) == [[7], [2]]


def test_tables_of_a_round_are_pooled_in_the_order_of_images() -> None:
    one, two = (pd.DataFrame({"item": names, "tp": range(2)}) for names in (["c", "a"], ["d", "b"]))
    assert pooled([one]) is one
    assert pooled([one, two])["item"].tolist() == ["a", "b", "c", "d"]
    assert pooled([one, two])["tp"].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(("number", "text"), [(1, "5 folds"), (2, "5 folds, 2 rounds")])
def test_what_folds_cover_is_said(number: int, text: str) -> None:
    assert words(5, number) == text
    said = note(5, number, "group", is_compared=True)
    assert "without its group" in said and "Bengio and Grandvalet 2004" in said
    assert ("once per round" in said) == (number > 1) == ("of seeds" in said)
