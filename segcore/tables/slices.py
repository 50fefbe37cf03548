"""Slices of an evaluation table: the images with one text for a word of the data patterns, such as `site=oslo`.

Each word is one column of the table. Its name has a prefix, so that no word can have the name of another column.
"""

import json

import pandas as pd

PREFIX = "slice."


def words_of(items: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Words of each prepared item by its name: word -> text; empty where the data have no words."""
    if "words" not in items:
        return {}
    return {str(item): json.loads(text) for item, text in zip(items["item"], items["words"], strict=True)}


def known_texts(items: pd.DataFrame) -> dict[str, list[str]]:
    """Word -> its texts in all prepared items, sorted; words in the order of the pattern."""
    texts: dict[str, set[str]] = {}
    for words in words_of(items).values():
        for word, text in words.items():
            texts.setdefault(word, set()).add(text)
    return {word: sorted(found) for word, found in texts.items()}


def add_words(table: pd.DataFrame, regions: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """The evaluation table with one column per word; None where an image has no text for a word.

    Args:
        table: evaluation table, whose column `item` contains ids of regions.
        regions: id and item of the scored regions.
        items: prepared items.
    """
    words = words_of(items)
    names = dict.fromkeys(word for found in words.values() for word in found)
    if not names:
        return table
    item_of = dict(zip(regions["id"].astype(str), regions["item"].astype(str), strict=True))
    found = [words[item_of[region]] for region in table["item"]]
    columns = {PREFIX + word: [texts.get(word) for texts in found] for word in names}
    return table.assign(**{name: pd.Series(values, table.index, object) for name, values in columns.items()})


def slices_of(table: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Word -> image -> text, from the word columns of an evaluation table; empty without such columns."""
    images = table.drop_duplicates("item")
    return {
        column.removeprefix(PREFIX): {
            str(item): str(text)
            for item, text in zip(images["item"], images[column], strict=True)
            if not pd.isna(text)
        }
        for column in table.columns
        if column.startswith(PREFIX)
    }


def of_images(table: pd.DataFrame, word: str, text: str) -> pd.DataFrame:
    """Rows of one slice; empty if the table has no column of this word."""
    if PREFIX + word not in table:
        return table.iloc[:0]
    return table[table[PREFIX + word] == text]
