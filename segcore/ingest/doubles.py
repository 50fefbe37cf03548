"""Recognises an image by its pixels: the same in another file format, compression, name or folder is the same image."""

import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segcore.data.packed import Packed

# tensors of packed items, as named in messages
_TRUTH = {"labels": "mask", "instances": "objects in its mask", "baselines": "baseline masks"}
_PLACE = ("crs", "transform", "affine", "spacing")


class Content(NamedTuple):
    """An accepted item.

    Attributes:
        row: of the catalogue.
        store: folder of its packed file.
    """

    row: Mapping[str, Any]
    store: Path

    @property
    def packed(self) -> Packed:
        """Its pixels and labels."""
        return Packed(self.store / self.row["packed"])

    @property
    def key(self) -> str:
        """Hash of all its files and of the settings that they are read with."""
        return str(self.row["packed"]).removesuffix(".safetensors").rpartition("-")[2]


class Images:
    """Accepted items, by the pixels of their images."""

    def __init__(self) -> None:
        self._by_key: dict[Hashable, list[Content]] = {}

    def add(self, content: Content) -> None:
        """Add an item."""
        for key in _keys(content.row):
            self._by_key.setdefault(key, []).append(content)

    def same_image(self, content: Content) -> list[Content]:
        """Items with the same image, in the order in which they were added."""
        candidates = [other for key in _keys(content.row) for other in self._by_key.get(key, ())]
        unique = {other.row["id"]: other for other in candidates}
        return [other for other in unique.values() if _is_same_image(content, other)]


def _keys(row: Mapping[str, Any]) -> tuple[Hashable, Hashable]:
    """The file's hash, and what equal pixels have in common: shape, type, range and thumbnail."""
    shape = tuple(int(row[name]) for name in ("depth", "height", "width", "bands"))
    return row["sha256"], (*shape, row["dtype"], row["band_min"], row["band_max"], row["thumb"])


def _is_same_image(one: Content, other: Content) -> bool:
    if one.row["sha256"] == other.row["sha256"]:
        return True
    return _keys(one.row)[1] == _keys(other.row)[1] and _is_equal(one.packed, other.packed, "pixels")


def differences(one: Content, other: Content) -> list[str]:
    """What differs between two items of the same image, in words; empty if they are the same item."""
    if one.key == other.key:
        return []
    found = []
    first, second = one.packed, other.packed
    for name, words in _TRUTH.items():
        if (name in first.shapes or name in second.shapes) and not _is_equal(first, second, name):
            found.append(words)
    return found or (["georeference"] if _is_moved(one.row, other.row) else [])


def _is_equal(first: Packed, second: Packed, name: str) -> bool:
    """Whether a tensor has the same values in both; plane by plane, to limit memory use."""
    if first.shapes.get(name) != second.shapes.get(name):
        return False
    one, other = first.array(name), second.array(name)
    # as bytes, because NaN differs from itself
    return all(
        np.array_equal(a.reshape(-1).view(np.uint8), b.reshape(-1).view(np.uint8))
        for a, b in zip(one, other, strict=True)
    )


def _is_moved(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether the new item has another georeference; one that has none was converted to a format without it."""
    return any(_has_value(new[name]) and not _is_close(new[name], old[name]) for name in _PLACE)


def _has_value(value: Any) -> bool:
    return isinstance(value, str) and value != "null"


def _is_close(new: str, old: Any) -> bool:
    if new == old:
        return True
    try:
        a, b = np.asarray(json.loads(new), float), np.asarray(json.loads(old), float)
    # the name of a coordinate system, or no value
    except (TypeError, ValueError):
        return False
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-9, atol=1e-9))
