"""True and predicted objects of a region, and what they share: the rows of the object table.

Only scored pixels count: those whose label is not IGNORE. A boundary pixel of an object is a scored pixel of it beside
a scored pixel outside it; edges of the image and ignored pixels make no boundary.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.ndimage import find_objects

from segcore.constants import IGNORE, IGNORED_SHARE, REQUIRED_SHARE
from segcore.data.object_numbers import by_first_pixel
from segcore.objects.found import Objects

# pixels of predicted objects that are compared at once, so that memory does not depend on their number
_AT_ONCE = 2**19
_BOX = ("row", "col", "height", "width")


@dataclass(frozen=True)
class Pairs:
    """Objects of a region and their overlaps; the columns are those of the object table (segcore/tables/objects.py).

    Attributes:
        truths: a row per true object with a scored pixel: truth, class_index, area, area_full, cut, out, box.
        predictions: a row per predicted object with a scored pixel: prediction, class_index, score, area, area_full,
            ignored_share, cut, out, box.
        pairs: a row per true and predicted object that share a scored pixel, of any classes: truth, prediction,
            intersection, boundary_truth, boundary_prediction, boundary_truth_matched, boundary_prediction_matched.
        predicted: the objects of `predictions`, in its order.
    """

    truths: pd.DataFrame
    predictions: pd.DataFrame
    pairs: pd.DataFrame
    predicted: Objects


def pairs(
    numbers: np.ndarray, label: np.ndarray, index: pd.DataFrame, predicted: Objects, tolerance: int
) -> Pairs:
    """Compare the predicted objects of a region with the true ones.

    Args:
        numbers: (H, W) numbers of the true objects, 0 for none.
        label: (H, W) uint8 classes; pixels of IGNORE are not scored, whatever their number.
        index: a row per true object of a class that has objects: `id`, its number in the map; `class_index`; `area`,
            its pixels in the whole item. Numbers without a row are no object.
        predicted: objects that were found, which may overlap.
        tolerance: Euclidean distance in pixels up to which boundary pixels match.

    Returns:
        Rows of objects with a scored pixel. Objects are numbered from 1 in the order of their first scored pixels;
        predicted ones that share it by score, the highest first, then by class and as given.
    """
    region, old = _region(numbers, label, index, max(tolerance, 1))
    found = [_compared(region, part, tolerance) for part in _parts(predicted, region)]
    areas, firsts, boxes, edges, shared = map(np.concatenate, zip(_nothing(), *found, strict=True))
    order = np.lexsort((predicted.classes, -predicted.scores, firsts))
    order = order[areas[order] > 0]
    number = np.zeros(len(predicted), np.int64)
    number[order] = np.arange(1, len(order) + 1)
    true, place, intersections, true_matched, matched = shared.T
    overlaps = {
        "truth": true,
        "prediction": number[place],
        "intersection": intersections,
        "boundary_truth": np.bincount(region.edges[region.edges > 0], minlength=len(old) + 1)[true],
        "boundary_prediction": edges[place],
        "boundary_truth_matched": true_matched,
        "boundary_prediction_matched": matched,
    }
    chosen = predicted.select(order)
    return Pairs(
        _truths(region, old, index),
        _predictions(chosen, areas[order], boxes[order], region.shape),
        pd.DataFrame(overlaps).sort_values(["truth", "prediction"], ignore_index=True),
        chosen,
    )


class _Region(NamedTuple):
    """Flat arrays of a region with a margin: whether pixels are scored, true numbers, and those of boundary pixels.

    `width` is that of the arrays, `many` the number of true objects plus 1.
    """

    shape: tuple[int, int]
    margin: int
    width: int
    many: int
    scored: np.ndarray
    truth: np.ndarray
    edges: np.ndarray


class _Part(NamedTuple):
    """Predicted objects from `first` on: their number, and their pixels, object by object and in order."""

    first: int
    many: int
    owner: np.ndarray
    pixels: np.ndarray


def _region(
    numbers: np.ndarray, label: np.ndarray, index: pd.DataFrame, margin: int
) -> tuple[_Region, np.ndarray]:
    """The region with renumbered true objects, and their numbers in the map."""
    scored = label != IGNORE
    truth, old = by_first_pixel(np.where(scored, numbers, 0), index["id"].to_numpy())
    # -1: beside such pixels there is no boundary
    padded = np.pad(np.where(scored, truth, -1), margin, constant_values=-1)
    inner = padded[margin:-margin, margin:-margin]
    edge = np.zeros(label.shape, bool)
    for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        rows = slice(margin + down, padded.shape[0] - margin + down)
        beside = padded[rows, margin + right : padded.shape[1] - margin + right]
        edge |= (beside >= 0) & (beside != inner)
    edges = np.pad(np.where(edge & (truth > 0), truth, 0), margin)
    flat = (padded.ravel() >= 0, np.maximum(padded, 0).ravel(), edges.ravel())
    return _Region(label.shape, margin, padded.shape[1], len(old) + 1, *flat), old


def _parts(predicted: Objects, region: _Region) -> Iterator[_Part]:
    """The objects in parts of about _AT_ONCE pixels; an object of more is the last of its part."""
    pixels: list[np.ndarray] = []
    first = total = 0
    for index, (box, mask) in enumerate(zip(predicted.boxes.tolist(), predicted.masks, strict=True)):
        rows, cols = np.nonzero(mask)
        pixels.append((rows + box[0] + region.margin) * region.width + cols + box[1] + region.margin)
        total += len(rows)
        if total >= _AT_ONCE or index == len(predicted) - 1:
            sizes = [len(of_object) for of_object in pixels]
            yield _Part(first, len(sizes), np.repeat(np.arange(len(sizes)), sizes), np.concatenate(pixels))
            pixels, first, total = [], index + 1, 0


class _Compared(NamedTuple):
    """Facts per predicted object (N,): scored area, first scored pixel, box (N, 4), boundary pixels; and per pair.

    `shared` (P, 5): number of the true object, place of the predicted one, shared pixels, boundary pixels of the true
    and of the predicted object that match.
    """

    areas: np.ndarray
    firsts: np.ndarray
    boxes: np.ndarray
    edges: np.ndarray
    shared: np.ndarray


def _nothing() -> _Compared:
    one = np.zeros(0, np.int64)
    return _Compared(one, one, np.zeros((0, 4), np.int64), one, np.zeros((0, 5), np.int64))


def _compared(region: _Region, part: _Part, tolerance: int) -> _Compared:
    inside = region.scored[part.pixels]
    owner, pixels = part.owner[inside], part.pixels[inside]
    areas = np.bincount(owner, minlength=part.many)
    firsts, boxes = _places(region, owner, pixels, part.many)
    # one number per true and predicted object, and per predicted object and pixel; both ascend
    both = region.truth[pixels] > 0
    pair = owner[both] * region.many + region.truth[pixels[both]]
    known, intersections = np.unique(pair, return_counts=True)
    on_edge = _is_boundary(region, owner, pixels)
    owner, pixels = owner[on_edge], pixels[on_edge]
    matched = _matched(region, owner, pixels, known, tolerance)
    place, true = np.divmod(known, region.many)
    shared = np.column_stack([true, part.first + place, intersections, *matched])
    return _Compared(areas, firsts, boxes, np.bincount(owner, minlength=part.many), shared)


def _places(
    region: _Region, owner: np.ndarray, pixels: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """First pixel and box of each object; 0 for those without a pixel."""
    firsts, boxes = np.zeros(count, np.int64), np.zeros((count, 4), np.int64)
    if len(owner):
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        present = owner[starts]
        rows, cols = pixels // region.width - region.margin, pixels % region.width - region.margin
        firsts[present] = pixels[starts]
        top, left = np.minimum.reduceat(rows, starts), np.minimum.reduceat(cols, starts)
        bottom, right = np.maximum.reduceat(rows, starts), np.maximum.reduceat(cols, starts)
        boxes[present] = np.column_stack([top, left, bottom - top + 1, right - left + 1])
    return firsts, boxes


def _is_boundary(region: _Region, owner: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Which pixels have a scored 4-neighbour that is not of the same object."""
    keys = owner * len(region.scored) + pixels
    boundary = np.zeros(len(keys), bool)
    for step in (-region.width, -1, 1, region.width):
        places = np.minimum(np.searchsorted(keys, keys + step), len(keys) - 1)
        boundary |= (keys[places] != keys + step) & region.scored[pixels + step]
    return boundary


