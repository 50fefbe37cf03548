"""Minimum scores of slices: keys of gate.floors such as `site=oslo` (mean of its classes) and `road site=oslo`."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from segcore.comparison.cluster_sums import cluster_sums, run_scores
from segcore.errors import ParamsError
from segcore.metrics import METRICS
from segcore.tables.objects import required_classes
from segcore.tables.slices import of_images
from segcore.tables.surfaces import true_classes

# texts of a word that an error lists
_LISTED = 20


class SliceKey(NamedTuple):
    """A key of gate.floors; without a class, it means the foreground classes that the slice contains."""

    class_name: str | None
    word: str
    text: str


def parse(key: str, classes: Sequence[str]) -> SliceKey | None:
    """The slice of a key such as `site=oslo` or `road site=oslo`; None if it is none, such as that of a class.

    Words have no blanks, so that the class, which may have some, ends before the last blank before the `=`.
    """
    if key in classes:
        return None
    found = re.fullmatch(r"(\w+)=(.*)", key, re.DOTALL)
    for name in sorted(classes, key=len, reverse=True):
        of_class = re.fullmatch(re.escape(name) + r" (\w+)=(.*)", key, re.DOTALL)
        if of_class:
            return _key(name, of_class)
    return _key(None, found) if found else None


def _key(class_name: str | None, found: re.Match[str]) -> SliceKey:
    return SliceKey(class_name, found[1], unicodedata.normalize("NFC", found[2]))


def require_known(floors: Iterable[str], classes: Sequence[str], words: Mapping[str, Sequence[str]]) -> None:
    """Check that each key of gate.floors names a class, or a word of the data patterns with one of its texts.

    Args:
        floors: keys of gate.floors.
        classes: names of all classes.
        words: word -> its texts in all prepared items.

    Raises:
        ParamsError: a key names an unknown class, word or text; the message lists the known ones.
    """
    for key in floors:
        if key in classes:
            continue
        one = parse(key, classes)
        if one is None:
            raise _unknown(key, f"is neither a class nor a slice; classes: {', '.join(classes)}")
        if one.word not in words:
            known = f"words: {', '.join(words)}" if words else "data.images has no words"
            raise _unknown(key, f"names the unknown word {one.word!r}; {known}")
        texts = words[one.word]
        if one.text not in texts:
            more = f" and {len(texts) - _LISTED} more" if len(texts) > _LISTED else ""
            listed = f"{', '.join(texts[:_LISTED])}{more}"
            raise _unknown(key, f"names {one.text!r}, which no image has as {one.word}; known: {listed}")


def _unknown(key: str, what: str) -> ParamsError:
    return ParamsError(
        f"gate.floors: {key!r} {what}",
        "correct gate.floors in params.yaml; its keys are classes, word=text, or class word=text",
    )


def slice_scores(
    frozen: pd.DataFrame,
    floors: Iterable[str],
    metric: str,
    classes: Sequence[str],
    foreground: Sequence[int],
    objects: pd.DataFrame | None = None,
    least_score: float = 0.0,
    limits: tuple[float, float] | None = None,
    surfaces: pd.DataFrame | None = None,
) -> dict[str, float | None]:
    """Pooled score of each slice that gate.floors names; None where it has no true pixel or object to score.

    Args:
        frozen: evaluation table of the frozen test set.
        floors: keys of gate.floors; those of classes are left out.
        metric: name in `segcore.metrics.METRICS`.
        classes: names of all classes.
        foreground: indices of the classes in the mean.
        objects: object table, for metrics of objects.
        least_score: of a predicted object.
        limits: areas that divide small, medium and large objects of the whole frozen test set.
        surfaces: surface table, for metrics of surfaces.
    """
    objects = objects if METRICS[metric].of_objects else None
    surfaces = surfaces if METRICS[metric].of_surfaces else None
    found = {}
    for key in floors:
        one = parse(key, classes)
        if one is not None:
            wanted = foreground if one.class_name is None else [classes.index(one.class_name)]
            rows = of_images(frozen, one.word, one.text)
            found[key] = _score(rows, metric, wanted, objects, least_score, limits, surfaces)
    return found


def _score(
    rows: pd.DataFrame,
    metric: str,
    wanted: Sequence[int],
    objects: pd.DataFrame | None,
    least_score: float,
    limits: tuple[float, float] | None,
    surfaces: pd.DataFrame | None,
) -> float | None:
    """Mean of the wanted classes that have a true pixel, object or surface, as in the comparison's table of slices."""
    if surfaces is not None:
        present = [index for index in wanted if index in true_classes(surfaces, rows["item"])]
    elif objects is None:
        truth = rows.groupby("class_index")[["tp", "fn"]].sum().sum(axis=1)
        present = [index for index in wanted if truth.get(index, 0) > 0]
    else:
        present = [index for index in wanted if index in required_classes(objects, rows["item"])]
    if not present:
        return None
    key = f"{metric}/dataset/foreground_mean"
    return run_scores(cluster_sums(rows, present, objects, least_score, limits, surfaces), [key])[key]
