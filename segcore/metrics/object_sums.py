"""Sums of objects per image and class, and average precision; each is computed when it is first read.

`ObjectRun` has them per image, and `segcore.metrics.pooled` over images. Both are mappings that the functions of
`segcore.metrics.objects` take.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import pandas as pd

from segcore.metrics.average_precision import Ranking, average_precision
from segcore.metrics.matching import (
    COCO_DETECTIONS,
    COCO_THRESHOLDS,
    LeastScore,
    Matches,
    ObjectArrays,
    object_arrays,
)
from segcore.metrics.objects import SIZES, THRESHOLDS


class ObjectRun(Mapping[str, np.ndarray]):
    """Sums of one run per image and class, by name, each (I, K), computed when they are first read.

    Attributes:
        arrays: true and predicted objects; all predictions, also those of a low score.
        classes: K.
        limits: areas that divide small, medium and large objects.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        items: Sequence[str],
        classes: int,
        score: LeastScore = 0.0,
        limits: tuple[float, float] | None = None,
    ) -> None:
        """Read an object table.

        Args:
            table: object table (segcore.tables.objects).
            items: images that are scored, sorted.
            classes: K.
            score: least score of a predicted object, or one per image; average precision counts all.
            limits: areas that divide the sizes; by default of thirds of the true objects in the table.

        Raises:
            DataError: the table does not fit the images, or is incomplete.
        """
        self.arrays = object_arrays(table, items, classes)
        self.classes, self.score = classes, score
        self.limits = limits or size_limits(self.arrays)
        self._sums: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._sums:
            self._sums |= self._compute(name)
        return self._sums[name]

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)

    @cached_property
    def scored(self) -> ObjectArrays:
        """The objects with only the predictions of at least the score."""
        return self.arrays.at_least(self.score)

    @cached_property
    def found(self) -> Matches:
        """Matches above IoU .5."""
        return self.scored.match(0.5, strict=True)

    def of_truths(self, values: np.ndarray) -> np.ndarray:
        """Sums (I, K) of values of the true objects (T,)."""
        return self._sum(self.arrays.true_item, self.arrays.true_class, values)

    def of_predictions(self, values: np.ndarray, arrays: ObjectArrays) -> np.ndarray:
        """Sums (I, K) of values of predictions (P,)."""
        return self._sum(arrays.item, arrays.class_index, values)

    def _of_pairs(self, pairs: np.ndarray, values: np.ndarray) -> np.ndarray:
        arrays = self.scored
        return self.of_predictions(np.bincount(arrays.pair[pairs], values, len(arrays.score)), arrays)

    def _sum(self, item: np.ndarray, class_index: np.ndarray, values: np.ndarray) -> np.ndarray:
        shape = (len(self.arrays.items), self.classes)
        sums: np.ndarray = np.bincount(item * self.classes + class_index, values, shape[0] * shape[1])
        return sums.reshape(shape)

    def _compute(self, name: str) -> dict[str, np.ndarray]:
        kind, _, rest = name.rpartition("_")
        if rest.isdigit():
            percent = int(rest)
            return self._matched(percent) if kind in ("tp", "fp", "fn") else self._image_ap(kind == "ap_coco")
        return _GROUPS[name](self)

    def _matched(self, percent: int) -> dict[str, np.ndarray]:
        arrays = self.scored
        matches = self.found if percent == 50 else arrays.match(percent / 100, strict=True)
        return {
            f"tp_{percent}": self.of_predictions(matches.state == 1, arrays),
            f"fp_{percent}": self.of_predictions(matches.state == 0, arrays),
            f"fn_{percent}": self.of_truths(arrays.required & ~matches.found),
        }

    def _found_pairs(self) -> np.ndarray:
        """Pairs above IoU .5 whose true object is required."""
        pairs = self.found.pairs
        return np.asarray(pairs[self.scored.required[self.scored.pair_truth[pairs]]])

    def _quality(self) -> dict[str, np.ndarray]:
        """Sum of IoU and boundary counts of found objects."""
        arrays, pairs = self.scored, self._found_pairs()
        values = {"iou": arrays.overlap, **dict(zip(_BOUNDARY, arrays.boundary.T, strict=True))}
        return {name: self._of_pairs(pairs, one[pairs]) for name, one in values.items()}

    def _aji(self) -> dict[str, np.ndarray]:
        """Each true object with the prediction of highest IoU, which may serve several; then unused predictions."""
        arrays = self.scored
        pairs = np.flatnonzero(arrays.required[arrays.pair_truth])
        truth = arrays.pair_truth[pairs]
        order = np.lexsort((-arrays.overlap[pairs], truth))
        best = pairs[order[np.unique(truth[order], return_index=True)[1]]]
        truth, prediction = arrays.pair_truth[best], arrays.pair[best]
        lonely = arrays.required.copy()
        lonely[truth] = False
        used = self.found.state == 2
        used[prediction] = True
        intersection = np.zeros(len(arrays.true_item))
        union = np.where(lonely, arrays.true_area, 0).astype(float)
        intersection[truth] = arrays.intersection[best]
        union[truth] = arrays.true_area[truth] + arrays.area[prediction] - arrays.intersection[best]
        unused = self.of_predictions(np.where(used, 0, arrays.area), arrays)
        return {
            "aji_intersection": self.of_truths(intersection),
            "aji_union": self.of_truths(union) + unused,
        }

    def _counts(self) -> dict[str, np.ndarray]:
        predicted, true = self["tp_50"] + self["fp_50"], self["tp_50"] + self["fn_50"]
        empty = true == 0
        pixels = np.repeat(self.arrays.pixels[:, None], self.classes, axis=1)
        return {
            "true": true,
            "count_gap": np.abs(predicted - true),
            "false": np.where(empty, predicted, 0),
            "empty": empty,
            "pixels": pixels,
        }

    def _divided(self) -> dict[str, np.ndarray]:
        merged, split = divided(self.scored)
        required = self.scored.required
        return {"merged": self.of_truths(merged & required), "split": self.of_truths(split & required)}

    def _sizes(self) -> dict[str, np.ndarray]:
        size = np.searchsorted(self.limits, self.arrays.true_size)
        sums: dict[str, np.ndarray] = {}
        for index, name in enumerate(SIZES):
            chosen = self.arrays.required & (size == index)
            sums |= {f"true_{name}": self.of_truths(chosen)}
            sums |= {f"tp_{name}": self.of_truths(chosen & self.found.found)}
        return sums

    def rankings(self, capped: bool, clusters: np.ndarray, number: int) -> list[Ranking]:
        """Predictions of each class from the highest score.

        Args:
            capped: at most 100 predictions per image and class, as COCO.
            clusters: (I,) column of each image.
            number: of columns.
        """
        arrays = self.arrays
        kept = ~self._beyond_cap if capped else np.ones(len(arrays.score), bool)
        true = by_cluster(self.of_truths(arrays.required), clusters, number)
        rankings = []
        for index in range(self.classes):
            chosen = np.flatnonzero(kept & (arrays.class_index == index))
            states = [matches.state[chosen] for matches in self._coco_matches]
            score, item, number_of = arrays.score[chosen], arrays.item[chosen], arrays.number[chosen]
            rankings.append(Ranking(score, item, number_of, clusters[item], states, true[:, index]))
        return rankings

    def extent(self, metric: str) -> np.ndarray:
        """Objects that a metric counts, in truth or prediction, (I, K)."""
        if metric in ("ap", "ap_50", "ap_75", "ap_coco"):
            predicted = self.of_predictions(np.ones(len(self.arrays.score)), self.arrays)
            return np.asarray(self.of_truths(self.arrays.required) + predicted)
        return np.asarray(self["tp_50"] + self["fp_50"] + self["fn_50"])

    @cached_property
    def _beyond_cap(self) -> np.ndarray:
        """(P,) bool, predictions after the 100th of their image and class."""
        place = pd.DataFrame({"item": self.arrays.item, "class": self.arrays.class_index})
        return np.asarray(place.groupby(["item", "class"]).cumcount() >= COCO_DETECTIONS)

    def is_capped(self) -> bool:
        """Whether COCO's limit of detections leaves any prediction out."""
        return bool(self._beyond_cap.any())

    @cached_property
    def _coco_matches(self) -> list[Matches]:
        """Matches as COCO; its limit of detections changes none, because those of higher scores match before."""
        return [self.arrays.match(float(threshold), strict=False) for threshold in COCO_THRESHOLDS]

    def _image_ap(self, capped: bool) -> dict[str, np.ndarray]:
        """Average precision of each image."""
        if capped and not self.is_capped():
            return {f"ap_coco_{percent}": self[f"ap_{percent}"] for percent in THRESHOLDS}
        images = len(self.arrays.items)
        values = np.empty((len(THRESHOLDS), images, self.classes))
        for index, ranking in enumerate(self.rankings(capped, np.arange(images), images)):
            by_image = np.argsort(ranking.column, kind="stable")
            ends = np.searchsorted(ranking.column[by_image], np.arange(images + 1))
            for image in range(images):
                chosen = by_image[ends[image] : ends[image + 1]]
                one = ranking.of_column(chosen, image)
                values[:, image, index] = average_precision(one, np.ones((1, 1)))[:, 0]
        prefix = "ap_coco" if capped else "ap"
        return {f"{prefix}_{percent}": values[index] for index, percent in enumerate(THRESHOLDS)}


