"""Checks of the section `data` of params.yaml: names, and settings that contradict each other."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import pairwise
from typing import TYPE_CHECKING
from unicodedata import category

from segcore.names import LONGEST, same_key
from segcore.params._label_keys import require_whole

if TYPE_CHECKING:
    from segcore.params.data import Data

# score keys have these in place of a class
_MEANS = ("foreground_mean", "all_mean")
# Unicode categories: control characters, line and paragraph breaks, halves of a surrogate pair
_UNPRINTABLE = ("Cc", "Zl", "Zp", "Cs")
# no characters, which XML does not allow
_NONE = "\ufffe\uffff"
# Annotations of objects, whose keys of label_values are words.
_OBJECTS = (".json", ".xml", ".geojson", ".gpkg", ".shp", ".fgb", ".dcm")
# how to let the ground truth have objects, for errors
OBJECTS_REMEDY = (
    "set data.instances to true (each polygon, shape or value of a mask is an object) or to components (each connected "
    "area of a class is one), or data.objects to the pattern of rasters of object numbers"
)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`, did you mean NAME?` with the most similar name; empty if none is similar."""
    likely = get_close_matches(word, sorted(known), n=1)
    return f", did you mean {likely[0]}?" if likely else ""


def require_distinct(setting: str, names: Iterable[str]) -> None:
    """Raise a ValueError for a name that cannot be a key of recorded scores, or for two that would share one."""
    names = list(names)
    for name in names:
        if any(category(character) in _UNPRINTABLE or character in _NONE for character in name):
            raise ValueError(f"{setting}: {name[:60]!r} has a line break or control character; remove it")
        if not name.strip() or len(name) > LONGEST or name in _MEANS:
            raise ValueError(
                f"{setting}: {name[:60]!r} cannot be a name: it is empty, longer than {LONGEST} characters, or that "
                "of a mean over classes; choose another one"
            )
    pair = same_key(names)
    if pair:
        raise ValueError(
            f"{setting}: {pair[0]!r} and {pair[1]!r} would share one key in the recorded scores, because they differ "
            "at most in blanks, punctuation or Unicode normal form; rename one of them"
        )


def require_consistent(data: "Data") -> None:
    """Raise a ValueError for settings of the section `data` that contradict each other."""
    if len(data.colors) != len(data.classes):
        raise ValueError(
            f"colors has {len(data.colors)} entries for {len(data.classes)} classes; without the key, colours "
            "are chosen"
        )
    if data.background is not None and data.background not in data.classes:
        raise ValueError(
            f"background {data.background!r} is not one of the classes {data.classes}; use null for no background"
        )
    if data.unlabelled is not None and data.unlabelled not in (*data.classes, "ignore"):
        raise ValueError(
            f"unlabelled {data.unlabelled!r} is neither `ignore` nor one of the classes {data.classes}; use null "
            "for the background"
        )
    for key in data.label_values:
        if isinstance(key, str) and re.fullmatch(r"(?=.*[A-Fa-f])[0-9A-Fa-f]{6}", key):
            raise ValueError(f'label_values: write the colour {key} as "#{key}", in quotes')
    for low, high in (data.percentiles, *([data.scale] if isinstance(data.scale, tuple) else [])):
        if low >= high:
            raise ValueError(f"scale and percentiles: {low} is not below {high}")
    _check_masks(data)
    _check_objects(data)
    _check_annotators(data)
    for value in data.label_values.values():
        is_name = value == "ignore" or value in data.classes
        if not is_name and not (isinstance(value, int) and 0 <= value < len(data.classes)):
            hint = did_you_mean(str(value), ["ignore", *data.classes]) or ";"
            raise ValueError(
                f"label_values names {value!r}{hint} known: ignore, {', '.join(data.classes)}, "
                f"or indices 0 to {len(data.classes) - 1}"
            )
    # The values of a property are words.
    if data.label_property is None:
        _check_ranges(data)


def _check_masks(data: "Data") -> None:
    if isinstance(data.masks, dict):
        unknown = [name for name in data.masks if name != "ignore" and name not in data.classes]
        if unknown:
            raise ValueError(
                f"masks has a pattern for {unknown[0]!r}; known: ignore, {', '.join(data.classes)}"
            )
    is_of_patterns = data.layout == "pairs" and data.listing is None
    if not is_of_patterns and (isinstance(data.masks, dict) or len(data.image_patterns) > 1):
        raise ValueError("images as a list and masks as a mapping need layout: pairs, and listing: null")
    # Masks of `baselines` are read by label_values.
    if isinstance(data.masks, dict) and data.label_values and not data.baselines:
        raise ValueError(
            "label_values has no effect where masks is a mapping, in whose files all values but 0 are the class: "
            "remove label_values; files that mark the class otherwise, such as with 0, must be saved again with "
            "the class as 1 and all else as 0"
        )
    if isinstance(data.masks, str) and "label_values" not in data.model_fields_set:
        raise ValueError("label_values is missing: which value of the masks is which class")


def _check_annotators(data: "Data") -> None:
    if not data.annotators:
        return
    if len(set(data.annotators)) < len(data.annotators) or len(data.annotators) < 2:
        raise ValueError("annotators: name at least two, each once")
    if (len(data.classes) + 1) ** len(data.annotators) >= 2**62:
        # a sampler has one int64 per pixel for all labels (segcore.data.annotators)
        raise ValueError(
            f"annotators: {len(data.annotators)} of them with {len(data.classes)} classes are too many: name fewer"
        )
    if data.has_objects:
        raise ValueError(
            "annotators: not possible with objects, which have no mean: remove instances and objects, or annotators"
        )
    if data.layout != "pairs" or data.listing is not None:
        raise ValueError("annotators: needs layout: pairs, and listing: null")


def _check_objects(data: "Data") -> None:
    """Check that objects are numbered in one way, and that there are objects where a setting needs them."""
    if data.instances == "components" and data.objects is not None:
        raise ValueError(
            "instances: components numbers the objects, and so does the raster that objects names: remove one of "
            "the two"
        )
    if data.touching and not data.has_objects:
        raise ValueError(
            "touching: true needs objects, which are used only where data.instances or data.objects is set: "
            f"{OBJECTS_REMEDY}; or remove touching"
        )


def _check_ranges(data: "Data") -> None:
    """Check the ranges of label_values, which may not share a value with another key."""
    has_words = data.layout in ("coco", "cityscapes") or any(
        pattern.lower().endswith(_OBJECTS) for pattern in data.mask_patterns
    )
    for key in data.label_values:
        if isinstance(key, str) and not has_words:
            require_whole(key)
    for (low, high), (following, _) in pairwise([*sorted(data.label_spans), (float("inf"), 0)]):
        if low > high:
            raise ValueError(f'label_values: write the range "{low}-{high}" as "{high}-{low}"')
        if high >= following:
            raise ValueError(
                f"label_values: {following} is in the range {low}-{high} and in another key; "
                "let the keys have no value in common"
            )