def _matched(
    region: _Region, owner: np.ndarray, pixels: np.ndarray, known: np.ndarray, tolerance: int
) -> tuple[np.ndarray, np.ndarray]:
    """Per pair, in the order of `known`, boundary pixels of the true object that match, and of the predicted one.

    Boundary pixels of predicted objects are given; `known` (P,) ascends.
    """
    if not len(known):
        return known, known
    size, true, predicted = len(region.truth), [], []
    reach = range(-tolerance, tolerance + 1)
    for step in (y * region.width + x for y in reach for x in reach if y * y + x * x <= tolerance**2):
        near = np.flatnonzero(region.edges[pixels + step])
        wanted = owner[near] * region.many + region.edges[pixels[near] + step]
        pair = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        near, pair = near[known[pair] == wanted], pair[known[pair] == wanted]
        true.append(pair * size + pixels[near] + step)
        predicted.append(pair * size + pixels[near])
    return _pixels_of(true, size, len(known)), _pixels_of(predicted, size, len(known))


def _pixels_of(keys: list[np.ndarray], size: int, count: int) -> np.ndarray:
    """Number of different pixels of each pair, from keys pair * size + pixel."""
    # numpy sorts faster than it finds unique values
    ordered = np.sort(np.concatenate(keys))
    different = ordered[np.diff(ordered, prepend=-1) > 0]
    counted: np.ndarray = np.bincount(different // size, minlength=count)
    return counted


def _touches_edge(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    first, last = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    touches: np.ndarray = ((first == 0) | (last == np.array(shape))).any(1)
    return touches


def _truths(region: _Region, old: np.ndarray, index: pd.DataFrame) -> pd.DataFrame:
    known = index.set_index("id").loc[old]
    areas = np.bincount(region.truth[region.truth > 0], minlength=len(old) + 1)[1:]
    full = known["area"].to_numpy(np.int64)
    places = find_objects(region.truth.reshape(-1, region.width))
    boxes = np.array([(r.start, c.start, r.stop - r.start, c.stop - c.start) for r, c in places], np.int64)
    boxes = boxes.reshape(-1, 4) - (region.margin, region.margin, 0, 0)
    rows = {
        "truth": np.arange(1, len(old) + 1),
        "class_index": known["class_index"].to_numpy(np.int64),
        "area": areas,
        "area_full": full,
        "cut": _touches_edge(boxes, region.shape),
        "out": areas <= REQUIRED_SHARE * full,
    }
    return pd.DataFrame(rows | dict(zip(_BOX, boxes.T, strict=True)))


def _predictions(
    predicted: Objects, areas: np.ndarray, boxes: np.ndarray, shape: tuple[int, int]
) -> pd.DataFrame:
    full = predicted.areas
    share = (full - areas) / full
    rows = {
        "prediction": np.arange(1, len(full) + 1),
        "class_index": predicted.classes.astype(np.int64),
        "score": predicted.scores.astype(np.float64),
        "area": areas,
        "area_full": full,
        "ignored_share": share,
        "cut": _touches_edge(boxes, shape),
        "out": share > IGNORED_SHARE,
    }
    return pd.DataFrame(rows | dict(zip(_BOX, boxes.T, strict=True)))