_BOUNDARY = ("boundary_truth", "boundary_prediction", "boundary_truth_matched", "boundary_prediction_matched")
_SIZE_NAMES = tuple(f"{kind}_{size}" for kind in ("true", "tp") for size in SIZES)
# names of sums that are computed together
_GROUPS: dict[str, Callable[[ObjectRun], dict[str, np.ndarray]]] = {
    **dict.fromkeys(("iou", *_BOUNDARY), ObjectRun._quality),
    **dict.fromkeys(("aji_intersection", "aji_union"), ObjectRun._aji),
    **dict.fromkeys(("true", "count_gap", "false", "empty", "pixels"), ObjectRun._counts),
    **dict.fromkeys(("merged", "split"), ObjectRun._divided),
    **dict.fromkeys(_SIZE_NAMES, ObjectRun._sizes),
}
NAMES = (
    *(f"{kind}_{percent}" for kind in ("tp", "fp", "fn", "ap", "ap_coco") for percent in THRESHOLDS),
    *_GROUPS,
)


def by_cluster(values: np.ndarray, clusters: np.ndarray, number: int) -> np.ndarray:
    """Sums (C, K) over the images of each cluster.

    Args:
        values: (I, K).
        clusters: (I,) index of each image's cluster.
        number: of clusters, C.
    """
    sums = np.zeros((number, values.shape[1]))
    np.add.at(sums, clusters, values)
    return sums


def size_limits(arrays: ObjectArrays) -> tuple[float, float]:
    """Areas that divide the required true objects into thirds; (0, 0) without any."""
    sizes = arrays.true_size[arrays.required]
    low, high = np.quantile(sizes, [1 / 3, 2 / 3], method="inverted_cdf") if len(sizes) else (0.0, 0.0)
    return float(low), float(high)


def divided(arrays: ObjectArrays) -> tuple[np.ndarray, np.ndarray]:
    """Merged and split true objects, (T,) bool each.

    An object is merged if more than half of it is in a prediction that also has more than half of another one; it is
    split if several predictions have more than half of their area in it. Crowds are neither.
    """
    single = ~arrays.crowd[arrays.pair_truth]
    inside = single & (2 * arrays.intersection > arrays.true_area[arrays.pair_truth])
    several = np.bincount(arrays.pair[inside], minlength=len(arrays.score)) > 1
    merged = np.zeros(len(arrays.true_item), bool)
    merged[arrays.pair_truth[inside & several[arrays.pair]]] = True
    parts = single & (2 * arrays.intersection > arrays.area[arrays.pair])
    split = np.bincount(arrays.pair_truth[parts], minlength=len(arrays.true_item)) > 1
    return merged, split
