"""True and predicted objects of an object table as arrays, and which of them match at an IoU."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pandas as pd

from segcore.errors import DataError
from segcore.tables.objects import KINDS

# the same numbers as in pycocotools; 0.65 is not among them, but the number below
COCO_THRESHOLDS = np.linspace(0.5, 0.95, 10)
COCO_DETECTIONS = 100
# least score of a predicted object, of all images or by image, as where several networks have predicted them
LeastScore = float | Mapping[str, float]
_BOUNDARY = ["boundary_truth", "boundary_prediction", "boundary_truth_matched", "boundary_prediction_matched"]


@dataclass(frozen=True)
class Matches:
    """Matches at one threshold.

    Attributes:
        pairs: indices of the matched pairs.
        state: of each prediction, (P,) int8: 1 right, 0 wrong, 2 neither (it matches a crowd or a truth that is not
            required).
        found: (T,) bool, whether a prediction matches the true object.
    """

    pairs: np.ndarray
    state: np.ndarray
    found: np.ndarray


@dataclass(frozen=True)
class ObjectArrays:
    """An object table as arrays: T true objects, P predictions from the highest score, and pairs of one class.

    Predictions of equal score are in the order of items, then of numbers. Pairs are in the order of predictions; those
    of one prediction have required true objects first. Predictions that are taken out (`out`) are left out.

    Attributes:
        items: I names, sorted.
        pixels: (I,) scored pixels of each image.
        true_item, true_class, true_number, true_area, true_size: of the true objects; the area is of scored pixels,
            the size of the whole object.
        crowd, required: (T,) bool.
        item, class_index, number, area, score: of the predictions.
        pair_truth, pair: (Q,) indices of the true object and of the prediction of each pair.
        intersection: (Q,) scored pixels in both.
        overlap: (Q,) IoU; with a crowd, the share of the prediction in it.
        boundary: (Q, 4) boundary pixels: of truth and prediction, and those of both that match.
    """

    items: tuple[str, ...]
    pixels: np.ndarray
    true_item: np.ndarray
    true_class: np.ndarray
    true_number: np.ndarray
    true_area: np.ndarray
    true_size: np.ndarray
    crowd: np.ndarray
    required: np.ndarray
    item: np.ndarray
    class_index: np.ndarray
    number: np.ndarray
    area: np.ndarray
    score: np.ndarray
    pair_truth: np.ndarray
    pair: np.ndarray
    intersection: np.ndarray
    overlap: np.ndarray
    boundary: np.ndarray

    def at_least(self, score: LeastScore) -> "ObjectArrays":
        """The same with only the predictions of at least this score."""
        by_item = (
            score if isinstance(score, float | int) else np.array([score[i] for i in self.items])[self.item]
        )
        # scores are float32, and compared as such wherever objects are found
        kept = self.score.astype(np.float32) >= np.asarray(by_item, np.float32)
        place = np.cumsum(kept) - 1
        pairs = kept[self.pair]
        names = ("item", "class_index", "number", "area", "score")
        chosen = {name: getattr(self, name)[kept] for name in names}
        of_pairs = {name: getattr(self, name)[pairs] for name in ("pair_truth", "intersection", "overlap")}
        fixed = {name: getattr(self, name) for name in self.__dataclass_fields__}
        boundary = self.boundary[pairs]
        pair = place[self.pair[pairs]]
        return ObjectArrays(**{**fixed, **chosen, **of_pairs, "boundary": boundary, "pair": pair})

    def match(self, threshold: float, strict: bool) -> Matches:
        """Matches of one class at an IoU, greedy by score and then by IoU, as COCO.

        Where masks do not overlap, a match above .5 is unique. Crowds match any number of predictions.

        Args:
            threshold: least IoU, at least .5.
            strict: whether the IoU must be above it.
        """
        limit = threshold if strict else min(threshold, 1 - 1e-10)
        near = np.flatnonzero(self.overlap > limit if strict else self.overlap >= limit)
        truth, prediction = self.pair_truth[near], self.pair[near]
        alone = (_times(truth) == 1) & (_times(prediction) == 1)
        pairs = np.sort(np.concatenate([near[alone], self._greedy(near[~alone])]).astype(int))
        state = np.zeros(len(self.score), np.int8)
        state[self.pair[pairs]] = np.where(self.required[self.pair_truth[pairs]], 1, 2)
        found = np.zeros(len(self.true_item), bool)
        found[self.pair_truth[pairs]] = True
        return Matches(pairs, state, found)

    def _greedy(self, pairs: np.ndarray) -> np.ndarray:
        """Matched pairs among those that share a true object or a prediction; of equal IoU the last, as COCO."""
        matched, used = [], set()
        for _, group in groupby(pairs.tolist(), key=lambda k: self.pair[k]):
            best = -1
            for k in group:
                truth = self.pair_truth[k]
                if truth in used and not self.crowd[truth]:
                    continue
                if best >= 0 and self.required[self.pair_truth[best]] and not self.required[truth]:
                    break
                if best < 0 or self.overlap[k] >= self.overlap[best]:
                    best = k
            if best >= 0:
                matched.append(best)
                used.add(self.pair_truth[best])
        return np.array(matched, dtype=int)


def _times(values: np.ndarray) -> np.ndarray:
    """How often each value occurs, in the order of the values."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    times: np.ndarray = counts[inverse]
    return times


