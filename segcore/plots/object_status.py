"""What became of each object of an evaluation, from its object table: found, missed, false, merged or split.

A status belongs to one operating score. Only objects of the same class are compared.

- found: matched with an IoU above .5.
- merged: a true object that was not found, more than half of which is in a predicted object with more than half of
  another true one; and a predicted object that was not matched and does that.
- split: a true object that was not found, in which two or more predicted objects have more than half of their area; and
  these predicted objects.
- missed: any other true object that was not found.
- false: any other predicted object that was not matched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from segcore.metrics.matching import LeastScore, ObjectArrays, object_arrays

STATUSES = ("found", "missed", "false", "merged", "split")
# end of the names of kept predictions
_KEPT = "_objects.tif"


def object_status(table: pd.DataFrame, score: LeastScore) -> tuple[pd.DataFrame, pd.DataFrame]:
    """True objects, and predicted ones of at least the operating score.

    Args:
        table: object table (segcore.tables.objects).
        score: operating score, or one per image.

    Returns:
        Per object: item, cluster, class_index, number, area in pixels (of a true one in the whole item), and status,
        which is "" for a true object that is not required and was not found. `counted` is False for true objects that
        are not required, and for the predictions that match these.

    Raises:
        DataError: the table is incomplete.
    """
    images = table[(table["kind"] == "image") & (table["pixels"] > 0)].sort_values("item")
    classes = int(table["class_index"].max()) + 1
    arrays = object_arrays(table, images["item"].tolist(), classes).at_least(score)
    matches = arrays.match(0.5, strict=True)
    joins, joined, pieces, divided = _faults(arrays, matches.found)
    hit = matches.state != 0
    of_truths = np.select(
        [matches.found, ~arrays.required, joined, divided], ["found", "", "merged", "split"], "missed"
    )
    of_predictions = np.select([hit, joins, pieces], ["found", "merged", "split"], "false")
    return (
        _rows(images, arrays.true_item, arrays.true_class, arrays.true_number, arrays.true_size).assign(
            status=of_truths, counted=arrays.required
        ),
        _rows(images, arrays.item, arrays.class_index, arrays.number, arrays.area).assign(
            status=of_predictions, counted=matches.state != 2
        ),
    )


def _rows(images: pd.DataFrame, item: np.ndarray, *columns: np.ndarray) -> pd.DataFrame:
    places = images.iloc[item][["item", "cluster"]].reset_index(drop=True)
    return places.assign(**dict(zip(("class_index", "number", "area"), columns, strict=True)))


def _faults(arrays: ObjectArrays, found: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Which predictions join true objects, which true ones they join, which predictions are pieces, and of which."""
    truth, prediction, shared = arrays.pair_truth, arrays.pair, arrays.intersection
    objects, predictions = len(arrays.true_item), len(arrays.item)
    single = ~arrays.crowd[truth]
    inside = single & (2 * shared > arrays.true_area[truth])
    joins = np.bincount(prediction[inside], minlength=predictions) > 1
    joined = _marked(truth[inside & joins[prediction]], objects)
    part = single & (2 * shared > arrays.area[prediction])
    divided = (np.bincount(truth[part], minlength=objects) > 1) & ~found & ~joined & arrays.required
    return joins, joined, _marked(prediction[part & divided[truth]], predictions), divided


def _marked(indices: np.ndarray, size: int) -> np.ndarray:
    marks = np.zeros(size, bool)
    marks[indices] = True
    return marks


@dataclass(frozen=True)
class EvaluatedObjects:
    """Objects of an evaluation at its operating score.

    Attributes:
        table: object table.
        score: operating score, or one per image.
        folders: of the kept predictions; with folds, one per fold.
    """

    table: pd.DataFrame
    score: LeastScore
    folders: Sequence[Path]

    @cached_property
    def status(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """True and predicted objects with their status (`object_status`)."""
        return object_status(self.table, self.score)

    @cached_property
    def f1(self) -> pd.Series:
        """F1 at an IoU above .5 of each image with a counted true object, in [0, 1], all classes together."""
        true, predicted = (rows[rows["counted"]] for rows in self.status)
        total = true.groupby("item").size()
        found = (true["status"] == "found").groupby(true["item"]).sum()
        return 2 * found / (total + predicted.groupby("item").size().reindex(total.index, fill_value=0))

    @property
    def merged(self) -> pd.Series:
        """Number of merged true objects of each image with a true object."""
        truths = self.status[0]
        return (truths["status"] == "merged").groupby(truths["item"]).sum()

    @property
    def counts(self) -> pd.DataFrame:
        """Numbers of counted objects of each cluster, all classes together: index cluster, columns true, predicted."""
        clusters = sorted(self.table.loc[self.table["kind"] == "image", "cluster"].unique())
        numbers = [
            rows[rows["counted"]].groupby("cluster").size().reindex(clusters, fill_value=0)
            for rows in self.status
        ]
        return pd.DataFrame(dict(zip(("true", "predicted"), numbers, strict=True)))

    @property
    def kept(self) -> set[str]:
        """Ids of the regions whose predicted objects were kept."""
        return set(self._files)

    def kept_file(self, region: str) -> Path:
        """Raster of the numbers of the predicted objects of a kept region."""
        return self._files[region]

    @cached_property
    def _files(self) -> dict[str, Path]:
        files = (path for folder in self.folders for path in folder.glob(f"*{_KEPT}"))
        return {path.name.removesuffix(_KEPT): path for path in files}


def size_bins(areas: np.ndarray, most: int = 6, least: int = 10) -> np.ndarray:
    """Ends of up to `most` bins of areas in pixels, with about equal numbers of at least `least` objects.

    Returns:
        B + 1 increasing numbers; bin i has the areas from number i up to below number i + 1. Empty without areas.
    """
    if not len(areas):
        return np.zeros(0)
    bins = max(1, min(most, len(areas) // least))
    ends = np.unique(np.quantile(areas, np.linspace(0, 1, bins + 1), method="nearest"))
    # the largest object is in the last bin
    return np.array([*ends[: max(1, len(ends) - 1)], areas.max() + 1])


def found_by_size(truths: pd.DataFrame, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of counted true objects in each bin of areas, and of those found, (B,) each.

    Args:
        truths: as `object_status` returns them.
        ends: as of `size_bins`.
    """
    true = truths[truths["counted"]]
    found = true.loc[true["status"] == "found", "area"]
    return np.histogram(true["area"], ends)[0], np.histogram(found, ends)[0]
