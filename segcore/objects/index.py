"""The index of objects: class, size, place, parts and neighbours of each object of a plane."""

from collections.abc import Sequence

import numpy as np

from segcore.data.prepared import OBJECT_COLUMNS
from segcore.objects.runs import Runs, joined, near

# other objects within this distance of a pixel are neighbours
NEAR = 3
# columns that depend on the plane alone; then whether another object is adjacent, and the column of the first pixel
OF_PLANE = [n for n in OBJECT_COLUMNS if n not in ("item", "region", "cut_region")] + ["touches", "first_col"]
Columns = dict[str, np.ndarray]


def index(runs: Runs, foreground: Sequence[int]) -> Columns:
    """The columns OF_PLANE of the objects of a plane, in the order of their first pixels.

    The class of an object is that of most of its pixels, of equally frequent ones the first. Objects of other classes
    than those of `foreground` are left out.

    Args:
        runs: of the plane.
        foreground: indices of the classes that have objects.
    """
    found = _select(runs, np.flatnonzero(runs.number > 0))
    ids, first, place = np.unique(found.number, return_index=True, return_inverse=True)
    classes = _classes(found, place)
    kept = np.isin(classes, foreground)
    found = _select(found, np.flatnonzero(kept[place]))
    order = np.argsort(first[kept], kind="stable")
    ids, classes = ids[kept][order], classes[kept][order]
    rank = np.empty(len(ids), np.int64)
    rank[order] = np.arange(len(ids))
    place = rank[np.searchsorted(np.sort(ids), found.number)]
    return {"id": ids, "class_index": classes, **_measured(found, place, len(ids))}


def _select(runs: Runs, chosen: np.ndarray) -> Runs:
    return Runs(runs.shape, *(column[chosen] for column in runs[1:]))


def _classes(runs: Runs, place: np.ndarray) -> np.ndarray:
    """Most frequent class of each object; `place` is the object of each run, from 0 without gaps."""
    pairs, at = np.unique(place * 256 + runs.class_index, return_inverse=True)
    pixels = np.bincount(at, runs.length, len(pairs))
    owner, class_index = np.divmod(pairs, 256)
    order = np.lexsort((class_index, -pixels, owner))
    return class_index[order[np.unique(owner[order], return_index=True)[1]]]


def _measured(runs: Runs, place: np.ndarray, count: int) -> Columns:
    """Columns of `count` objects; `place` is the object of each run."""

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(place, values, count)

    area = total(runs.length)
    low, right = np.full(count, runs.shape[1]), np.zeros(count, np.int64)
    np.minimum.at(low, place, runs.start)
    np.maximum.at(right, place, runs.stop)
    # runs are in the order of rows
    first = np.unique(place, return_index=True)[1]
    top, bottom = runs.row[first], np.zeros(count, np.int64)
    np.maximum.at(bottom, place, runs.row + 1)
    cut = (top == 0) | (low == 0) | (bottom == runs.shape[0]) | (right == runs.shape[1])
    return {
        "area": area.astype(np.int64),
        "row": top,
        "col": low,
        "height": bottom - top,
        "width": right - low,
        "center_row": total(runs.length * runs.row) / area,
        "center_col": total(runs.length * (runs.start + runs.stop - 1) / 2) / area,
        "cut_item": cut,
        "parts": _distinct(place, joined(runs, place), count),
        "neighbours": _neighbours(runs, place, count, NEAR),
        "touches": _neighbours(runs, place, count, 1) > 0,
        "first_col": runs.start[first],
    }


def _distinct(place: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Number of distinct values of each object."""
    most = values.max(initial=0) + 1
    return np.bincount(np.unique(place * most + values) // most, minlength=count)


def _neighbours(runs: Runs, place: np.ndarray, count: int, distance: int) -> np.ndarray:
    """Number of other objects within a distance in pixels of each object."""
    found = [np.zeros(0, np.int64)]
    for down in range(distance + 1):
        for one, other in near(runs, down, int((distance**2 - down**2) ** 0.5)):
            low, high = np.minimum(place[one], place[other]), np.maximum(place[one], place[other])
            found.append(np.unique((low * count + high)[low < high]))
    pairs = np.divmod(np.unique(np.concatenate(found)), max(count, 1))
    return np.bincount(np.concatenate(pairs), minlength=count)