def object_arrays(table: pd.DataFrame, items: Sequence[str], classes: int) -> ObjectArrays:
    """Arrays of an object table.

    Args:
        table: object table (segcore.tables.objects).
        items: images that are scored, sorted; others are left out.
        classes: K.

    Raises:
        DataError: an image lacks its row, or a pair names an object that has none.
    """
    index = table["item"].map({item: place for place, item in enumerate(items)})
    table, index = table[index.notna()], index.dropna().astype(np.int64)
    of_kind, at = {}, {}
    for kind in KINDS:
        mask = table["kind"] == kind
        of_kind[kind], at[kind] = table[mask], index[mask].to_numpy()
    pixels = _pixels(of_kind["image"], at["image"], len(items))
    truths, predictions = of_kind["truth"], of_kind["prediction"]
    of_classes = np.concatenate([truths["class_index"], predictions["class_index"]])
    if len(of_classes) and not 0 <= of_classes.min() <= of_classes.max() < classes:
        raise DataError(f"the object table has classes beyond 0 to {classes - 1}", "evaluate the model again")
    order = np.lexsort((predictions["prediction"], at["prediction"], -predictions["score"].to_numpy()))
    order = order[~predictions["out"].to_numpy(bool)[order]]
    crowd = truths["crowd"].to_numpy(bool)
    objects = {
        "true_item": at["truth"],
        "true_class": truths["class_index"].to_numpy(),
        "true_number": truths["truth"].to_numpy(),
        "true_area": truths["area"].to_numpy(),
        "true_size": np.maximum(truths["area"], truths["area_full"]).to_numpy(),
        "crowd": crowd,
        "required": ~truths["out"].to_numpy(bool) & ~crowd,
        "item": at["prediction"][order],
        "class_index": predictions["class_index"].to_numpy()[order],
        "number": predictions["prediction"].to_numpy()[order],
        "area": predictions["area"].to_numpy()[order],
        "score": predictions["score"].to_numpy()[order],
    }
    truth = _rows_of(at["truth"], truths["truth"], at["pair"], of_kind["pair"]["truth"])
    named = _rows_of(at["prediction"], predictions["prediction"], at["pair"], of_kind["pair"]["prediction"])
    rank = np.full(len(predictions), -1)
    rank[order] = np.arange(len(order))
    return ObjectArrays(
        tuple(items), pixels, **objects, **_pairs(of_kind["pair"], truth, rank[named], objects)
    )


def _pixels(images: pd.DataFrame, places: np.ndarray, number: int) -> np.ndarray:
    """Scored pixels of each image, from its row of the table and its place among all.

    Raises:
        DataError: an image has no row, or several.
    """
    pixels = np.zeros(number, np.int64)
    pixels[places] = images["pixels"]
    if len(places) != number or not (pixels > 0).all():
        raise DataError(
            "images are missing from the object table, or twice in it", "evaluate the model again"
        )
    return pixels


def _pairs(
    pairs: pd.DataFrame, truth: np.ndarray, prediction: np.ndarray, objects: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Pairs of one class that share a scored pixel, in the order of `ObjectArrays`.

    Args:
        pairs: rows of the table.
        truth: of each pair, index of the true object.
        prediction: the same of the prediction; -1 where it is left out.
        objects: arrays of the true objects and of the predictions.
    """
    shared = pairs["intersection"].to_numpy()
    same = (prediction >= 0) & (shared > 0)
    same[same] = objects["true_class"][truth[same]] == objects["class_index"][prediction[same]]
    rows = np.flatnonzero(same)
    by = (objects["true_number"][truth[rows]], ~objects["required"][truth[rows]], prediction[rows])
    rows = rows[np.lexsort(by)]
    truth, prediction, shared = truth[rows], prediction[rows], shared[rows]
    own = objects["area"][prediction]
    whole = np.where(objects["crowd"][truth], own, own + objects["true_area"][truth] - shared)
    return {
        "pair_truth": truth,
        "pair": prediction,
        "intersection": shared,
        "overlap": shared / np.maximum(whole, 1),
        "boundary": pairs[_BOUNDARY].to_numpy()[rows],
    }


def _rows_of(
    items: np.ndarray, numbers: pd.Series, wanted_items: np.ndarray, wanted: pd.Series
) -> np.ndarray:
    """Places of objects by item and number.

    Raises:
        DataError: there is no such object.
    """
    known = pd.MultiIndex.from_arrays([items, numbers])
    if not known.is_unique:
        raise DataError("an object is twice in the object table", "evaluate the model again")
    rows = known.get_indexer(pd.MultiIndex.from_arrays([wanted_items, wanted]))
    if (rows < 0).any():
        raise DataError(
            "the object table has pairs of objects that it does not have", "evaluate the model again"
        )
    return np.asarray(rows)
