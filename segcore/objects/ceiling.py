"""The ceiling of components: the connected components of a perfect class map against the true objects.

A class map does not separate objects of one class that touch. Components of a network's class map exceed this ceiling
only where wrong pixels happen to part such objects.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from segcore.objects.index import Columns
from segcore.objects.runs import Runs, joined

# components and objects are equal above this intersection over union
IOU = 0.5


def ceiling(runs: Runs, objects: Columns, foreground: Sequence[int]) -> tuple[Columns, np.ndarray]:
    """Components of a plane's class map against its objects.

    Args:
        runs: of the plane.
        objects: of `segcore.objects.index.index`.
        foreground: indices of the classes that have objects.

    Returns:
        Counts, one value per foreground class: class_index, true (objects), predicted (components), matched (pairs of
        one class whose IoU is above 0.5), iou (sum over these pairs); and (N,) bool, True for objects that one
        component merges: more than half of each of two or more objects is in it.
    """
    kept = np.isin(runs.class_index, foreground)
    group = joined(runs, np.where(kept, runs.class_index.astype(np.int64), -1))
    numbers, component = np.unique(group[kept], return_inverse=True)
    count = len(numbers)
    class_of = np.zeros(count, np.int64)
    class_of[component] = runs.class_index[kept]
    area = np.bincount(component, runs.length[kept], count)

    place = _places(runs.number[kept], objects["id"])
    both = place >= 0
    pairs, at = np.unique(component[both] * max(len(objects["id"]), 1) + place[both], return_inverse=True)
    inside = np.bincount(at, runs.length[kept][both], len(pairs))
    one, true = np.divmod(pairs, max(len(objects["id"]), 1))
    iou = inside / (area[one] + objects["area"][true] - inside)
    # More than half of such an object is of the component's class, which is therefore its own.
    matched = iou > IOU

    mostly = inside > objects["area"][true] / 2
    held = np.bincount(one[mostly], minlength=count)
    merged = np.zeros(len(objects["id"]), bool)
    merged[true[mostly & (held[one] > 1)]] = True
    return _per_class(
        objects["class_index"], class_of, class_of[one[matched]], iou[matched], foreground
    ), merged


def _places(numbers: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Position in `ids` of each number, -1 where it is none of them."""
    order = np.argsort(ids)
    at = np.searchsorted(ids[order], numbers)
    known = np.append(ids[order], -1)[at] == numbers
    places: np.ndarray = np.where(known, np.append(order, -1)[at], -1)
    return places


def _per_class(
    true: np.ndarray, predicted: np.ndarray, matched: np.ndarray, iou: np.ndarray, foreground: Sequence[int]
) -> Columns:
    wanted = np.array(foreground, np.int64)
    counted = {"true": true, "predicted": predicted, "matched": matched}
    counts = {name: np.bincount(classes, minlength=256)[wanted] for name, classes in counted.items()}
    return {"class_index": wanted, **counts, "iou": np.bincount(matched, iou, 256)[wanted]}


def figures(counts: pd.DataFrame) -> pd.DataFrame:
    """F1 at IoU above 0.5, PQ and the relative count error of summed counts.

    Args:
        counts: columns true, predicted, matched, iou; any rows.

    Returns:
        Columns f1, pq, count_error; NaN where there is neither an object nor a component, count_error also where there
        is no object.
    """
    both = (counts["true"] + counts["predicted"]).replace(0, np.nan)
    true = counts["true"].replace(0, np.nan)
    return pd.DataFrame(
        {
            "f1": 2 * counts["matched"] / both,
            "pq": 2 * counts["iou"] / both,
            "count_error": (counts["predicted"] - counts["true"]) / true,
        }
    )
